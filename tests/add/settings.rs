//! What a conf may ask for beyond the usual: MTU, hardware address, routes; and nodes that are not as usual.

use serde_json::{Value, json};

use kit::binaries::REFERENCE_PLUGINS;
use kit::call::Call;
use kit::ip;
use kit::node::{NODE_V6, Node, OUTSIDE_V4, OUTSIDE_V6};
use kit::packets::answers_ping;
use kit::pod::{Pod, addresses_of, host_link_of};

fn mtus(node: &Node, pod: &Pod, result: &Value) -> [u64; 4] {
    let of = |link: Option<Value>| link.unwrap()["mtu"].as_u64().unwrap();
    [
        of(ip::link(node.namespace(), &host_link_of(result))),
        of(ip::link(pod.namespace(), "eth0")),
        result["interfaces"][0]["mtu"].as_u64().unwrap(),
        result["interfaces"][1]["mtu"].as_u64().unwrap(),
    ]
}

/// TLS hangs while small pings work: the pod's MTU was larger than the node's (aws-vpc-cni#356).
#[test]
fn the_mtu_is_that_of_the_uplink() {
    for mtu in [1280, 1400, 9000] {
        let (node, pod) = (Node::with_mtu(mtu), Pod::new("pod"));
        let result = node.add(&pod, &node.conf());
        assert_eq!(mtus(&node, &pod, &result), [u64::from(mtu); 4]);
    }
}

#[test]
fn an_mtu_in_the_conf_wins() {
    let (node, pod) = (Node::new(), Pod::new("pod"));
    let mut conf = node.conf();
    conf["mtu"] = json!(1380);
    let result = node.add(&pod, &conf);
    assert_eq!(mtus(&node, &pod, &result), [1380; 4]);
}

/// On a node with two ways out, the one that carries the node's address counts (kind#1468, calicoctl#1425).
#[test]
fn the_mtu_is_that_of_the_link_with_the_nodes_address() {
    let (node, pod) = (Node::with_mtu(9000), Pod::new("pod"));
    node.namespace().ip_batch(
        "link add second mtu 1420 type veth peer name second0\n\
         address add 198.19.0.2/24 dev second\n\
         address add fd00:19::2/64 dev second nodad\n\
         link set second0 up\n\
         link set second up\n",
    );
    let mut conf = node.conf();
    conf["nodeIPs"] = json!(["198.19.0.2", "fd00:19::2"]);
    let result = node.add(&pod, &conf);
    let route = ip::routes(node.namespace(), "-4 proto 102 10.88.0.2");
    assert_eq!(route[0]["prefsrc"], "198.19.0.2");
    assert_eq!(mtus(&node, &pod, &result), [1420; 4]);
}

/// Nodes that announce their address by BGP keep it on `lo`, which has an MTU of 65536.
#[test]
fn an_address_on_lo_says_nothing_of_the_mtu() {
    let (node, pod) = (Node::with_mtu(1400), Pod::new("pod"));
    node.namespace().ip_batch("address add 198.19.0.2/32 dev lo\naddress add fd00:19::2/128 dev lo\n");
    let mut conf = node.conf();
    conf["nodeIPs"] = json!(["198.19.0.2", "fd00:19::2"]);
    let result = node.add(&pod, &conf);
    assert_eq!(mtus(&node, &pod, &result), [1400; 4]);
}

#[test]
fn a_node_without_any_route_still_gets_its_pods() {
    let (node, pod) = (Node::new(), Pod::new("pod"));
    node.namespace().ip("link delete uplink");
    let result = node.add(&pod, &node.conf());
    assert_eq!(mtus(&node, &pod, &result), [1500; 4]);
    // No address of the node's own: then pods are reached from nowhere, but from each other they are.
    let other = Pod::new("other");
    for address in addresses_of(&node.add(&other, &node.conf())) {
        assert!(answers_ping(pod.namespace(), &address), "{address}");
    }
}

