//! Peers: who is meant by an absent `from`, by an empty one, by an empty selector, and by labels that a pod lacks.

use serde_json::json;

use super::manifest::{Policy, pods};
use super::ways::Ways;
use super::{Beside, STARTS};
use crate::pod::{HTTP, Pod};
use crate::process::Result;
use crate::space::Space;

/// Who is let in by each of them; and that a rule is not the same as none.
pub fn from_missing_empty_and_empty_peer_differ(space: &Space<'_>) -> Result {
    let beside = Beside::make(space, &[])?;
    let servers = ["missing", "empty", "own", "all-pods", "no-rule"];
    let placed = servers
        .iter()
        .enumerate()
        .map(|(place, name)| Ok(Pod::server(name, &space.agnhost).on(space.worker(place % 2)?).manifest()));
    let client = |name: &str| Pod::running(name, &space.agnhost, &["pause"]);
    space.create(placed.collect::<Result<Vec<_>>>()?)?;
    space.create([client("near").on(space.worker(0)?).manifest()])?;
    beside.0.create([client("far").on(space.worker(1)?).manifest()])?;
    space.all_ready(STARTS)?;
    beside.0.all_ready(STARTS)?;
    let of = |name: &str| Policy::of(name, json!({ "app": name }));
    space.create([
        of("missing").ingress(json!({})).manifest(),
        of("empty").ingress(json!({ "from": [] })).manifest(),
        of("own").ingress(json!({ "from": [{ "podSelector": {} }] })).manifest(),
        of("all-pods").ingress(json!({ "from": [{ "namespaceSelector": {} }] })).manifest(),
        of("no-rule").isolating("Ingress").manifest(),
    ])?;
    let mut ways = Ways::among(&[space, &beside.0])?;
    // Another node is no pod, and only the rules without peers mean it.
    let node = space.worker(1)?;
    for (server, far, other_node) in
        [("missing", true, true), ("empty", true, true), ("own", false, false), ("all-pods", true, false)]
    {
        ways = ways.open("near", server, HTTP);
        ways = if far { ways.open("far", server, HTTP) } else { ways.shut("far", server, HTTP) };
        if space.worker(0)?.name != node.name && ["missing", "own"].contains(&server) {
            let addresses = space.addresses(server)?;
            ways = ways.from(node, "the other node", server, &addresses, HTTP, other_node);
        }
    }
    ways.shut("near", "no-rule", HTTP).shut("far", "no-rule", HTTP).hold()
}

/// A pod without the label is none that has another value, as subject and as peer.
pub fn not_in_selects_those_without_the_label(space: &Space<'_>) -> Result {
    let (near, far) = (space.worker(0)?, space.worker(1)?);
    let client = |name: &str| Pod::running(name, &space.agnhost, &["pause"]);
    let server = |name: &str| Pod::server(name, &space.agnhost);
    space.create([
        client("good").labelled("tier", "good").on(near).manifest(),
        client("bad").labelled("tier", "bad").on(far).manifest(),
        client("bare").on(far).manifest(),
        server("plain").on(near).manifest(),
        server("open").labelled("door", "open").on(near).manifest(),
    ])?;
    space.all_ready(STARTS)?;
    let not_in = |key: &str, value: &str| json!({ "key": key, "operator": "NotIn", "values": [value] });
    // All but the pod with door=open, which the client without the label `door` is too.
    let subject = json!({ "matchExpressions": [not_in("door", "open"), { "key": "tier", "operator": "DoesNotExist" }] });
    let peer = json!({ "podSelector": { "matchExpressions": [not_in("tier", "bad")] } });
    space.create([Policy::selecting("not-in", subject).ingress(json!({ "from": [peer] })).manifest()])?;
    Ways::among(&[space])?
        .open("good", "plain", HTTP)
        .open("bare", "plain", HTTP)
        .shut("bad", "plain", HTTP)
        .open("bad", "open", HTTP)
        .hold()
}

/// `podSelector` and `namespaceSelector` in one peer: both must hold. In two peers: one of them.
pub fn namespaces_and_pods_are_both_asked_for(space: &Space<'_>) -> Result {
    let beside = Beside::make(space, &["team=red"])?;
    let client = |name: &str| Pod::running(name, &space.agnhost, &["pause"]);
    space.create([
        Pod::server("both", &space.agnhost).on(space.worker(0)?).manifest(),
        Pod::server("either", &space.agnhost).on(space.worker(0)?).manifest(),
        client("near-friend").labelled("role", "friend").on(space.worker(1)?).manifest(),
        client("near-other").on(space.worker(1)?).manifest(),
    ])?;
    beside.0.create([
        client("red-friend").labelled("role", "friend").on(space.worker(0)?).manifest(),
        client("red-other").on(space.worker(1)?).manifest(),
    ])?;
    space.all_ready(STARTS)?;
    beside.0.all_ready(STARTS)?;
    let red = json!({ "namespaceSelector": { "matchLabels": { "team": "red" } } });
    let friend = pods(&json!({ "role": "friend" }));
    let mut both = red.clone();
    both["podSelector"] = friend["podSelector"].clone();
    space.create([
        Policy::of("both", json!({ "app": "both" })).ingress(json!({ "from": [both] })).manifest(),
        Policy::of("either", json!({ "app": "either" })).ingress(json!({ "from": [red, friend] })).manifest(),
    ])?;
    Ways::among(&[space, &beside.0])?
        .open("red-friend", "both", HTTP)
        .shut("red-other", "both", HTTP)
        .shut("near-friend", "both", HTTP)
        .open("red-friend", "either", HTTP)
        .open("red-other", "either", HTTP)
        .open("near-friend", "either", HTTP)
        .shut("near-other", "either", HTTP)
        .hold()
}
