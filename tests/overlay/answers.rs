//! A pod whose packets get its node's address after they were routed: the answers of a hostPort, and what others
//! rewrite. None of them may come to the VXLAN port of a node, which would take it for its node's.

use std::net::UdpSocket;

use ferrule::desired::nftables::element::{HostPort, Protocol};
use ferrule::desired::overlay::{DEFAULT_PORT, Routing};

use super::forgery::{admit, arrives, forgery, guard};
use super::world::{DEVICE, Node, World};
use kit::netns::inside;
use kit::nft;
use kit::process::run_in;
use kit::traffic::{BRIEF, PATIENT, Server, reply, tcp};

const HOST_PORT: u16 = 30_080;
const POD_PORT: u16 = 8080;

/// Whoever is root on a node sends from the port of the tunnel to a hostPort, as the tunnel's socket would: a question
/// whose answer goes to the tunnel. `source` is an address of the node.
fn ask_from_the_tunnels_port(node: &Node, source: &str, target: &str) {
    let script = "import socket, struct, sys\n\
                  s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP)\n\
                  s.bind((sys.argv[1], 0))\n\
                  s.sendto(struct.pack('!HHHH', int(sys.argv[3]), int(sys.argv[4]), 9, 0) + b'?', (sys.argv[2], 0))\n";
    let (from, to) = (DEFAULT_PORT.to_string(), HOST_PORT.to_string());
    run_in(&node.namespace, "python3", ["-c", script, source, target, &from, &to], "")
        .unwrap_or_else(|failed| panic!("{failed}"));
}

/// A world with a tunnel, in which pods' packets to nodes take it and the answers need not. Many a node has no rp_filter.
fn world() -> World {
    let world = World::new();
    world.settle(Routing::Vxlan);
    for node in &world.nodes {
        for link in ["all", "up0", DEVICE] {
            node.namespace.set_sysctl(&format!("net/ipv4/conf/{link}/rp_filter"), "0");
        }
    }
    world
}

fn host_port() -> HostPort {
    HostPort { host_ip: None, host_port: HOST_PORT, container_port: POD_PORT, protocol: Protocol::Udp }
}

#[test]
fn the_answer_of_a_host_port_does_not_speak_as_the_node() {
    let world = world();
    let (here, there) = (world.node(1), world.node(2));
    admit(here, &[host_port()]);
    admit(there, &[]);
    guard(&world, there);
    // An address that the node has besides; it hears there as well.
    world.router.ip("route add 203.0.113.2/32 via 192.168.2.12");
    there.namespace.ip("address add 203.0.113.2/32 dev lo");
    let packet = forgery(there, &world.node(3).pod_addresses()[0]);
    let pod = inside(&here.pod, || UdpSocket::bind(("0.0.0.0", POD_PORT)).unwrap());
    pod.set_read_timeout(Some(PATIENT)).unwrap();
    let answer_to = |source: &str| {
        ask_from_the_tunnels_port(there, source, &here.addresses[0]);
        let (_, client) = pod.recv_from(&mut [0; 64]).unwrap();
        assert_eq!(client.to_string(), format!("{source}:{DEFAULT_PORT}"));
        pod.send_to(&packet, client).unwrap();
    };
    let ends = [there.addresses[0].as_str(), "203.0.113.2"];
    for end in ends {
        assert!(arrives(PATIENT, there, || answer_to(end)), "the test cannot fail: {end} hears the answer");
    }
    guard(&world, here);
    for end in ends {
        assert!(!arrives(BRIEF, there, || answer_to(end)), "{end} hears the answer");
    }
}

