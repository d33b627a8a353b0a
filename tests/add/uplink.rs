//! Nodes whose way out is not as usual: what a look-up refuses, the routing table still tells.

use serde_json::{Value, json};

use kit::ip;
use kit::node::{NODE_V4, NODE_V6, Node, OUTSIDE_V4, OUTSIDE_V6};
use kit::packets::answers_ping;
use kit::pod::{Pod, addresses_of, host_link_of};

/// Runs `ip` with each of the lines on the node.
fn run(node: &Node, lines: &str) {
    for line in lines.lines() {
        node.namespace().ip(line.trim());
    }
}

/// Attaches a pod; what all that look at it must say.
fn attach(node: &Node, pod: &Pod, conf: &Value) -> Value {
    node.status(conf).success();
    let result = node.add(pod, conf);
    node.check(pod, conf, &result).success();
    result
}

fn mtu(node: &Node, result: &Value) -> u64 {
    ip::link(node.namespace(), &host_link_of(result)).unwrap()["mtu"].as_u64().unwrap()
}

/// The node's addresses by which it speaks to the pod, by family.
fn sources(node: &Node, result: &Value) -> Vec<Value> {
    let addresses = addresses_of(result);
    let source = |address: &String| {
        let family = if address.contains(':') { "-6" } else { "-4" };
        ip::routes(node.namespace(), &format!("{family} {address}"))[0]["prefsrc"].clone()
    };
    addresses.iter().map(source).collect()
}

fn expect_usual(node: &Node, pod: &Pod, conf: &Value) {
    let result = attach(node, pod, conf);
    assert_eq!((mtu(node, &result), sources(node, &result)), (1400, vec![json!(NODE_V4), json!(NODE_V6)]));
    for address in addresses_of(&result) {
        assert!(answers_ping(node.namespace(), &address), "{address}");
    }
    for address in [OUTSIDE_V4, OUTSIDE_V6] {
        assert!(answers_ping(pod.namespace(), address), "{address}");
    }
}

/// Nodes without access to the internet have `blackhole default`, so that nothing waits for an answer.
#[test]
fn a_default_route_that_discards_hinders_no_pod() {
    for kind in ["blackhole", "unreachable", "prohibit", "throw"] {
        let (node, pod) = (Node::with_mtu(1400), Pod::new("pod"));
        run(
            &node,
            &format!(
                "-4 route delete default\n-4 route add {kind} default\n\
             -6 route delete default\n-6 route add {kind} default\n"
            ),
        );
        expect_usual(&node, &pod, &node.conf());
    }
}

/// The lists of networks that no packet should come from have the networks for documentation among them.
#[test]
fn a_discarded_network_beside_the_default_route_is_no_answer() {
    for kind in ["blackhole", "unreachable", "prohibit", "throw"] {
        let (node, pod) = (Node::with_mtu(1400), Pod::new("pod"));
        run(
            &node,
            &format!(
                "-4 route add {kind} 192.0.2.0/24\n-4 route add {kind} 198.51.100.0/24\n\
             -6 route add {kind} 2001:db8::/32\n"
            ),
        );
        expect_usual(&node, &pod, &node.conf());
    }
}

#[test]
fn a_route_to_a_network_for_documentation_is_no_default_route() {
    let (node, pod) = (Node::with_mtu(1400), Pod::new("pod"));
    run(
        &node,
        "link add lab mtu 1300 type veth peer name lab0\nlink set lab up\nlink set lab0 up\n\
         address add 192.0.2.77/24 dev lab\naddress add 2001:db8::77/32 dev lab nodad\n",
    );
    expect_usual(&node, &pod, &node.conf());
}

#[test]
fn of_a_default_route_with_several_next_hops_the_first_counts() {
    let (node, pod) = (Node::with_mtu(1400), Pod::new("pod"));
    run(
        &node,
        &format!(
            "-4 route replace default nexthop via {OUTSIDE_V4} nexthop via 198.18.0.3\n\
         -6 route replace default nexthop via {OUTSIDE_V6} nexthop via fd00:18::3\n\
         -4 route add blackhole 192.0.2.0/24\n-6 route add blackhole 2001:db8::/32\n"
        ),
    );
    expect_usual(&node, &pod, &node.conf());
}

/// A rule answers a look-up before any table does.
#[test]
fn a_rule_that_turns_packets_away_hinders_no_pod() {
    for kind in ["prohibit", "unreachable", "blackhole"] {
        let (node, pod) = (Node::with_mtu(1400), Pod::new("pod"));
        run(
            &node,
            &format!(
                "-4 rule add pref 100 to 192.0.2.0/24 {kind}\n-6 rule add pref 100 to 2001:db8::/32 {kind}\n"
            ),
        );
        expect_usual(&node, &pod, &node.conf());
    }
}

#[test]
fn a_rule_that_turns_all_packets_away_is_told_by_no_failure() {
    for kind in ["prohibit", "unreachable", "blackhole"] {
        let (node, pod) = (Node::with_mtu(1400), Pod::new("pod"));
        run(&node, &format!("-4 rule add pref 100 {kind}\n-6 rule add pref 100 {kind}\n"));
        let result = attach(&node, &pod, &node.conf());
        assert_eq!(mtu(&node, &result), 1400, "{kind}");
        assert_eq!(sources(&node, &result), [NODE_V4, NODE_V6], "{kind}");
    }
}

