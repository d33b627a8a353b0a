//! What somebody else does to the node is repaired at once.

use std::time::Duration;

use serde_json::json;

use super::node::{AgentNode, other};
use kit::call::Call;
use kit::packets::answers_ping;
use kit::pod::{Pod, addresses_of, host_link_of};

/// Far more than the hundred milliseconds that are promised of an idle node: these tests run beside all others.
const SOON: Duration = Duration::from_secs(5);

fn ready(role: &str) -> AgentNode {
    let mut node = AgentNode::new(role);
    node.api.put(other(11));
    node.api.put(other(12));
    node.start_ready();
    node.wait_for_routes_to(&[11, 12]);
    node
}

fn repaired(node: &AgentNode, what: &str, condition: impl Fn() -> bool) {
    let took = node.wait(what, condition);
    println!("{what}: repaired after {took:?}");
    assert!(took < SOON, "{what}: {took:?}");
}

#[test]
fn routes_that_somebody_deletes() {
    let node = ready("deleted");
    let metric = || node.metric("ferrule_routes_repaired_total").unwrap();
    node.namespace.ip("route delete 10.244.11.0/24 proto 102");
    repaired(&node, "one route", || node.peer_routes().len() == 4);
    node.namespace.ip("route flush proto 102");
    node.namespace.ip("-6 route flush proto 102");
    repaired(&node, "all routes", || {
        node.peer_routes().len() == 4
            && node.namespace.ip("route show proto 102").contains("unreachable 10.244.1.0/24")
    });
    assert!(metric() >= 5.0, "{}", metric());
    assert!(node.log().contains("msg=\"drift repaired\" part="));
}

#[test]
fn a_route_that_somebody_leads_elsewhere() {
    let node = ready("changed");
    let metric =
        ferrule::desired::names::route_metric(&ferrule::cni::ids::NetworkName::parse("podnet").unwrap());
    node.namespace.ip(&format!("route replace 10.244.11.0/24 via 192.0.2.99 metric {metric}"));
    repaired(&node, "a replaced route", || {
        node.peer_routes().contains(&"10.244.11.0/24 via 192.0.2.11 src 192.0.2.10".to_owned())
    });
}

#[test]
fn a_link_that_goes_down_and_up() {
    let node = ready("flap");
    node.namespace.ip("link set eth0 down");
    assert!(node.peer_routes().len() < 4);
    node.namespace.ip("link set eth0 up");
    // The kernel forgets IPv6 addresses of a link that goes down; whoever gave it them gives them again.
    node.namespace.ip("address add fd00:aa::10/64 dev eth0 nodad");
    repaired(&node, "routes after a link flapped", || node.peer_routes().len() == 4);
}

#[test]
fn a_table_that_is_flushed_or_gone() {
    let node = ready("table");
    let stands = || {
        let table = node.nft("list table inet ferrule");
        table.contains("fully-random")
            && !table.contains("dormant")
            && !table.contains("evil")
            && node.nft("list set inet ferrule no_masquerade4").contains("10.244.12.0/24")
    };
    assert!(stands());
    for deed in [
        "flush ruleset",
        "delete table inet ferrule",
        "flush table inet ferrule",
        "flush chain inet ferrule postrouting",
        "flush set inet ferrule no_masquerade4",
        "add table inet ferrule { flags dormant; }",
        "insert rule inet ferrule postrouting accept comment \"evil\"",
    ] {
        node.nft(deed);
        repaired(&node, deed, stands);
    }
}

/// What is dropped is told by reason, and a table that somebody changed is no reason to count from nothing.
#[test]
fn dropped_packets_are_told_by_reason() {
    let node = ready("drops");
    let metric = |reason: &str| node.metric(&format!("ferrule_dropped_packets_total{{reason=\"{reason}\"}}"));
    node.wait("counters", || metric("spoofed_source") == Some(0.0) && metric("policy_ingress") == Some(0.0));
    assert_eq!(metric("metadata"), None, "nobody refuses that");
    let pod = Pod::new("pod");
    pod_on(&node, &pod);
    pod.namespace().ip("address add 203.0.113.7/32 dev eth0");
    let forge = || pod.namespace().sh("ping -c 1 -W 1 -I 203.0.113.7 192.0.2.10 >/dev/null || true");
    forge();
    node.wait("one more", || metric("spoofed_source") == Some(1.0));
    node.nft("flush chain inet ferrule postrouting");
    repaired(&node, "the table", || node.nft("list table inet ferrule").contains("fully-random"));
    forge();
    node.wait("counted on", || metric("spoofed_source") == Some(2.0));
}

