//! Whatever is dropped is counted under its reason, and nothing else is.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::process::Stdio;

use serde_json::{Value, json};

use kit::call::Call;
use kit::frames::{self, ICMP, ICMP6, Mac, TCP, UDP, icmp, mac, packet, tcp, udp};
use kit::ip;
use kit::netns::{Namespace, inside};
use kit::nft;
use kit::node::{NODE_V4, NODE_V6, Node, OUTSIDE_V4, OUTSIDE_V6};
use kit::packets::answers_ping;
use kit::pod::{Pod, addresses_of, host_link_of};
use kit::traffic;

const PORT: u16 = 9000;
const VXLAN: u16 = 8472;

/// A pod of the node, and what its frames need.
struct World {
    node: Node,
    pod: Pod,
    /// Its addresses.
    own: Vec<IpAddr>,
    to: Mac,
    from: Mac,
    conf: Value,
}

/// What `nft` reads of the table: packets by reason.
fn counted(node: &Node) -> BTreeMap<String, u64> {
    let listed = nft::json(node.namespace(), "list table inet ferrule").unwrap();
    let mut counted = BTreeMap::new();
    for rule in listed["nftables"].as_array().unwrap().iter().filter_map(|it| it.get("rule")) {
        let mut words = rule["expr"].as_array().unwrap().iter();
        if let Some(packets) = words.find_map(|word| word["counter"]["packets"].as_u64()) {
            let (reason, _) = rule["comment"].as_str().unwrap().split_once(": ").expect("a reason");
            *counted.entry(reason.to_owned()).or_default() += packets;
        }
    }
    counted
}

/// What has risen, but for what each pod sends at its start.
fn risen(before: &BTreeMap<String, u64>, now: &BTreeMap<String, u64>) -> Vec<String> {
    let more = now.iter().filter(|(reason, packets)| *reason != "link_local" && **packets > before[*reason]);
    more.map(|(reason, _)| reason.clone()).collect()
}

impl World {
    fn new(change: impl Fn(&mut Value)) -> Self {
        let (node, pod) = (Node::new(), Pod::new("pod"));
        node.outside().ip("link set lo up");
        let mut conf = node.conf();
        change(&mut conf);
        let result = node.add(&pod, &conf);
        let mac_of = |namespace: &Namespace, name: &str| {
            mac(ip::link(namespace, name).unwrap()["address"].as_str().unwrap())
        };
        let to = mac_of(node.namespace(), &host_link_of(&result));
        let from = mac_of(pod.namespace(), "eth0");
        let own = addresses_of(&result).iter().map(|it| it.parse().unwrap()).collect();
        Self { node, pod, own, to, from, conf }
    }

    fn frame(&self, source: &str, target: &str, protocol: u8, payload: &[u8]) -> Vec<u8> {
        packet(self.to, self.from, source.parse().unwrap(), target.parse().unwrap(), protocol, payload)
    }

    /// A datagram of UDP in a frame of the pod.
    fn datagram(&self, source: &str, target: &str, port: u16) -> Vec<u8> {
        let payload = udp(source.parse().unwrap(), target.parse().unwrap(), port, b"?");
        self.frame(source, target, UDP, &payload)
    }

    /// Frames of the pod, which are counted for `reason`, each of them, and for nothing else.
    fn expect(&self, reason: &str, frames: &[Vec<u8>]) {
        let before = counted(&self.node);
        frames::send(self.pod.namespace(), frames);
        self.expect_since(&before, reason, frames.len() as u64);
    }

    fn expect_since(&self, before: &BTreeMap<String, u64>, reason: &str, packets: u64) {
        // A packet may wait for the neighbour to answer.
        let is_there = || counted(&self.node)[reason] >= before[reason] + packets;
        assert!((0..400).any(|_| is_there()), "{reason}: {:?}", counted(&self.node));
        let now = counted(&self.node);
        assert_eq!(risen(before, &now), [reason], "{now:?}");
        assert_eq!(now[reason] - before[reason], packets, "{reason}");
    }
}

#[test]
fn what_a_pod_may_not_send_is_counted_by_reason() {
    let world = World::new(|_| {});
    let [four, six] = [0, 1].map(|at: usize| world.own[at].to_string());
    world.expect(
        "spoofed_source",
        &[
            world.datagram("203.0.113.7", OUTSIDE_V4, PORT),
            world.datagram("2001:db8::7", OUTSIDE_V6, PORT),
            world.datagram("0.0.0.0", OUTSIDE_V4, PORT),
        ],
    );
    world.expect(
        "loopback",
        &[world.datagram("127.0.0.1", OUTSIDE_V4, PORT), world.datagram(&four, "127.0.0.1", PORT)],
    );
    let (source, target) = (world.own[1], OUTSIDE_V6.parse().unwrap());
    let solicitation = icmp(source, target, [&[135, 0, 0, 0, 0, 0, 0, 0][..], &[0; 16]].concat());
    let listener = icmp(source, target, vec![143, 0, 0, 0, 0, 0, 0, 0]);
    world.expect(
        "neighbour_discovery",
        &[solicitation, listener].map(|message| world.frame(&six, OUTSIDE_V6, ICMP6, &message)),
    );
    let reset = |source: &str, target: &str| {
        let segment = tcp(source.parse().unwrap(), target.parse().unwrap(), PORT, 0x04);
        world.frame(source, target, TCP, &segment)
    };
    // To the node, and by it to others.
    world.expect("invalid", &[reset(&four, NODE_V4), reset(&four, OUTSIDE_V4), reset(&six, OUTSIDE_V6)]);
    let before = counted(&world.node);
    let link_local = world.datagram("fe80::66", OUTSIDE_V6, PORT);
    frames::send(world.pod.namespace(), &[link_local, world.datagram("::", OUTSIDE_V6, PORT)]);
    let now = counted(&world.node);
    assert_eq!(risen(&before, &now), [""; 0]);
    assert!(now["link_local"] >= before["link_local"] + 2);
}