/// multus and CRI-O pass the hardware address that a pod asks for (capability "mac").
#[test]
fn a_hardware_address_that_is_asked_for_is_given() {
    let (node, pod) = (Node::new(), Pod::new("pod"));
    let mut conf = node.conf();
    conf["runtimeConfig"] = json!({ "mac": "02:11:22:33:44:55" });
    let result = node.add(&pod, &conf);
    assert_eq!(result["interfaces"][1]["mac"], "02:11:22:33:44:55");
    assert_eq!(ip::link(pod.namespace(), "eth0").unwrap()["address"], "02:11:22:33:44:55");
    for address in addresses_of(&result) {
        assert!(answers_ping(node.namespace(), &address), "{address}");
    }
}

#[test]
fn routes_of_the_conf_have_all_that_was_written_there() {
    let (node, pod) = (Node::new(), Pod::new("pod"));
    let mut conf = node.conf();
    conf["ipam"]["routes"] = json!([
        { "dst": "0.0.0.0/0", "priority": 300 },
        { "dst": "203.0.113.0/24", "gw": "10.88.0.200", "mtu": 1400, "advmss": 1360 },
        { "dst": "198.51.100.0/24", "table": 77 },
        { "dst": "2001:db8:5::/48", "gw": "fe80::77", "mtu": 1300 },
    ]);
    let result = node.add(&pod, &conf);
    assert_eq!(result["routes"], conf["ipam"]["routes"]);
    let routes = |filter: &str| {
        let found = ip::routes(pod.namespace(), filter);
        assert_eq!(found.len(), 1, "{filter}: {found:?}");
        found[0].clone()
    };
    assert_eq!(routes("-4 default")["metric"], 300);
    let through_another = routes("-4 203.0.113.0/24");
    assert_eq!(through_another["gateway"], "10.88.0.200");
    let metrics = &through_another["metrics"][0];
    assert_eq!((&metrics["mtu"], &metrics["advmss"]), (&json!(1400), &json!(1360)));
    assert_eq!(routes("-4 table 77")["dst"], "198.51.100.0/24");
    let sixth = routes("-6 2001:db8:5::/48");
    assert_eq!((&sixth["gateway"], &sixth["metrics"][0]["mtu"]), (&json!("fe80::77"), &json!(1300)));
}

/// The next hop of a route of the conf is nobody in particular: the node takes the packet, and knows the way.
#[test]
fn a_route_through_another_next_hop_works() {
    let (node, pod) = (Node::new(), Pod::new("pod"));
    let mut conf = node.conf();
    conf["ipam"]["routes"] = json!([{ "dst": "198.18.0.0/24", "gw": "10.88.0.200" }]);
    node.add(&pod, &conf);
    assert!(answers_ping(pod.namespace(), OUTSIDE_V4));
}

#[test]
fn without_routes_a_pod_reaches_its_own_subnet_alone() {
    let (node, one, other) = (Node::new(), Pod::new("one"), Pod::new("other"));
    let mut conf = node.conf();
    conf["ipam"].as_object_mut().unwrap().remove("routes");
    node.add(&one, &conf);
    for address in addresses_of(&node.add(&other, &conf)) {
        assert!(answers_ping(one.namespace(), &address), "{address}");
    }
    assert!(!answers_ping(one.namespace(), OUTSIDE_V4));
    assert!(!answers_ping(one.namespace(), OUTSIDE_V6));
}

/// Docker and some runtimes hand over a namespace with IPv6 switched off.
#[test]
fn ipv6_works_in_a_namespace_where_it_was_switched_off() {
    let (node, pod) = (Node::new(), Pod::new("pod"));
    for which in ["all", "default", "lo"] {
        pod.namespace().set_sysctl(&format!("net/ipv6/conf/{which}/disable_ipv6"), "1");
    }
    let addresses = addresses_of(&node.add(&pod, &node.conf()));
    assert_eq!(pod.addresses(), ["10.88.0.2/32", "fd00:88::2/128"]);
    assert!(answers_ping(node.namespace(), &addresses[1]));
    assert!(answers_ping(pod.namespace(), OUTSIDE_V6));
    assert!(answers_ping(pod.namespace(), "::1"));
}

