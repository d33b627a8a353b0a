//! A Node object is a claim: what no pods elsewhere may have gets no route, whatever a Node says.

use std::collections::BTreeSet;
use std::fs;

use ferrule::cni::ids::NetworkName;
use ferrule::desired::names::route_metric;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::access::Access;
use super::api::NodeSpec;
use super::node::{AgentNode, other, own};

/// A Node that never was ready.
fn claim(name: &str, pod_cidrs: &[&str], number: u8) -> NodeSpec {
    let mut spec =
        NodeSpec::new(name, pod_cidrs, &[&format!("192.0.2.{number}"), &format!("fd00:aa::{number}")]);
    spec.ready = false;
    spec
}

fn refused(node: &AgentNode, name: &str) -> Option<f64> {
    node.metric(&format!("ferrule_claims_refused{{node=\"{name}\"}}"))
}

fn events(node: &AgentNode, reason: &str) -> Vec<String> {
    let events = node.api.written("/events").into_iter();
    events.filter(|event| event["reason"] == reason).map(|event| event["note"].to_string()).collect()
}

#[test]
fn what_the_node_needs_is_no_pods_range_of_another_node() {
    let mut node = AgentNode::new("claims");
    // A gateway that is in no network of a link, as clouds have them.
    node.namespace.ip("route add 198.51.100.1 dev eth0");
    node.namespace.ip("route add default via 198.51.100.1");
    node.namespace.ip("link add docker0 type veth peer p-docker0");
    node.namespace.ip("link set p-docker0 up");
    node.namespace.ip("address add 172.17.0.1/16 dev docker0");
    node.namespace.ip("link set docker0 up");
    node.api.set_services(&["10.96.0.0/16", "fd00:96::/108"]);
    node.api.put(other(11));
    node.start_ready();
    node.wait_for_routes_to(&[11]);
    let wrong = [
        ("within-link", "192.0.2.128/25"),
        ("wider", "192.0.0.0/16"),
        ("ipv6-link", "fd00:aa::/80"),
        ("gateway", "198.51.100.0/24"),
        ("bridge", "172.17.9.0/24"),
        ("services", "10.96.7.0/24"),
        ("services6", "fd00:96::/112"),
        ("own-wider", "10.244.0.0/22"),
        ("peer-wider", "10.244.8.0/22"),
        ("peer-equal", "10.244.11.0/24"),
        ("peer-within", "10.244.11.64/26"),
        ("peer6-within", "fd00:10:11:0:1::/80"),
        ("loopback", "127.0.0.0/8"),
        ("link-local", "169.254.0.0/16"),
        ("multicast", "ff05::/64"),
        ("half-of-all", "128.0.0.0/1"),
    ];
    for (number, (name, cidr)) in wrong.iter().enumerate() {
        // Older than all others, and first by name or last: it does not help.
        let mut spec = claim(name, &[cidr], 40 + u8::try_from(number).unwrap());
        spec.created = "2020-01-01T00:00:00Z".into();
        node.api.put(spec);
    }
    node.api.put(other(12));
    node.wait_for_routes_to(&[11, 12]);
    for (name, cidr) in wrong {
        node.wait(&format!("the refusal of {name}"), || refused(&node, name) == Some(1.0));
        assert_eq!(node.log().matches(&format!("node={name} ")).count(), 1, "once: {}", node.log());
        node.wait(&format!("the event of {name}"), || {
            events(&node, "ClaimRefused").iter().any(|note| note.contains(name) && note.contains(cidr))
        });
    }
    for set in ["no_masquerade4", "no_masquerade6"] {
        let inside = node.nft(&format!("list set inet ferrule {set}"));
        for part in
            ["172.17", "198.51", "10.96", "127.0", "10.244.0.0", "10.244.8.0", "fd00:96", "fd00:aa::/80"]
        {
            assert!(!inside.contains(part), "{part}: {inside}");
        }
    }
    node.api.delete("within-link");
    node.wait("that it is over", || refused(&node, "within-link").is_none());
    node.wait("the event", || !events(&node, "ClaimNoLongerRefused").is_empty());
    node.wait_for_routes_to(&[11, 12]);
}

#[test]
fn a_refusal_follows_what_the_node_has() {
    let mut node = AgentNode::new("follows");
    node.api.put(other(11));
    node.start_ready();
    node.wait_for_routes_to(&[11]);
    node.namespace.ip("link add br0 type veth peer p-br0");
    node.namespace.ip("link set p-br0 up");
    node.namespace.ip("address add 10.244.11.1/24 dev br0");
    node.namespace.ip("link set br0 up");
    node.wait("the refusal", || refused(&node, "node-11") == Some(1.0));
    let routes = ["fd00:10:11::/64 via fd00:aa::11 src fd00:aa::10"];
    node.wait("the other family alone", || node.peer_routes() == routes);
    node.namespace.ip("link delete br0");
    node.wait_for_routes_to(&[11]);
    assert_eq!(refused(&node, "node-11"), None);
}