#[test]
fn an_error_about_others_is_counted() {
    let world = World::new(|_| {});
    let node = world.node.namespace();
    // A flow of the node's with somebody outside, of which the pod complains.
    let socket = inside(node, || std::net::UdpSocket::bind((NODE_V4, PORT)).unwrap());
    socket.send_to(b"?", (OUTSIDE_V4, PORT)).unwrap();
    let (own, ours, theirs) = (world.own[0], NODE_V4.parse().unwrap(), OUTSIDE_V4.parse().unwrap());
    let embedded = packet([0; 6], [0; 6], ours, theirs, UDP, &udp(ours, theirs, PORT, b"?"))[14..].to_vec();
    let message = icmp(own, ours, [&[3, 3, 0, 0, 0, 0, 0, 0][..], &embedded].concat());
    world.expect("foreign_error", &[world.frame(&own.to_string(), NODE_V4, ICMP, &message)]);
}

#[test]
fn what_is_for_a_tunnel_and_not_from_a_node_is_counted() {
    let world = World::new(|_| {});
    nft::run(world.node.namespace(), "add element inet ferrule vxlan_ports { udp . 8472 }").unwrap();
    let before = counted(&world.node);
    traffic::send_udp(world.node.outside(), OUTSIDE_V4, NODE_V4, VXLAN);
    traffic::send_udp(world.node.outside(), OUTSIDE_V6, NODE_V6, VXLAN);
    world.expect_since(&before, "vxlan_stranger", 2);
    nft::run(world.node.namespace(), &format!("add element inet ferrule vxlan_peers4 {{ {OUTSIDE_V4} }}"))
        .unwrap();
    nft::run(world.node.namespace(), &format!("add element inet ferrule vxlan_peers6 {{ {OUTSIDE_V6} }}"))
        .unwrap();
    let before = counted(&world.node);
    for (own, target) in world.own.iter().zip([OUTSIDE_V4, OUTSIDE_V6]) {
        traffic::send_udp(world.pod.namespace(), &own.to_string(), target, VXLAN);
    }
    world.expect_since(&before, "vxlan_from_pod", 2);
    // What nodes send to each other is not.
    let before = counted(&world.node);
    traffic::send_udp(world.node.outside(), OUTSIDE_V4, NODE_V4, VXLAN);
    assert_eq!(risen(&before, &counted(&world.node)), [""; 0]);
}

#[test]
fn what_is_for_a_pod_that_is_gone_is_counted() {
    let world = World::new(|_| {});
    let outside = world.node.outside();
    for (own, nobody) in world.own.iter().zip(["10.88.0.200", "fd00:88::200"]) {
        let own = own.to_string();
        assert!(answers_ping(outside, &own));
        let before = counted(&world.node);
        assert!(!answers_ping(outside, nobody));
        let now = counted(&world.node);
        assert_eq!(risen(&before, &now), ["no_route"]);
        // To the pod, to the node and by it to others.
        assert!(
            answers_ping(outside, &own) && answers_ping(outside, NODE_V4) && answers_ping(outside, NODE_V6)
        );
        assert!(
            answers_ping(world.pod.namespace(), OUTSIDE_V4)
                && answers_ping(world.pod.namespace(), OUTSIDE_V6)
        );
        assert_eq!(risen(&now, &counted(&world.node)), [""; 0]);
    }
    let before = counted(&world.node);
    world.node.del(&world.pod, &world.conf);
    assert!(!answers_ping(outside, &world.own[0].to_string()));
    assert_eq!(risen(&before, &counted(&world.node)), ["no_route"]);
}

/// The reasons and packets that `ferrulectl drops` prints.
fn drops(node: &Node, conf: &Value) -> BTreeMap<String, u64> {
    let directory = node.scratch().path().join("net.d");
    std::fs::create_dir_all(&directory).unwrap();
    let mut plugin = conf.clone();
    plugin.as_object_mut().unwrap().remove("name");
    let list = json!({ "name": conf["name"], "cniVersion": "1.0.0", "plugins": [plugin] });
    std::fs::write(directory.join("10-ferrule.conflist"), list.to_string()).unwrap();
    let call = Call::ferrulectl("drops --output json").on(node.namespace()).argument("--conf-dir");
    let answer = call.argument(&directory).argument("--data-dir").argument(node.data_dir()).run();
    assert!(answer.status.success(), "{answer:?}");
    let document = answer.document().unwrap();
    let drops = document["drops"].as_array().unwrap().iter();
    drops.map(|it| (it["reason"].as_str().unwrap().to_owned(), it["packets"].as_u64().unwrap())).collect()
}

