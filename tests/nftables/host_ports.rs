//! hostPorts as runtimes ask for them.

use serde_json::{Value, json};

use kit::ip;
use kit::nft;
use kit::node::{NODE_V4, NODE_V6, Node, OUTSIDE_V4, OUTSIDE_V6};
use kit::pod::{Pod, addresses_of, host_link_of};
use kit::traffic::{Server, UdpClient, refuses_tcp, reply, tcp, tcp_from, udp};

const TARGET: u16 = 8080;

/// A further address of the node, where a test gives it one.
const SECOND_V4: &str = "198.18.0.102";

/// The node's conf with hostPorts, spelled as containerd does.
fn conf_with_ports(node: &Node, ports: &[(&str, u16, &str)]) -> Value {
    let mut conf = node.conf();
    let mapping = |&(ip, port, protocol): &(&str, u16, &str)| json!({ "HostPort": port, "ContainerPort": TARGET, "Protocol": protocol, "HostIP": ip });
    conf["runtimeConfig"] = json!({ "portMappings": ports.iter().map(mapping).collect::<Vec<_>>() });
    conf
}

/// plugins#763 (localhost), the hairpin of every bridge plugin, k8s#110640
#[test]
fn a_host_port_is_reached_from_everywhere() {
    let (node, pod, other) = (Node::new(), Pod::new("pod"), Pod::new("other"));
    node.namespace().ip(&format!("address add {SECOND_V4}/24 dev uplink"));
    let conf = conf_with_ports(&node, &[("", 30_080, "tcp")]);
    let result = node.add(&pod, &conf);
    let others = addresses_of(&node.add(&other, &node.conf()));
    let _server = Server::tcp(pod.namespace(), TARGET, "pod");
    let ask = |from, to: &str| tcp(from, to, 30_080);
    for (to, client) in [(NODE_V4, OUTSIDE_V4), (SECOND_V4, OUTSIDE_V4), (NODE_V6, OUTSIDE_V6)] {
        assert_eq!(ask(node.outside(), to), reply(client, "pod"));
    }
    // What 127/8 sends cannot be answered: the pod sees the node. The node speaks to its second address from its first.
    let by_itself = [(NODE_V4, NODE_V4), (SECOND_V4, NODE_V4), (NODE_V6, NODE_V6)];
    for (to, seen) in by_itself.into_iter().chain(["127.0.0.1", "127.1.2.3"].map(|to| (to, NODE_V4))) {
        assert_eq!(ask(node.namespace(), to), reply(seen, "pod"), "the node, by {to}");
    }
    for (to, client) in [NODE_V4, NODE_V6].iter().zip(&others) {
        assert_eq!(ask(other.namespace(), to), reply(client, "pod"), "another pod");
        assert_eq!(ask(pod.namespace(), to), reply(to, "pod"), "the pod itself");
    }
    // Another port, and the same port of another protocol, lead nowhere; what is for another host goes there.
    assert_eq!(tcp(node.outside(), NODE_V4, 30_081), None);
    assert!(UdpClient::new(node.outside(), "0.0.0.0").asks_in_vain(NODE_V4, 30_080));
    let _outside = Server::tcp(node.outside(), 30_080, "outside");
    assert_eq!(ask(pod.namespace(), OUTSIDE_V4), reply(&addresses_of(&result)[0], "outside"));
    node.check(&pod, &conf, &result).success();
    // 127/8 may leave by this link alone, and nobody may send to the node's own (CVE-2020-8558).
    let localnet = |link: &str| node.namespace().sysctl(&format!("net/ipv4/conf/{link}/route_localnet"));
    assert_eq!(localnet(&host_link_of(&result)), "1");
    for link in ["all", "default", "uplink"] {
        assert_eq!(localnet(link), "0", "{link}");
    }
    node.del(&pod, &conf);
    node.del(&other, &node.conf());
    node.expect_nothing_left();
    assert_eq!(ask(node.outside(), NODE_V4), None);
}