#[test]
fn this_nodes_own_range_is_a_claim_too() {
    let mut node = AgentNode::new("ownclaim");
    let mut wrong = own();
    wrong.pod_cidrs = vec!["192.0.2.0/25".into(), "fd00:aa::/80".into()];
    node.api.put(wrong);
    node.start();
    node.wait("the refusal", || refused(&node, "node-a") == Some(2.0));
    assert!(!node.has("net.d/10-ferrule.conflist"));
    assert_eq!(node.namespace.ip("route show proto 102"), "");
    // The bridge of the plugin that was here before holds the range that the node still has.
    node.namespace.ip("link add cni0 type veth peer p-cni0");
    node.namespace.ip("link set p-cni0 up");
    node.namespace.ip("address add 10.244.1.1/24 dev cni0");
    node.namespace.ip("link set cni0 up");
    node.api.put(own());
    node.wait("the conf", || node.has("net.d/10-ferrule.conflist"));
}

#[test]
fn what_is_on_disk_is_judged_again_at_start() {
    let mut node = AgentNode::new("disk");
    node.api.put(other(11));
    node.start_ready();
    node.wait("its memory", || node.has("data/podnet/agent.json"));
    node.end(Signal::TERM);
    // As a version before the judgement left it, on disk and in the kernel.
    let path = node.path("data/podnet/agent.json");
    let mut saved: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let wrong = json!({ "node": "wrong", "podCidrs": ["192.0.2.0/25"], "nodeIps": ["192.0.2.66"] });
    saved["peers"].as_array_mut().unwrap().push(wrong);
    fs::write(&path, saved.to_string()).unwrap();
    let metric = route_metric(&NetworkName::parse("podnet").unwrap());
    let route = format!("192.0.2.0/25 via 192.0.2.66 proto 102 metric {metric}");
    node.namespace.ip(&format!("route add {route}"));
    node.namespace.ip("route delete 10.244.11.0/24");
    node.api.be_away(true);
    node.start();
    node.wait_for_routes_to(&[11]);
    node.wait("the refusal", || refused(&node, "wrong") == Some(1.0));
    // Without anything on disk as well.
    node.end(Signal::KILL);
    fs::remove_file(&path).unwrap();
    node.namespace.ip(&format!("route add {route}"));
    node.start();
    node.wait_for_routes_to(&[11]);
}

#[test]
fn routes_that_silence_the_api_server_are_withdrawn() {
    let mut node = AgentNode::new("silence");
    node.api.put(other(11));
    node.start_ready();
    let is_trusted = || {
        let saved = fs::read_to_string(node.path("data/podnet/agent.json")).unwrap_or_default();
        saved.contains("10.244.11.0") && saved.contains("\"onTrial\":[]")
    };
    node.wait("word of the API server", is_trusted);
    node.api.put(other(12));
    node.wait_for_routes_to(&[11, 12]);
    node.api.be_away(true);
    node.wait_for_routes_to(&[11]);
    assert!(node.log().contains("API server silent since these routes were set"));
    // It answers without them: they stay away.
    node.api.be_away(false);
    node.wait("the event", || {
        events(&node, "RoutesCutOffApiServer").iter().any(|it| it.contains("10.244.12.0/24"))
    });
    node.wait("the metric", || refused(&node, "node-12") == Some(2.0));
    node.wait_for_routes_to(&[11]);
    // It does not answer without others either: those come back.
    node.api.put(other(13));
    node.wait_for_routes_to(&[11, 13]);
    node.api.be_away(true);
    node.wait_for_routes_to(&[11]);
    node.wait_for_routes_to(&[11, 13]);
    node.wait("no metric", || refused(&node, "node-13").is_none());
}

/// Before Kubernetes 1.33 there are no ServiceCIDR objects, and a role of before an upgrade does not allow them.
#[test]
fn without_service_ranges_the_service_kubernetes_is_known() {
    let mut node = AgentNode::new("services");
    let access = |verb: &str| Access { group: String::new(), resource: "nodes".into(), verb: verb.into() };
    node.api.allow(BTreeSet::from([access("list"), access("watch")]));
    node.through = vec!["env".into(), "KUBERNETES_SERVICE_HOST=10.96.0.1".into()];
    node.api.put(claim("services", &["10.96.0.0/24"], 20));
    node.api.put(other(11));
    node.start_ready();
    node.wait("the refusal", || refused(&node, "services") == Some(1.0));
    node.wait_for_routes_to(&[11]);
}