/// hostPorts answer on the node's addresses, and on no other that is local.
#[test]
fn an_address_that_comes_later_is_the_nodes() {
    let node = ready("later");
    let has = |set: &str, address: &str| node.nft(&format!("list set inet ferrule {set}")).contains(address);
    assert!(has("node_addresses4", "192.0.2.10") && has("node_addresses6", "fd00:aa::10"));
    node.namespace.ip_batch(
        "link add kube-ipvs0 type bridge\naddress add 10.96.0.1/32 dev kube-ipvs0\n\
         address add 192.0.2.210/32 dev eth0\naddress add fd00:aa::210/64 dev eth0 nodad\n",
    );
    repaired(&node, "an address of the node", || {
        has("node_addresses4", "192.0.2.210") && has("node_addresses6", "fd00:aa::210")
    });
    assert!(!has("node_addresses4", "10.96.0.1"));
    node.namespace.ip("address delete 192.0.2.210/32 dev eth0");
    repaired(&node, "an address that went", || !has("node_addresses4", "192.0.2.210"));
    for set in ["node_addresses4", "uplinks"] {
        node.nft(&format!("flush set inet ferrule {set}"));
        repaired(&node, set, || has("node_addresses4", "192.0.2.10") && has("uplinks", "eth0"));
    }
}

/// A pod of the node, its result and its host link.
fn pod_on(node: &AgentNode, pod: &Pod) -> (Vec<String>, String) {
    let mut conf = node.conf();
    conf["runtimeConfig"] = json!({ "bandwidth": { "egressRate": 80_000_000, "egressBurst": 8_000_000 } });
    let call = Call::ferrule("ADD").on(&node.namespace).conf(&conf);
    let result = call.attachment(pod.container(), pod.namespace().path()).run().result();
    (addresses_of(&result), host_link_of(&result))
}

#[test]
fn what_the_kernel_drops_of_a_pod_with_an_address_or_a_link() {
    let node = ready("dropped");
    let pod = Pod::new("pod");
    let (addresses, host) = pod_on(&node, &pod);
    let ifb = host.replace("veth", "ifb");
    let stands = || {
        let (has, words) = (|words: &str| node.namespace.ip(words), format!("dev {host}"));
        has(&format!("route show {words}")).contains("src 192.0.2.10")
            && has(&format!("-6 route show {words}")).contains("src fd00:aa::10")
            && addresses.iter().all(|it| has(&format!("neighbour show {words} nud permanent")).contains(it))
            && has("link show up").contains(&format!("{host}@"))
            && node.namespace.sh(&format!("tc filter show dev {host} ingress")).contains(&ifb)
    };
    assert!(stands());
    for ruin in [
        "ip address delete 192.0.2.10/24 dev eth0; ip address add 192.0.2.10/24 dev eth0".to_owned(),
        "ip address delete fd00:aa::10/64 dev eth0; ip address add fd00:aa::10/64 dev eth0 nodad".to_owned(),
        format!("ip link set {host} down"),
        format!("ip link set {host} down; ip link set {host} up"),
        format!("ip neighbour delete {} dev {host}", addresses[0]),
        format!("ip -6 route flush dev {host}; ip route flush dev {host}"),
        format!("ip link delete {ifb}"),
    ] {
        node.namespace.sh(&ruin);
        repaired(&node, &ruin, stands);
        assert!(addresses.iter().all(|address| answers_ping(&node.namespace, address)), "{ruin}");
    }
}

#[test]
fn the_rule_for_pods_that_somebody_removes() {
    let node = ready("rule");
    for family in ["-4", "-6"] {
        let stands = || node.namespace.ip(&format!("-d {family} rule show pref 8")).contains("proto 102");
        assert!(stands());
        node.namespace.ip(&format!("{family} rule delete pref 8"));
        repaired(&node, family, stands);
    }
}

#[test]
fn forwarding_that_is_switched_off() {
    let node = ready("forwarding");
    for path in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
        node.namespace.set_sysctl(path, "0");
        repaired(&node, path, || node.namespace.sysctl(path) == "1");
    }
}

/// With each pod go its routes, so the agent looks at all pods; the next pod may go under its eyes.
#[test]
fn pods_that_go_while_the_agent_looks_at_them_are_no_failure() {
    let node = ready("going");
    let (conf, pod) = (node.conf(), Pod::new("pod"));
    for number in 0..60 {
        let add = Call::ferrule("ADD").on(&node.namespace).conf(&conf);
        add.attachment(pod.container(), pod.namespace().path())
            .ifname(&format!("eth{number}"))
            .run()
            .result();
    }
    let links = node.namespace.ip("-o link show group default");
    let all = node.namespace.ip("-o link show");
    let of_pods = all.lines().filter(|line| !links.contains(line)).filter_map(|line| line.split(": ").nth(1));
    let deletions: Vec<String> =
        of_pods.filter_map(|name| Some(format!("link delete {}\n", name.split('@').next()?))).collect();
    assert_eq!(deletions.len(), 60);
    node.namespace.ip_batch(&deletions.concat());
    // Told after the pods have gone, so done after them.
    node.api.put(other(13));
    node.wait_for_routes_to(&[11, 12, 13]);
    assert!(!node.log().contains("step failed"), "{}", node.log());
    assert_eq!(node.metric("ferrule_errors_total{step=\"pods\"}"), None);
}
