//! Places that no pod may reach: the node's loopback, and link-local addresses of the node and of other pods.

use std::net::IpAddr;

use kit::frames::{self, Mac, UDP, mac, packet, udp};
use kit::ip;
use kit::netns::Namespace;
use kit::node::{NODE_V4, NODE_V6, Node};
use kit::pod::{Pod, addresses_of, host_link_of};
use kit::traffic::{BRIEF, PATIENT, receives_udp};

const PORT: u16 = 9000;

struct Sender {
    to: Mac,
    from: Mac,
    pod: Pod,
}

impl Sender {
    fn send(&self, source: &str, target: &str) {
        let (source, target): (IpAddr, IpAddr) = (source.parse().unwrap(), target.parse().unwrap());
        let datagram = udp(source, target, PORT, b"?");
        frames::send(self.pod.namespace(), &[packet(self.to, self.from, source, target, UDP, &datagram)]);
    }
}

fn link_local(namespace: &Namespace, link: &str) -> String {
    let addresses = ip::addresses(namespace, link);
    let local = addresses.iter().find(|it| it["scope"] == "link" && it["family"] == "inet6");
    local.unwrap_or_else(|| panic!("{link} has no link-local address"))["local"].as_str().unwrap().to_owned()
}

#[test]
fn a_pod_reaches_no_loopback_and_no_link_local_address() {
    let (node, pod, victim) = (Node::new(), Pod::new("pod"), Pod::new("victim"));
    let result = node.add(&pod, &node.conf());
    let own = addresses_of(&result);
    let victims_link = host_link_of(&node.add(&victim, &node.conf()));
    let link = host_link_of(&result);
    let of = |namespace, name| mac(ip::link(namespace, name).unwrap()["address"].as_str().unwrap());
    let (to, from) = (of(node.namespace(), &link), of(pod.namespace(), "eth0"));
    let sender = Sender { to, from, pod };
    // Host ends have none of their own, so there is none to reach.
    for name in [&link, &victims_link] {
        assert_eq!(ip::addresses(node.namespace(), name), [""; 0], "{name}");
    }
    // What somebody may have set for a Service on the loopback.
    node.namespace().set_sysctl("net/ipv4/conf/all/route_localnet", "1");
    victim.namespace().ip("address add fe80::77/64 dev eth0 nodad");
    let uplink = link_local(node.namespace(), "uplink");
    let at = |namespace: &Namespace, address: &str, link: &str| {
        format!("{address}%{}", ip::index(namespace, link))
    };
    let (in_node, in_victim) = (node.namespace(), victim.namespace());
    let (four, six) = (own[0].as_str(), own[1].as_str());
    let cases = [
        (in_node, "127.0.0.1".to_owned(), four, "127.0.0.1"),
        (in_node, "127.0.0.1".to_owned(), "127.0.0.1", "127.0.0.1"),
        (in_node, NODE_V4.to_owned(), "127.0.0.1", NODE_V4),
        (in_node, "::1".to_owned(), six, "::1"),
        (in_node, "::1".to_owned(), "::1", "::1"),
        (in_node, NODE_V6.to_owned(), "::1", NODE_V6),
        (in_node, at(in_node, &uplink, "uplink"), six, uplink.as_str()),
        (in_node, at(in_node, &uplink, "uplink"), "fe80::66", uplink.as_str()),
        (in_victim, at(in_victim, "fe80::77", "eth0"), six, "fe80::77"),
        (in_victim, at(in_victim, "fe80::77", "eth0"), "fe80::66", "fe80::77"),
    ];
    for (receiver, listens, source, target) in &cases {
        let send = || sender.send(source, target);
        assert!(!receives_udp(BRIEF, receiver, listens, PORT, send), "{source} to {target} at {listens}");
    }
    // The proof that what is sent like this does arrive where it may.
    for (source, target) in [(four, NODE_V4), (six, NODE_V6)] {
        assert!(receives_udp(PATIENT, in_node, target, PORT, || sender.send(source, target)), "{target}");
    }
}