/// The case of Kubernetes' conformance: "no conflict between pods with same hostPort but different hostIP and
/// protocol". It asks the loopback's address from the node's, which is the only way with IPv6.
#[test]
fn pods_share_a_port_on_different_addresses_and_protocols() {
    let families = [("127.0.0.1", NODE_V4, OUTSIDE_V4, "0.0.0.0", 0), ("::1", NODE_V6, OUTSIDE_V6, "::", 1)];
    for (loopback, own, outside, any, family) in families {
        let node = Node::new();
        let pods = ["a", "b", "c"].map(Pod::new);
        let asked_for = [(loopback, "tcp"), (own, "TCP"), (own, "UDP")];
        let attached: Vec<_> = pods
            .iter()
            .zip(asked_for)
            .map(|(pod, (ip, protocol))| {
                let conf = conf_with_ports(&node, &[(ip, 54_323, protocol)]);
                (node.add(pod, &conf), conf)
            })
            .collect();
        let [a, b, c] = &pods;
        let _servers = [
            Server::tcp(a.namespace(), TARGET, "a"),
            Server::tcp(b.namespace(), TARGET, "b"),
            Server::udp(c.namespace(), &addresses_of(&attached[2].0)[family], TARGET, "c"),
        ];
        assert_eq!(tcp_from(node.namespace(), own, loopback, 54_323), reply(own, "a"), "{loopback}");
        assert_eq!(tcp(node.namespace(), own, 54_323), reply(own, "b"));
        assert_eq!(tcp(node.outside(), own, 54_323), reply(outside, "b"));
        let client = UdpClient::new(node.outside(), any);
        assert_eq!(client.ask(own, 54_323), reply(outside, "c"));
        for (pod, (result, conf)) in pods.iter().zip(&attached) {
            node.check(pod, conf, result).success();
            node.del(pod, conf);
        }
        node.expect_nothing_left();
        assert_eq!(tcp_from(node.namespace(), own, loopback, 54_323), None);
    }
}

/// A pod drops what comes from ::1. Redirected, a client would wait for an answer until it gives up; and it would not
/// reach what listens on the node's loopback.
#[test]
fn what_comes_from_the_loopback_of_ipv6_is_left_to_it() {
    for host_ip in ["", "::", "::1"] {
        let (node, pod) = (Node::new(), Pod::new("pod"));
        let conf = conf_with_ports(&node, &[(host_ip, 30_080, "tcp"), (host_ip, 30_080, "udp")]);
        let pods_own = addresses_of(&node.add(&pod, &conf)).remove(1);
        let _servers = [
            Server::tcp(pod.namespace(), TARGET, "pod"),
            Server::udp(pod.namespace(), &pods_own, TARGET, "pod"),
        ];
        assert!(refuses_tcp(node.namespace(), "::1", 30_080), "hostIP {host_ip:?}");
        assert_eq!(tcp_from(node.namespace(), NODE_V6, "::1", 30_080), reply(NODE_V6, "pod"));
        let _own = [
            Server::tcp(node.namespace(), 30_080, "the node"),
            Server::udp(node.namespace(), "::1", 30_080, "the node"),
        ];
        assert_eq!(tcp(node.namespace(), "::1", 30_080), reply("::1", "the node"));
        assert_eq!(udp(node.namespace(), "::1", "::1", 30_080), reply("::1", "the node"));
        assert_eq!(tcp_from(node.namespace(), NODE_V6, "::1", 30_080), reply(NODE_V6, "pod"));
        assert_eq!(udp(node.namespace(), NODE_V6, "::1", 30_080), reply(NODE_V6, "pod"));
    }
}

#[test]
fn one_address_comes_before_all_addresses() {
    let (node, all, one) = (Node::new(), Pod::new("all"), Pod::new("one"));
    node.namespace().ip(&format!("address add {SECOND_V4}/24 dev uplink"));
    node.add(&all, &conf_with_ports(&node, &[("0.0.0.0", 80, "tcp")]));
    node.add(&one, &conf_with_ports(&node, &[(SECOND_V4, 80, "tcp")]));
    let _servers = [Server::tcp(all.namespace(), TARGET, "all"), Server::tcp(one.namespace(), TARGET, "one")];
    assert_eq!(tcp(node.outside(), NODE_V4, 80), reply(OUTSIDE_V4, "all"));
    assert_eq!(tcp(node.outside(), SECOND_V4, 80), reply(OUTSIDE_V4, "one"));
    // 0.0.0.0 means IPv4.
    assert_eq!(tcp(node.outside(), NODE_V6, 80), None);
}

/// CVE-2019-9946: a hostPort must not draw a Service's traffic.
#[test]
fn a_service_on_the_nodes_address_comes_before_a_host_port() {
    let (node, pod, backend) = (Node::new(), Pod::new("pod"), Pod::new("backend"));
    node.namespace().ip(&format!("address add {SECOND_V4}/24 dev uplink"));
    node.add(&pod, &conf_with_ports(&node, &[("", 80, "tcp")]));
    let backends = addresses_of(&node.add(&backend, &node.conf()));
    nft::load(
        node.namespace(),
        &format!(
            "table ip kube-proxy {{
                chain services {{
                    type nat hook prerouting priority dstnat;
                    ip daddr {NODE_V4} tcp dport 80 dnat to {}:{TARGET}
                }}
            }}",
            backends[0]
        ),
    );
    let _servers =
        [Server::tcp(pod.namespace(), TARGET, "pod"), Server::tcp(backend.namespace(), TARGET, "service")];
    assert_eq!(tcp(node.outside(), NODE_V4, 80), reply(OUTSIDE_V4, "service"));
    assert_eq!(tcp(node.outside(), SECOND_V4, 80), reply(OUTSIDE_V4, "pod"));
}