/// Of IPv6 as well; and all other answers of the hostPort go on.
#[test]
fn answers_of_a_host_port_reach_every_other_port() {
    let world = world();
    let (here, there) = (world.node(1), world.node(2));
    admit(here, &[host_port()]);
    guard(&world, here);
    let pod = inside(&here.pod, || UdpSocket::bind(("::", POD_PORT)).unwrap());
    pod.set_read_timeout(Some(PATIENT)).unwrap();
    let is_answered = |source: &str, port: u16, target: &str| {
        let client = inside(&there.namespace, || UdpSocket::bind((source, port)).unwrap());
        client.set_read_timeout(Some(if port == DEFAULT_PORT { BRIEF } else { PATIENT })).unwrap();
        client.send_to(b"?", (target, HOST_PORT)).unwrap();
        let (_, from) = pod.recv_from(&mut [0; 64]).unwrap();
        pod.send_to(b"!", from).unwrap();
        client.recv(&mut [0; 64]).is_ok()
    };
    assert!(is_answered(&there.addresses[0], DEFAULT_PORT + 1, &here.addresses[0]));
    assert!(is_answered(&there.addresses[1], DEFAULT_PORT + 1, &here.addresses[1]));
    assert!(!is_answered(&there.addresses[1], DEFAULT_PORT, &here.addresses[1]));
}

/// An administrator's rule that gives what pods send to some network the node's address.
#[test]
fn a_source_that_others_rewrite_does_not_speak_as_the_node() {
    let world = world();
    let (here, there) = (world.node(1), world.node(2));
    admit(here, &[]);
    admit(there, &[]);
    guard(&world, there);
    let rewrite = format!(
        "table ip theirs {{
            chain out {{
                type nat hook postrouting priority srcnat - 10;
                ip daddr {{ {}, 203.0.113.2 }} udp dport {DEFAULT_PORT} snat to {}
            }}
        }}",
        there.addresses[0], here.addresses[0]
    );
    nft::load(&here.namespace, &rewrite);
    world.router.ip("route add 203.0.113.2/32 via 192.168.2.12");
    there.namespace.ip("address add 203.0.113.2/32 dev lo");
    let packet = forgery(there, &world.node(3).pod_addresses()[0]);
    let send = |end: &str| {
        inside(&here.pod, || {
            UdpSocket::bind("0.0.0.0:0").unwrap().send_to(&packet, (end, DEFAULT_PORT)).unwrap()
        });
    };
    // The first is a node's address that is exempt from masquerade. Whoever exempts the second has it exempt.
    let end = there.addresses[0].as_str();
    assert!(arrives(PATIENT, there, || send(end)), "the test cannot fail: {end} hears it");
    guard(&world, here);
    for end in [there.addresses[0].as_str(), "203.0.113.2"] {
        assert!(!arrives(BRIEF, there, || send(end)), "{end} hears it");
    }
}

/// The question comes by the uplink and the answer goes by VXLAN, since it comes from a pod. So a strict check of sources on
/// the uplink drops the question, which no rule could help: the kernel asks for the way back as if the pod had sent.
#[test]
fn a_host_port_answers_processes_of_other_nodes() {
    let world = World::new();
    world.settle(Routing::Auto);
    let (here, there) = (world.node(1), world.node(2));
    admit(here, &[HostPort { protocol: Protocol::Tcp, ..host_port() }]);
    admit(there, &[]);
    guard(&world, here);
    guard(&world, there);
    let _server = Server::tcp(&here.pod, POD_PORT, "pod");
    let ask = |family: usize| tcp(&there.namespace, &here.addresses[family], HOST_PORT);
    let answer = |family: usize| reply(&there.addresses[family], "pod");
    for (all, uplink) in [("0", "0"), ("0", "2"), ("1", "2"), ("2", "0"), ("2", "1"), ("2", "2")] {
        for node in &world.nodes {
            node.namespace.set_sysctl("net/ipv4/conf/all/rp_filter", all);
            node.namespace.set_sysctl("net/ipv4/conf/up0/rp_filter", uplink);
        }
        for family in [0, 1] {
            assert_eq!(ask(family), answer(family), "rp_filter: all {all}, uplink {uplink}");
        }
    }
    here.namespace.set_sysctl("net/ipv4/conf/all/rp_filter", "1");
    here.namespace.set_sysctl("net/ipv4/conf/up0/rp_filter", "1");
    assert_eq!(ask(0), None, "the doctor warns of it");
    assert_eq!(ask(1), answer(1), "IPv6 has no such check");
}
