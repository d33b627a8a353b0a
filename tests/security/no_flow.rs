//! What a pod sends that belongs to no flow which it may have: conntrack calls it INVALID, and does not rewrite its
//! source; or it is an error about a flow of others. Nobody gets it, not even the node.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};

use serde_json::json;

use kit::frames::{self, ICMP, ICMP6, Mac, TCP, UDP, icmp, mac, packet, tcp, udp};
use kit::ip;
use kit::netns::{Namespace, inside};
use kit::nft;
use kit::node::{NODE_V4, NODE_V6, Node, OUTSIDE_V4, OUTSIDE_V6};
use kit::pod::{Pod, addresses_of, host_link_of};
use kit::traffic::PATIENT;

const PORT: u16 = 9000;
const WRONG: u16 = 9001;
const ROUTING: u8 = 43;

/// What is sent, how a receiver knows it, and the packet.
type Kind = (&'static str, &'static str, Vec<u8>);

struct Sender {
    to: Mac,
    from: Mac,
}

impl Sender {
    fn packet(&self, (source, target): (IpAddr, IpAddr), protocol: u8, payload: &[u8]) -> Vec<u8> {
        packet(self.to, self.from, source, target, protocol, payload)
    }

    /// What belongs to no flow.
    fn kinds(&self, source: IpAddr, target: IpAddr) -> Vec<Kind> {
        let ends = (source, target);
        let segment = |flags| self.packet(ends, TCP, &tcp(source, target, PORT, flags));
        let spoil = |mut message: Vec<u8>, at: usize| {
            message[at] ^= 0x55;
            message
        };
        let of_icmp = |protocol, message| self.packet(ends, protocol, &icmp(source, target, message));
        let mut kinds = vec![
            ("RST", "tcp flags & (fin|syn|rst|ack) == rst", segment(0x04)),
            ("FIN", "tcp flags & (fin|syn|rst|ack) == fin|ack", segment(0x11)),
            ("SYN and ACK", "tcp flags & (fin|syn|rst|ack) == syn|ack", segment(0x12)),
            ("no flags", "tcp flags & (fin|syn|rst|ack) == 0", segment(0)),
            ("UDP, wrong checksum", "udp dport 9001", {
                self.packet(ends, UDP, &spoil(udp(source, target, WRONG, b"?"), 6))
            }),
            ("TCP, wrong checksum", "tcp dport 9001", {
                self.packet(ends, TCP, &spoil(tcp(source, target, WRONG, 0x02), 16))
            }),
        ];
        if source.is_ipv4() {
            let about = [&[3, 3, 0, 0, 0, 0, 0, 0][..], &embedded(target, source, PORT)].concat();
            kinds.push(("error", "icmp type destination-unreachable", of_icmp(ICMP, about)));
            kinds.push(("answer", "icmp type echo-reply", of_icmp(ICMP, vec![0, 0, 0, 0, 0x66, 0x66, 0, 1])));
            kinds.push((
                "timestamp",
                "icmp type timestamp-reply",
                of_icmp(ICMP, [&[14, 0][..], &[0; 18]].concat()),
            ));
        } else {
            let about = [&[1, 4, 0, 0, 0, 0, 0, 0][..], &embedded(target, source, PORT)].concat();
            let listener = [&[131, 0, 0, 0, 0, 0, 0, 0][..], &[0; 16]].concat();
            let second = [&[143, 0, 0, 0, 0, 0, 0, 0][..]].concat();
            // Type 2 (RFC 6275): the checksum is that of a packet to the address in it.
            let routing =
                [&[UDP, 2, 2, 1, 0, 0, 0, 0][..], &[0x20; 16], &udp(source, target, PORT + 2, b"?")].concat();
            kinds.push(("error", "icmpv6 type destination-unreachable", of_icmp(ICMP6, about)));
            kinds.push((
                "answer",
                "icmpv6 type echo-reply",
                of_icmp(ICMP6, vec![129, 0, 0, 0, 0x66, 0x66, 0, 1]),
            ));
            kinds.push(("multicast listener", "icmpv6 type 131", of_icmp(ICMP6, listener)));
            kinds.push(("multicast listener 2", "icmpv6 type 143", of_icmp(ICMP6, second)));
            kinds.push(("routing header", "rt hdrlength 2", self.packet(ends, ROUTING, &spoil(routing, 31))));
        }
        kinds
    }
}