#[test]
fn a_port_that_is_taken_is_refused_with_its_holder() {
    let (node, holder, late) = (Node::new(), Pod::new("holder"), Pod::new("late"));
    let conf = conf_with_ports(&node, &[("", 30_080, "tcp"), (NODE_V4, 53, "udp"), ("", 443, "sctp")]);
    let named = node.call_for("ADD", &holder, &conf);
    named.args("IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0").run().success();
    let _server = Server::tcp(holder.namespace(), TARGET, "holder");
    let refused = node.try_add(&late, &conf);
    let complaint = refused.complaint(101);
    let ports = ["hostPort tcp 30080", "hostPort 198.18.0.2 udp 53", "hostPort sctp 443"];
    for part in ports.into_iter().chain(["default/web-0", "another node"]) {
        assert!(complaint.contains(part), "{complaint}");
    }
    let table = nft::run(node.namespace(), "list table inet ferrule").unwrap();
    assert!(!table.contains(late.container()), "not even what was free: {table}");
    assert_eq!(node.known_attachments().len(), 1);
    assert_eq!(node.host_links().len(), 1);
    // DEL of the one that was refused, as runtimes send it, takes nothing from the holder.
    node.del(&late, &conf);
    assert_eq!(tcp(node.outside(), NODE_V4, 30_080), reply(OUTSIDE_V4, "holder"));
    node.del(&holder, &conf);
    node.add(&late, &conf);
    node.del(&late, &conf);
    node.expect_nothing_left();
}

/// k8s#93091: the runtime crashed, and the pod comes back with the same port before anybody has told of its end.
#[test]
fn the_port_of_a_pod_that_died_untold_goes_to_the_next_one() {
    let (node, dead, next) = (Node::new(), Pod::new("dead"), Pod::new("next"));
    let conf = conf_with_ports(&node, &[("", 30_080, "tcp"), (NODE_V4, 53, "udp")]);
    node.add(&dead, &conf);
    dead.die();
    node.wait_for_host_links(0);
    node.add(&next, &conf);
    let _server = Server::tcp(next.namespace(), TARGET, "next");
    assert_eq!(tcp(node.outside(), NODE_V4, 30_080), reply(OUTSIDE_V4, "next"));
    assert_eq!(node.known_attachments().len(), 1, "the dead one's record went with its port");
    node.del(&dead, &conf);
    assert_eq!(tcp(node.outside(), NODE_V4, 30_080), reply(OUTSIDE_V4, "next"), "a late DEL");
    node.del(&next, &conf);
    node.expect_nothing_left();
}

/// plugins#123, k8s#66651: a client that keeps its port has a flow that outlives the pod.
#[test]
fn a_udp_client_that_never_stops_reaches_each_pod_in_turn() {
    let (node, first, second) = (Node::new(), Pod::new("first"), Pod::new("second"));
    let conf = conf_with_ports(&node, &[("", 53, "udp")]);
    let client = UdpClient::new(node.outside(), "0.0.0.0");
    assert!(client.asks_in_vain(NODE_V4, 53), "before there is a pod");
    for (pod, name) in [(&first, "first"), (&second, "second")] {
        let addresses = addresses_of(&node.add(pod, &conf));
        let _server = Server::udp(pod.namespace(), &addresses[0], TARGET, name);
        assert_eq!(client.ask(NODE_V4, 53), reply(OUTSIDE_V4, name));
        node.del(pod, &conf);
        assert!(client.asks_in_vain(NODE_V4, 53), "{name} is gone");
    }
}

#[test]
fn what_is_no_port_is_refused_with_its_place() {
    let (node, pod) = (Node::new(), Pod::new("pod"));
    let complaint = node.try_add(&pod, &conf_with_ports(&node, &[("::1%lo", 80, "icmp")])).complaint(7);
    for part in
        ["runtimeConfig.portMappings[0].HostIP: is \"::1%lo\"", "runtimeConfig.portMappings[0].Protocol: "]
    {
        assert!(complaint.contains(part), "{complaint}");
    }
    node.expect_nothing_left();
    assert!(nft::run(node.namespace(), "list table inet ferrule").is_err(), "no table for nobody");
    assert!(ip::routes(node.namespace(), "-4 proto 102").is_empty());
}