/// `ipv6.disable=1` on the kernel's command line: /proc/sys/net/ipv6 is not there.
#[test]
fn a_node_whose_kernel_has_no_ipv6_serves_ipv4_alone() {
    let (node, pod) = (Node::new(), Pod::new("pod"));
    let hide = "mount -t tmpfs none /proc/sys/net/ipv6 && exec \"$0\" \"$@\"";
    let without_ipv6 = ["unshare", "--mount", "sh", "-c", hide];
    let add = node.call_for("ADD", &pod, &node.conf()).through(without_ipv6).run();
    let result = add.result();
    assert_eq!(addresses_of(&result), ["10.88.0.2"]);
    assert_eq!(pod.addresses(), ["10.88.0.2/32"]);
    assert!(answers_ping(node.namespace(), "10.88.0.2"));
    let mut conf = node.conf();
    conf["prevResult"] = result;
    node.call_for("CHECK", &pod, &conf).through(without_ipv6).run().success();
    node.call("STATUS", &node.conf()).through(without_ipv6).run().success();
    node.call_for("DEL", &pod, &conf).through(without_ipv6).run().success();
    node.expect_nothing_left();
}

/// A host that forwards stops listening to router advertisements, and loses the default route it had from one, unless
/// the link says accept_ra 2 (cilium#21819, k3s#5019).
#[test]
fn an_uplink_that_lives_on_router_advertisements_goes_on_living() {
    let (node, pod) = (Node::new(), Pod::new("pod"));
    node.namespace().ip_batch(&format!(
        "route delete default via {OUTSIDE_V6}\n\
         route add default via {OUTSIDE_V6} dev uplink proto ra expires 1800\n"
    ));
    assert_eq!(node.namespace().sysctl("net/ipv6/conf/uplink/accept_ra"), "1");
    let addresses = addresses_of(&node.add(&pod, &node.conf()));
    assert_eq!(node.namespace().sysctl("net/ipv6/conf/all/forwarding"), "1");
    assert_eq!(node.namespace().sysctl("net/ipv6/conf/uplink/accept_ra"), "2");
    let default = ip::routes(node.namespace(), "-6 default");
    assert_eq!((&default[0]["protocol"], &default[0]["gateway"]), (&json!("ra"), &json!(OUTSIDE_V6)));
    assert!(answers_ping(pod.namespace(), OUTSIDE_V6));
    let route = ip::routes(node.namespace(), &format!("-6 proto 102 {}", addresses[1]));
    assert_eq!(route[0]["prefsrc"], NODE_V6);
}

/// An uplink without such a route is none of ours to configure.
#[test]
fn an_uplink_without_router_advertisements_is_left_as_it_is() {
    let (node, pod) = (Node::new(), Pod::new("pod"));
    node.namespace().set_sysctl("net/ipv6/conf/uplink/accept_ra", "0");
    node.add(&pod, &node.conf());
    assert_eq!(node.namespace().sysctl("net/ipv6/conf/uplink/accept_ra"), "0");
}

/// ip_forward was set back to 0 by hardening scripts (moby#47966): the next pod repairs it.
#[test]
fn the_next_add_switches_forwarding_on_again() {
    let node = Node::new();
    node.add(&Pod::new("first"), &node.conf());
    node.namespace().set_sysctl("net/ipv4/ip_forward", "0");
    node.namespace().set_sysctl("net/ipv6/conf/all/forwarding", "0");
    node.add(&Pod::new("second"), &node.conf());
    assert_eq!(node.namespace().sysctl("net/ipv4/ip_forward"), "1");
    assert_eq!(node.namespace().sysctl("net/ipv6/conf/all/forwarding"), "1");
}

/// The reference plugin on the same node: that the tests above ask for what a plugin can give.
#[test]
fn the_reference_plugin_passes_the_same_traffic() {
    let (node, pod) = (Node::new(), Pod::new("pod"));
    let mut conf = node.conf();
    (conf["type"], conf["ipam"]["type"]) = (json!("ptp"), json!("host-local"));
    conf["cniVersion"] = json!("1.0.0");
    let call = |command| {
        let call = Call::reference("ptp", command).on(node.namespace()).env("CNI_PATH", REFERENCE_PLUGINS);
        call.attachment(pod.container(), pod.namespace().path()).conf(&conf).run()
    };
    let addresses = addresses_of(&call("ADD").result());
    assert_eq!(addresses, ["10.88.0.2", "fd00:88::2"]);
    assert!(answers_ping(node.namespace(), &addresses[0]));
    call("DEL").success();
    assert!(node.data_dir().is_dir());
}