/// A datagram as an error has it in it.
fn embedded(source: IpAddr, target: IpAddr, port: u16) -> Vec<u8> {
    packet([0; 6], [0; 6], source, target, UDP, &udp(source, target, port, b"?"))[14..].to_vec()
}

/// Counts what comes into `namespace`, by rules of these names.
fn watch(namespace: &Namespace, kinds: &[(&str, &str)]) {
    let rule = |(name, matches): &(&str, &str)| format!("{matches} counter comment \"{name}\"\n");
    let rules: String = kinds.iter().map(rule).collect();
    let chain = "type filter hook input priority 10;";
    nft::load(
        namespace,
        &format!(
            "table inet watch\ndelete table inet watch\ntable inet watch {{\nchain input {{\n{chain}\n{rules}}}\n}}\n"
        ),
    );
}

/// The names of what came.
fn seen(namespace: &Namespace) -> Vec<String> {
    let listed = nft::json(namespace, "list table inet watch").unwrap();
    let rules = listed["nftables"].as_array().unwrap().iter().filter_map(|it| it.get("rule"));
    let came = rules.filter(|rule| {
        let mut words = rule["expr"].as_array().unwrap().iter();
        words.find_map(|word| word["counter"]["packets"].as_u64()) > Some(0)
    });
    came.map(|rule| rule["comment"].as_str().unwrap().to_owned()).collect()
}

fn parse(text: &str) -> IpAddr {
    text.parse().unwrap()
}

struct World {
    node: Node,
    attacker: Pod,
    own: Vec<String>,
    victim: Pod,
    victims: Vec<String>,
    other: Pod,
    others: Vec<String>,
    sender: Sender,
}

impl World {
    fn new() -> Self {
        let (node, attacker, victim, other) =
            (Node::new(), Pod::new("attacker"), Pod::new("victim"), Pod::new("other"));
        let result = node.add(&attacker, &node.conf());
        let mac_of =
            |namespace, name: &str| mac(ip::link(namespace, name).unwrap()["address"].as_str().unwrap());
        let sender = Sender {
            to: mac_of(node.namespace(), &host_link_of(&result)),
            from: mac_of(attacker.namespace(), "eth0"),
        };
        let victims = addresses_of(&node.add(&victim, &node.conf()));
        let others = addresses_of(&node.add(&other, &node.conf()));
        Self { own: addresses_of(&result), node, attacker, victim, victims, other, others, sender }
    }

    /// Sends until `namespace` has counted the honest datagram that goes behind the others.
    fn send(&self, namespace: &Namespace, source: IpAddr, target: IpAddr, frames: &[Vec<u8>]) -> Vec<String> {
        frames::send(self.attacker.namespace(), frames);
        let honest = self.sender.packet((source, target), UDP, &udp(source, target, PORT + 1000, b"?"));
        for _ in 0..100 {
            frames::send(self.attacker.namespace(), std::slice::from_ref(&honest));
            let mut came = seen(namespace);
            if let Some(at) = came.iter().position(|it| it == "honest") {
                came.remove(at);
                return came;
            }
        }
        panic!("no honest datagram from {source} to {target} arrives");
    }
}

#[test]
fn what_belongs_to_no_flow_arrives_nowhere() {
    let world = World::new();
    let receivers = [
        (world.node.namespace(), [NODE_V4, NODE_V6]),
        (world.node.outside(), [OUTSIDE_V4, OUTSIDE_V6]),
        (world.other.namespace(), [world.others[0].as_str(), &world.others[1]]),
    ];
    let came = |guarded: bool| {
        for (namespace, targets) in &receivers {
            for (target, own) in targets.iter().zip(&world.own) {
                let (source, target) = (parse(own), parse(target));
                let kinds = world.sender.kinds(source, target);
                let names = kinds.iter().map(|kind| (kind.0, kind.1)).chain([("honest", "udp dport 10000")]);
                watch(namespace, &names.collect::<Vec<_>>());
                let frames: Vec<_> = kinds.iter().map(|kind| kind.2.clone()).collect();
                let came = world.send(namespace, source, target, &frames);
                let all: Vec<&str> = kinds.iter().map(|kind| kind.0).collect();
                let expected = if guarded { Vec::new() } else { all };
                assert_eq!(came, expected, "{source} to {target}");
            }
        }
    };
    came(true);
    // The proof that each of them can arrive.
    nft::run(world.node.namespace(), "delete table inet ferrule").unwrap();
    came(false);
}