#[test]
fn the_command_tells_what_was_counted_and_what_is_refused() {
    let world = World::new(|_| {});
    for address in ["169.254.169.254", "fd00:ec2::254"] {
        world.node.outside().ip(&format!("address add {address} dev lo"));
        let router = if address.contains(':') { OUTSIDE_V6 } else { OUTSIDE_V4 };
        world.node.namespace().ip(&format!("route add {address} via {router}"));
        traffic::refuses_tcp(world.pod.namespace(), address, 80);
    }
    frames::send(world.pod.namespace(), &[world.datagram("203.0.113.7", OUTSIDE_V4, PORT)]);
    let told = drops(&world.node, &world.conf);
    assert_eq!((told["spoofed_source"], told["vxlan_stranger"]), (1, 0));
    assert_eq!(told.get("metadata"), None, "nobody refuses that");
    let table = counted(&world.node);
    assert!(table["metadata"] >= 2, "{table:?}");
    let mut conf = world.conf.clone();
    conf["blockInstanceMetadata"] = json!(true);
    assert_eq!(drops(&world.node, &conf)["metadata"], table["metadata"]);
    // What rp_filter drops: a source that is here, by the uplink.
    world.node.namespace().set_sysctl("net/ipv4/conf/uplink/rp_filter", "1");
    let mac_of = |namespace: &Namespace, name: &str| {
        mac(ip::link(namespace, name).unwrap()["address"].as_str().unwrap())
    };
    let (to, from) = (mac_of(world.node.namespace(), "uplink"), mac_of(world.node.outside(), "down"));
    let (source, target) = (world.own[0], NODE_V4.parse().unwrap());
    let frame = packet(to, from, source, target, UDP, &udp(source, target, PORT, b"?"));
    frames::send_by(world.node.outside(), "down", &[frame]);
    assert_eq!(drops(&world.node, &conf)["reverse_path"], told["reverse_path"] + 1);
}

/// A repair of the table is no reason to forget what it has counted.
#[test]
fn a_table_that_is_repaired_counts_on() {
    let world = World::new(|_| {});
    frames::send(world.pod.namespace(), &[world.datagram("203.0.113.7", OUTSIDE_V4, PORT)]);
    assert_eq!(counted(&world.node)["spoofed_source"], 1);
    for deed in ["add rule inet ferrule antispoof accept", "flush chain inet ferrule postrouting"] {
        nft::run(world.node.namespace(), deed).unwrap();
        let sync = Call::ferrulectl("sync").on(world.node.namespace()).argument("--conf-dir");
        drops(&world.node, &world.conf);
        let sync = sync.argument(world.node.scratch().path().join("net.d"));
        let answer = sync.argument("--data-dir").argument(world.node.data_dir()).run();
        assert!(answer.status.success(), "{answer:?}");
        let listed = nft::run(world.node.namespace(), "list table inet ferrule").unwrap();
        assert!(listed.contains("fully-random"), "it was repaired");
        assert_eq!(counted(&world.node)["spoofed_source"], 1, "{deed}");
    }
    world.expect("spoofed_source", &[world.datagram("203.0.113.7", OUTSIDE_V4, PORT)]);
}

#[test]
fn doctor_tells_of_what_is_dropped_while_it_looks() {
    let world = World::new(|_| {});
    drops(&world.node, &world.conf);
    let told = || {
        let call = Call::ferrulectl("doctor --output json").on(world.node.namespace()).argument("--conf-dir");
        let call = call.argument(world.node.scratch().path().join("net.d")).argument("--data-dir");
        let document = call.argument(world.node.data_dir()).run().document().unwrap();
        let findings = document["findings"].as_array().unwrap().iter();
        let dropped = findings.filter(|it| it["id"] == "packets-dropped");
        dropped.map(|it| format!("{}: {}", it["severity"], it["found"])).collect::<Vec<_>>()
    };
    // What was counted before is nobody's trouble any more.
    frames::send(world.pod.namespace(), &[world.datagram("203.0.113.7", OUTSIDE_V4, PORT)]);
    assert_eq!(told(), [""; 0]);
    world.pod.namespace().ip("address add 203.0.113.7/32 dev eth0");
    let mut ping = world.pod.namespace().command("ping");
    ping.args(["-I", "203.0.113.7", "-i", "0.05", OUTSIDE_V4]).stdout(Stdio::null());
    let mut ping = ping.spawn().unwrap();
    let told = told();
    ping.kill().unwrap();
    ping.wait().unwrap();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].starts_with("\"warning\"") && told[0].contains("spoofed_source"), "{told:?}");
}
