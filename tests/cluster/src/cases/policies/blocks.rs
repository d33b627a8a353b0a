//! Blocks of addresses that overlap, and policies whose types and rules do not agree.

use serde_json::{Value, json};

use super::STARTS;
use super::manifest::{Policy, single};
use super::ways::Ways;
use crate::pod::{HTTP, Pod};
use crate::process::Result;
use crate::space::Space;

/// Everything, of each family; but for what is left out of it.
fn everything_but(space: &Space<'_>, pod: &str) -> Result<Vec<Value>> {
    let block = |address: &std::net::IpAddr| {
        let all = if address.is_ipv4() { "0.0.0.0/0" } else { "::/0" };
        json!({ "ipBlock": { "cidr": all, "except": [single(address)] } })
    };
    Ok(space.addresses(pod)?.iter().map(block).collect())
}

/// The addresses of a pod, twice, and the larger blocks around them.
fn nested(space: &Space<'_>, pod: &str) -> Result<Vec<Value>> {
    let mut all = Vec::new();
    for address in space.addresses(pod)? {
        let lengths: &[u8] = if address.is_ipv4() { &[32, 31, 32, 30] } else { &[128, 127, 128, 126] };
        all.extend(
            lengths.iter().map(|length| json!({ "ipBlock": { "cidr": format!("{address}/{length}") } })),
        );
    }
    Ok(all)
}

/// What one block leaves out another may have; what is there twice is there. As a source, and as a destination.
pub fn blocks_overlap_repeat_and_leave_out(space: &Space<'_>) -> Result {
    let client = |name: &str| Pod::running(name, &space.agnhost, &["pause"]);
    let server = |name: &str| Pod::server(name, &space.agnhost);
    let (near, far) = (space.worker(0)?, space.worker(1)?);
    space.create([
        client("one").on(near).manifest(),
        client("two").on(far).manifest(),
        client("sender").on(far).manifest(),
        server("left-out").on(near).manifest(),
        server("taken-in").on(near).manifest(),
        server("twice").on(near).manifest(),
    ])?;
    space.all_ready(STARTS)?;
    let but_one = everything_but(space, "one")?;
    let taken_in = [but_one.clone(), nested(space, "one")?].concat();
    let twice = [nested(space, "one")?, nested(space, "one")?, nested(space, "two")?].concat();
    let of = |name: &str| Policy::of(name, json!({ "app": name }));
    let but_server = everything_but(space, "taken-in")?;
    space.create([
        of("left-out").ingress(json!({ "from": but_one })).ingress(json!({ "from": but_one })).manifest(),
        of("taken-in").ingress(json!({ "from": taken_in })).manifest(),
        of("twice").ingress(json!({ "from": twice })).manifest(),
        of("sender").egress(json!({ "to": but_server })).manifest(),
    ])?;
    let mut ways = Ways::among(&[space])?;
    if near.name != far.name {
        // Another node has none of the addresses.
        ways = ways.from(far, "the other node", "twice", &space.addresses("twice")?, HTTP, false);
    }
    ways.shut("one", "left-out", HTTP)
        .open("two", "left-out", HTTP)
        .open("one", "taken-in", HTTP)
        .open("two", "taken-in", HTTP)
        .open("one", "twice", HTTP)
        .open("two", "twice", HTTP)
        .open("sender", "left-out", HTTP)
        .shut("sender", "taken-in", HTTP)
        .hold()
}

/// Rules of a direction that is not among the types mean nothing. Without types, rules of egress isolate.
pub fn policy_types_decide_and_not_the_rules(space: &Space<'_>) -> Result {
    let names = ["ingress", "egress", "both", "peer"];
    let placed = names
        .iter()
        .enumerate()
        .map(|(place, name)| Ok(Pod::server(name, &space.agnhost).on(space.worker(place % 2)?).manifest()));
    space.create(placed.collect::<Result<Vec<_>>>()?)?;
    space.all_ready(STARTS)?;
    let of = |name: &str| Policy::of(name, json!({ "app": name }));
    let nobody = json!([{ "podSelector": { "matchLabels": { "app": "nobody" } } }]);
    space.create([
        of("ingress").isolating("Ingress").rule("egress", json!({ "to": nobody })).manifest(),
        of("egress").isolating("Egress").rule("ingress", json!({ "from": nobody })).manifest(),
        of("both").rule("egress", json!({ "to": nobody })).without_types().manifest(),
    ])?;
    Ways::among(&[space])?
        .open("ingress", "peer", HTTP)
        .shut("peer", "ingress", HTTP)
        .open("peer", "egress", HTTP)
        .shut("egress", "peer", HTTP)
        .shut("both", "peer", HTTP)
        .shut("peer", "both", HTTP)
        .hold()
}