/// An error about somebody else's flow is no answer to anything: the pod has got nothing of it.
#[test]
fn an_error_about_a_flow_of_others_is_not_believed() {
    let world = World::new();
    let (node, pod) = (world.node.namespace(), world.victim.namespace());
    for family in [0, 1] {
        let at = world.others[family].as_str();
        let server = inside(world.other.namespace(), || UdpSocket::bind((at, PORT)).unwrap());
        for (client, address) in [(node, [NODE_V4, NODE_V6][family]), (pod, &world.victims[family])] {
            let socket = inside(client, || UdpSocket::bind((address, PORT)).unwrap());
            socket.connect((at, PORT)).unwrap();
            socket.set_read_timeout(Some(PATIENT)).unwrap();
            socket.send(b"?").unwrap();
            let (_, peer) = server.recv_from(&mut [0; 8]).unwrap();
            server.send_to(b"!", peer).unwrap();
            socket.recv(&mut [0; 8]).unwrap();
            let (source, target) = (parse(&world.own[family]), parse(address));
            let (protocol, head, matches) = match family {
                0 => (ICMP, [3, 3, 0, 0, 0, 0, 0, 0], "icmp type destination-unreachable"),
                _ => (ICMP6, [1, 4, 0, 0, 0, 0, 0, 0], "icmpv6 type destination-unreachable"),
            };
            watch(client, &[("error", matches), ("honest", "udp dport 10000")]);
            let message = icmp(source, target, [&head[..], &embedded(target, parse(at), PORT)].concat());
            let error = world.sender.packet((source, target), protocol, &message);
            assert_eq!(world.send(client, source, target, &[error]), [""; 0], "{source} to {address}");
        }
    }
}

/// What a pod says of its own flows is heard, whoever is at the other end and whatever was rewritten.
#[test]
fn errors_about_a_pods_own_flows_are_heard() {
    let world = World::new();
    let mut conf = world.node.conf();
    conf["runtimeConfig"] =
        json!({ "portMappings": [{ "hostPort": 30080, "containerPort": 8080, "protocol": "udp" }] });
    let pod = Pod::new("closed");
    let addresses = addresses_of(&world.node.add(&pod, &conf));
    let outside = world.node.outside();
    for (family, any) in ["0.0.0.0", "::"].into_iter().enumerate() {
        let at = addresses[family].as_str();
        for (from, to, port) in [
            (world.node.namespace(), at, PORT),
            (world.other.namespace(), at, PORT),
            (outside, at, PORT),
            (outside, [NODE_V4, NODE_V6][family], 30080),
            (pod.namespace(), [OUTSIDE_V4, OUTSIDE_V6][family], PORT),
        ] {
            let socket = inside(from, || UdpSocket::bind((any, 0)).unwrap());
            socket.connect((to, port)).unwrap();
            socket.set_read_timeout(Some(PATIENT)).unwrap();
            // Again, for the first may wait for a neighbour.
            let refused = (0..20).any(|_| {
                let said = socket.send(b"?").and_then(|_| socket.recv(&mut [0; 8]));
                said.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
            });
            assert!(refused, "{} to {to} {port}", from.name());
        }
    }
}

/// Whoever flushes conntrack, or a kernel that begins to track when the table comes, finds connections in their middle.
#[test]
fn a_connection_that_is_found_in_its_middle_goes_on() {
    let world = World::new();
    for at in &world.others {
        let listener = inside(world.other.namespace(), || TcpListener::bind((at.as_str(), PORT)).unwrap());
        let mut client =
            inside(world.victim.namespace(), || TcpStream::connect((at.as_str(), PORT)).unwrap());
        let (mut server, _) = listener.accept().unwrap();
        for stream in [&client, &server] {
            stream.set_read_timeout(Some(PATIENT)).unwrap();
        }
        for _ in 0..3 {
            world.node.namespace().sh("conntrack -F 2>/dev/null");
            server.write_all(b"1").unwrap();
            client.read_exact(&mut [0]).unwrap();
            client.write_all(b"2").unwrap();
            server.read_exact(&mut [0]).unwrap();
        }
    }
}
