//! Ports: by name, which each pod has a number of its own for; in ranges; several times.

use serde_json::{Value, json};

use super::STARTS;
use super::manifest::{Policy, blocks, pods, two_ports};
use super::ways::{Ways, udp};
use crate::pod::{HTTP, Pod, UDP};
use crate::process::Result;
use crate::space::Space;

/// Where both servers listen, at each with another name.
const PORTS: [u16; 2] = [8080, 9090];

/// Of `low` and `high` the port `web` is the first and the second; `none` has both ports and no name for them. On two
/// nodes.
fn servers(space: &Space<'_>) -> Result<Vec<Value>> {
    let [first, second] = PORTS;
    let server = |name: &str| two_ports(name, &space.agnhost, PORTS).labelled("role", "server");
    let named = |port: u16| json!([{ "name": "web", "containerPort": port }]);
    Ok(vec![
        server("low").on(space.worker(0)?).with_ports(named(first)).manifest(),
        server("high").on(space.worker(1)?).with_ports(named(second)).manifest(),
        server("none").on(space.worker(0)?).manifest(),
    ])
}

/// What a client may do to whom `web` is opened: each server has its own number.
fn by_name<'a>(ways: Ways<'a>, client: &str) -> Ways<'a> {
    let [first, second] = PORTS;
    ways.open(client, "low", first)
        .shut(client, "low", second)
        .open(client, "high", second)
        .shut(client, "high", first)
        .shut(client, "none", first)
        .shut(client, "none", second)
}

/// One policy for pods that have different numbers for the name; by pods and by blocks.
pub fn a_named_port_of_ingress_is_each_pods_own(space: &Space<'_>) -> Result {
    let client = |name: &str| Pod::running(name, &space.agnhost, &["pause"]);
    let clients = [client("by-pod").on(space.worker(0)?), client("by-block").on(space.worker(1)?)];
    space.create(servers(space)?.into_iter().chain(clients.map(Pod::manifest)))?;
    space.create([client("other").on(space.worker(1)?).manifest()])?;
    space.all_ready(STARTS)?;
    let web = json!([{ "port": "web" }]);
    let from_blocks = blocks(&space.addresses("by-block")?);
    space.create([Policy::of("web", json!({ "role": "server" }))
        .ingress(json!({ "from": [pods(&json!({ "app": "by-pod" }))], "ports": web }))
        .ingress(json!({ "from": from_blocks, "ports": web }))
        .manifest()])?;
    let ways = by_name(by_name(Ways::among(&[space])?, "by-pod"), "by-block");
    ways.shut("other", "low", PORTS[0]).shut("other", "high", PORTS[1]).hold()
}

/// The name is looked up in the pod that is connected to. The clients have one of that name as well, which is nobody's
/// business.
pub fn a_named_port_of_egress_is_the_servers(space: &Space<'_>) -> Result {
    let own = json!([{ "name": "web", "containerPort": 7070 }]);
    let client = |name: &str| Pod::running(name, &space.agnhost, &["pause"]).with_ports(own.clone());
    let clients = [client("by-pod").on(space.worker(0)?), client("by-block").on(space.worker(1)?)];
    space.create(servers(space)?.into_iter().chain(clients.map(Pod::manifest)))?;
    space.create([client("free").on(space.worker(1)?).manifest()])?;
    space.all_ready(STARTS)?;
    let web = json!([{ "port": "web" }]);
    let mut servers_blocks = Vec::new();
    for server in ["low", "high", "none"] {
        servers_blocks.extend(blocks(&space.addresses(server)?));
    }
    space.create([
        Policy::of("by-pod", json!({ "app": "by-pod" }))
            .egress(json!({ "to": [pods(&json!({ "role": "server" }))], "ports": web }))
            .manifest(),
        Policy::of("by-block", json!({ "app": "by-block" }))
            .egress(json!({ "to": servers_blocks, "ports": web }))
            .manifest(),
    ])?;
    let ways = by_name(by_name(Ways::among(&[space])?, "by-pod"), "by-block");
    ways.open("free", "none", PORTS[0]).open("free", "none", PORTS[1]).open("free", "low", PORTS[1]).hold()
}

/// Several policies, each with ports of its own for peers of its own, among them the same port twice, ranges that overlap,
/// and a port of the other protocol.
pub fn ports_overlap_repeat_and_have_ranges(space: &Space<'_>) -> Result {
    let [low, high] = [HTTP, 9090];
    let server = |name: &str| two_ports(name, &space.agnhost, [low, high]);
    let dual = Pod::server("udp", &space.agnhost).labelled("role", "server").on(space.worker(1)?);
    let client = |name: &str| Pod::running(name, &space.agnhost, &["pause"]);
    space.create([
        server("server").labelled("role", "server").on(space.worker(0)?).manifest(),
        dual.manifest(),
        client("friend").on(space.worker(1)?).manifest(),
        client("guest").on(space.worker(0)?).manifest(),
    ])?;
    space.all_ready(STARTS)?;
    let of_servers = |name: &str| Policy::of(name, json!({ "role": "server" }));
    let friend = json!([pods(&json!({ "app": "friend" }))]);
    space.create([
        of_servers("friend")
            .ingress(json!({ "from": friend, "ports": [{ "port": 8000, "endPort": 8090 }, { "port": 8090, "endPort": 9100 }] }))
            .ingress(json!({ "from": friend, "ports": [{ "port": low }, { "port": low }, { "protocol": "UDP", "port": 8000, "endPort": 8100 }] }))
            .manifest(),
        of_servers("everybody").ingress(json!({ "ports": [{ "port": low }, { "protocol": "TCP", "port": low }] })).manifest(),
        // A range of one port, which is none of theirs.
        of_servers("one").ingress(json!({ "ports": [{ "port": 9091, "endPort": 9091 }] })).manifest(),
    ])?;
    Ways::among(&[space])?
        .open("friend", "server", low)
        .open("friend", "server", high)
        .open("friend", "udp", udp(UDP))
        .open("guest", "server", low)
        .shut("guest", "server", high)
        .shut("guest", "udp", udp(UDP))
        .open("guest", "udp", low)
        .hold()
}
