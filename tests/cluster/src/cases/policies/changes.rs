//! What selectors select changes: labels, pods that finish, pods without an address, policies by the hundred.

use std::time::{Duration, Instant};

use serde_json::json;

use super::manifest::{Policy, pods};
use super::ways::Ways;
use super::{Beside, STARTS};
use crate::ensure;
use crate::pod::{HTTP, Pod};
use crate::process::{Result, eventually, seconds};
use crate::space::Space;

/// A pod's, as peer and as subject, and a namespace's.
pub fn labels_that_change_are_followed(space: &Space<'_>) -> Result {
    let beside = Beside::make(space, &[])?;
    let client = |name: &str| Pod::running(name, &space.agnhost, &["pause"]);
    space.create([
        Pod::server("server", &space.agnhost).labelled("role", "server").on(space.worker(0)?).manifest(),
        client("client").on(space.worker(1)?).manifest(),
    ])?;
    beside.0.create([client("guest").on(space.worker(1)?).manifest()])?;
    space.all_ready(STARTS)?;
    beside.0.all_ready(STARTS)?;
    let red = json!({ "namespaceSelector": { "matchLabels": { "team": "red" } } });
    let from = json!([pods(&json!({ "role": "friend" })), red]);
    space.create([Policy::of("friends", json!({ "role": "server" }))
        .ingress(json!({ "from": from }))
        .manifest()])?;
    let ways = |client: bool, guest: bool| {
        let between = |ways: Ways<'_>, from: &str, is_open: bool| match is_open {
            true => ways.open(from, "server", HTTP).hold(),
            false => ways.shut(from, "server", HTTP).hold(),
        };
        between(Ways::among(&[space, &beside.0])?, "client", client)?;
        between(Ways::among(&[space, &beside.0])?, "guest", guest)
    };
    let label =
        |pod: &str, label: &str| space.kubectl(&["label", "pod", pod, label, "--overwrite"]).map(|_| ());
    ways(false, false)?;
    label("client", "role=friend")?;
    beside.label("team=red")?;
    ways(true, true)?;
    label("client", "role=stranger")?;
    beside.label("team-")?;
    ways(false, false)?;
    label("server", "role=nobody")?;
    ways(true, true)
}

/// One of a hundred allows it, and when that one is gone, nobody does.
pub fn a_hundred_policies_on_one_pod_add_up(space: &Space<'_>) -> Result {
    let client = |name: &str| Pod::running(name, &space.agnhost, &["pause"]);
    space.create([
        Pod::server("server", &space.agnhost).on(space.worker(0)?).manifest(),
        client("client").on(space.worker(1)?).manifest(),
        client("other").on(space.worker(1)?).manifest(),
    ])?;
    space.all_ready(STARTS)?;
    space.create((0..100).map(|number| {
        let app = if number == 57 { "client".to_owned() } else { format!("client-{number}") };
        // Half of them at the port, half at all ports.
        let ports = if number % 2 == 1 { json!([{ "port": HTTP }]) } else { json!([]) };
        let rule = json!({ "from": [pods(&json!({ "app": app }))], "ports": ports });
        Policy::of(&format!("policy-{number}"), json!({ "app": "server" })).ingress(rule).manifest()
    }))?;
    let start = Instant::now();
    let ways = Ways::among(&[space])?.open("client", "server", HTTP).shut("other", "server", HTTP);
    ways.hold()?;
    space.note(format!("as it should be {} after the last of a hundred", seconds(start.elapsed())));
    space.kubectl(&["delete", "networkpolicy", "policy-57"])?;
    Ways::among(&[space])?.shut("client", "server", HTTP).shut("other", "server", HTTP).hold()
}

/// A pod of a Job that has completed stays in the API with its address, which is another's by now.
pub fn a_finished_pods_address_is_nobodys_peer(space: &Space<'_>) -> Result {
    let node = space.worker(0)?;
    let friend = Pod::running("friend", &space.agnhost, &[])
        .labelled("role", "friend")
        .on(node)
        .with("/spec/containers/0/command", json!(["true"]))
        .with("/spec/restartPolicy", json!("Never"));
    space.create([
        Pod::server("server", &space.agnhost).on(space.worker(1)?).manifest(),
        Policy::of("friends", json!({ "app": "server" }))
            .ingress(json!({ "from": [pods(&json!({ "role": "friend" }))] }))
            .manifest(),
        json!({
            "apiVersion": "batch/v1", "kind": "Job", "metadata": { "name": "friend" },
            "spec": { "template": friend.template() },
        }),
    ])?;
    space.kubectl(&["wait", "--for=condition=Complete", "job/friend", "--timeout=120s"])?;
    let finished = space.get(&["pods", "--selector", "role=friend"])?["items"][0].take();
    let addresses = crate::cluster::addresses_of(&finished);
    ensure!(addresses.len() == space.families.len(), "the finished pod shows {addresses:?}");
    let wanted = addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let heir =
        Pod::running("heir", &space.agnhost, &["pause"]).on(node).annotated("ferrule.dev/ips", &wanted);
    let alive = Pod::running("alive", &space.agnhost, &["pause"]).labelled("role", "friend").on(node);
    space.create([heir.manifest(), alive.manifest()])?;
    let wait = ["wait", "--for=condition=Ready", "pod/heir", "pod/alive", "pod/server", "--timeout=120s"];
    space.kubectl(&wait)?;
    ensure!(space.addresses("heir")? == addresses, "the heir has other addresses than the finished pod");
    let shown = space.get(&["pods", "--selector", "role=friend"])?["items"].to_string();
    ensure!(addresses.iter().all(|address| shown.contains(&address.to_string())), "the finished pod is gone");
    Ways::among(&[space])?.open("alive", "server", HTTP).shut("heir", "server", HTTP).hold()
}

/// One that waits for a node, and one whose image is nowhere: they are selected, as subject and as peer, and all goes on.
pub fn pods_without_an_address_disturb_nobody(space: &Space<'_>) -> Result {
    let waiting = |name: &str| {
        let labelled = Pod::running(name, &space.agnhost, &["pause"]).labelled("role", "friend");
        labelled
            .labelled("tier", "server")
            .with("/spec/nodeSelector", json!({ "ferrule.dev/nowhere": "true" }))
    };
    let client = |name: &str| Pod::running(name, &space.agnhost, &["pause"]);
    space.create([
        waiting("waiting").manifest(),
        Pod::server("server", &space.agnhost).labelled("tier", "server").on(space.worker(0)?).manifest(),
        client("friend").labelled("role", "friend").on(space.worker(1)?).manifest(),
        client("other").on(space.worker(1)?).manifest(),
        Policy::of("friends", json!({ "tier": "server" }))
            .ingress(json!({ "from": [pods(&json!({ "role": "friend" }))], "ports": [{ "port": HTTP }] }))
            .manifest(),
    ])?;
    let wait = ["wait", "--for=condition=Ready", "pod/server", "pod/friend", "pod/other", "--timeout=120s"];
    space.kubectl(&wait)?;
    Ways::among(&[space])?.open("friend", "server", HTTP).shut("other", "server", HTTP).hold()?;
    space.create([waiting("waiting-2").manifest()])?;
    space.kubectl(&["delete", "pod", "waiting", "--timeout=60s"])?;
    eventually("nobody was disturbed", Duration::from_secs(20), || {
        Ways::among(&[space])?.open("friend", "server", HTTP).shut("other", "server", HTTP).hold_now()
    })
}
