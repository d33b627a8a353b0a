//! Routes to other nodes by the conf's static `peers`: what every pod takes for granted, and what others suffered.

mod cost;
mod reach;
mod repair;
mod trouble;

use serde_json::{Value, json};

use kit::ip;
use kit::node::Node;
use kit::pod::Pod;

/// The protocol number of all routes that are ferrule's.
const OURS: &str = "proto 102";

/// The peer entry of node `n` of an [`Underlay`](kit::underlay::Underlay): its pods are in
/// 10.244.n.0/24 and fd00:244:n::/64.
fn peer(n: usize) -> Value {
    json!({
        "node": format!("node-{n}"),
        "podCIDRs": [format!("10.244.{n}.0/24"), format!("fd00:244:{n}::/64")],
        "nodeIPs": [format!("192.168.77.1{n}"), format!("fd77::1{n}")],
    })
}

/// A peer that is not there: nodes need not answer for the routes to them to stand.
fn silent_peer(i: usize) -> Value {
    let (high, low) = (i / 200, i % 200);
    json!({
        "node": format!("silent-{i}"),
        "podCIDRs": [format!("11.{high}.{low}.0/24"), format!("fd00:11:{high:x}:{low:x}::/64")],
        "nodeIPs": [format!("192.168.77.{}", 20 + i % 200), format!("fd77::{:x}", 0x1000 + i)],
    })
}

/// The conf of node `n` in network `name`.
fn conf(node: &Node, name: &str, n: usize, peers: Vec<Value>) -> Value {
    json!({
        "cniVersion": "1.1.0",
        "name": name,
        "type": "ferrule",
        "ipam": {
            "type": "ferrule",
            "ranges": [[{ "subnet": format!("10.244.{n}.0/24") }], [{ "subnet": format!("fd00:244:{n}::/64") }]],
            "routes": [{ "dst": "0.0.0.0/0" }, { "dst": "::/0" }],
            "dataDir": node.data_dir(),
        },
        "nodeIPs": [format!("192.168.77.1{n}"), format!("fd77::1{n}")],
        "peers": peers,
    })
}

/// One ADD on `node`, of a pod that nobody looks at. What it wrote to stderr.
fn add_one(node: &Node, conf: &Value, container: &str) -> String {
    let answer = node.try_add(&Pod::with_container(container), conf);
    answer.result();
    answer.stderr
}

/// The routes to peers as "destination via next hop", sorted; both families.
fn peer_routes(node: &Node) -> Vec<String> {
    let of_family = |family| ip::routes(node.namespace(), &format!("{family} table all {OURS}"));
    let both = [of_family("-4"), of_family("-6")].concat();
    let via = both.iter().filter(|route| route.get("gateway").is_some());
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let mut shown: Vec<String> =
        via.map(|route| format!("{} via {}", text(&route["dst"]), text(&route["gateway"]))).collect();
    shown.sort();
    shown
}

/// Takes routes away as a person, or systemd-networkd, does. `routes` as [`peer_routes`] has them.
fn delete(node: &Node, routes: &[String]) {
    let lines: String = routes.iter().map(|route| format!("route delete {route} {OURS}\n")).collect();
    node.namespace().ip_batch(&lines);
}