#[test]
fn a_node_without_a_default_route_has_its_links_all_the_same() {
    let (node, pod) = (Node::with_mtu(1400), Pod::new("pod"));
    run(&node, "-4 route delete default\n-6 route delete default\n");
    expect_usual(&node, &pod, &node.conf());
}

/// A private network: the way leads to a router, but not to the world.
#[test]
fn without_a_default_route_the_widest_one_counts() {
    let (node, pod) = (Node::with_mtu(1400), Pod::new("pod"));
    run(
        &node,
        &format!(
            "-4 route delete default\n-6 route delete default\n\
         link add other mtu 1300 type veth peer name other0\nlink set other up\nlink set other0 up\n\
         address add 198.19.0.2/24 dev other\naddress add fd00:19::2/64 dev other nodad\n\
         -4 route add 172.16.0.0/24 via 198.19.0.1\n-6 route add fd00:20::/64 via fd00:19::1\n\
         -4 route add 172.16.0.0/12 via {OUTSIDE_V4}\n-6 route add fd00::/8 via {OUTSIDE_V6}\n"
        ),
    );
    expect_usual(&node, &pod, &node.conf());
}

/// So it is where a router advertises itself and no prefix: the kernel would speak from ::1.
#[test]
fn a_node_without_an_ipv6_address_of_its_own_gets_its_pods() {
    let (node, pod, other) = (Node::with_mtu(1400), Pod::new("pod"), Pod::new("other"));
    run(&node, "-6 address flush dev uplink scope global\n-6 route replace default via fe80::1 dev uplink\n");
    let result = attach(&node, &pod, &node.conf());
    assert_eq!((mtu(&node, &result), sources(&node, &result)), (1400, vec![json!(NODE_V4), Value::Null]));
    for address in addresses_of(&attach(&node, &other, &node.conf())) {
        assert!(answers_ping(pod.namespace(), &address), "{address}");
    }
}

#[test]
fn a_node_without_an_ipv4_address_of_its_own_gets_its_pods() {
    let (node, pod, other) = (Node::with_mtu(1400), Pod::new("pod"), Pod::new("other"));
    run(&node, "-4 address flush dev uplink\n-4 route add default dev uplink\n");
    let result = attach(&node, &pod, &node.conf());
    assert_eq!((mtu(&node, &result), sources(&node, &result)), (1400, vec![Value::Null, json!(NODE_V6)]));
    for address in addresses_of(&attach(&node, &other, &node.conf())) {
        assert!(answers_ping(pod.namespace(), &address), "{address}");
    }
}

/// Hardened nodes switch IPv6 off for all links; a pod's own link has it all the same.
#[test]
fn a_node_with_ipv6_switched_off_for_its_links_gets_its_pods() {
    let (node, pod, other) = (Node::with_mtu(1400), Pod::new("pod"), Pod::new("other"));
    for which in ["all", "default"] {
        node.namespace().set_sysctl(&format!("net/ipv6/conf/{which}/disable_ipv6"), "1");
    }
    attach(&node, &pod, &node.conf());
    for address in addresses_of(&attach(&node, &other, &node.conf())) {
        assert!(answers_ping(pod.namespace(), &address), "{address}");
    }
}

/// The first other node tells the way; that nothing leads there says nothing of this node's own.
#[test]
fn a_peer_that_is_discarded_leaves_the_default_route_to_count() {
    for kind in ["blackhole", "unreachable", "prohibit", "throw"] {
        let (node, pod) = (Node::with_mtu(1400), Pod::new("pod"));
        run(&node, &format!("-4 route add {kind} 203.0.113.0/24\n-6 route add {kind} 2001:db8:7::/48\n"));
        let mut conf = node.conf();
        conf["peers"] = json!([
            { "node": "off", "podCIDRs": ["10.89.0.0/24"], "nodeIPs": ["203.0.113.7", "2001:db8:7::7"] },
            { "node": "b", "podCIDRs": ["10.90.0.0/24"], "nodeIPs": [OUTSIDE_V4] },
        ]);
        expect_usual(&node, &pod, &conf);
        conf["peers"].as_array_mut().unwrap().pop();
        assert!(node.status(&conf).complaint(51).contains("off"), "{kind}");
    }
}

#[test]
fn what_the_conf_names_is_not_looked_up() {
    let (node, pod) = (Node::with_mtu(1400), Pod::new("pod"));
    run(&node, "-4 rule add pref 0 blackhole\n-6 rule add pref 0 blackhole\n");
    let mut conf = node.conf();
    (conf["nodeIPs"], conf["mtu"]) = (json!([NODE_V4, NODE_V6]), json!(1350));
    let trace = node.scratch().path().join("trace");
    let trace = trace.to_str().unwrap();
    let strace = ["strace", "-f", "-y", "-o", trace, "-e", "trace=sendto,sendmsg"];
    let result = node.call_for("ADD", &pod, &conf).through(strace).run().result();
    assert_eq!((mtu(&node, &result), sources(&node, &result)), (1350, vec![json!(NODE_V4), json!(NODE_V6)]));
    let sent = std::fs::read_to_string(trace).unwrap();
    assert!(sent.contains("RTM_NEWROUTE"), "strace knows the messages: {sent}");
    // But for the pod's own address, which the node may have.
    let is_own = |line: &&str| addresses_of(&result).iter().any(|it| line.contains(&format!("\"{it}\"")));
    let mut look_ups = sent.lines().filter(|line| line.contains("RTM_GETROUTE") && !is_own(line));
    assert_eq!(look_ups.find(|line| !line.contains("NLM_F_DUMP")), None);
}
