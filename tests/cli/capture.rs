//! `ferrulectl capture`, with the agent's one capability: read by this test's own eyes, and by tcpdump where it is.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use super::{add_named, install, verb};
use kit::call::{Call, Running};
use kit::nft;
use kit::node::{Node, OUTSIDE_V4, SUBNET_V4};
use kit::packets::answers_ping;
use kit::pod::{Pod, addresses_of, host_link_of};
use kit::traffic::{Server, send_udp, tcp};

/// As the DaemonSet gives it to its container.
const AGENTS: [&str; 4] =
    ["setpriv", "--no-new-privs", "--inh-caps=-all,+net_admin", "--bounding-set=-all,+net_admin"];

/// A node with two pods, web and other.
struct Scene {
    node: Node,
    pods: [Pod; 2],
    addresses: [String; 2],
    link: String,
}

impl Scene {
    fn new() -> Self {
        let node = Node::new();
        let mut conf = node.conf_with(json!([[{ "subnet": SUBNET_V4 }]]));
        conf["ipam"]["routes"] = json!([{ "dst": "0.0.0.0/0" }]);
        install(&node, "10-ferrule.conflist", &conf);
        let pods = [Pod::new("web"), Pod::new("other")];
        let results = [add_named(&node, &conf, &pods[0], "web"), add_named(&node, &conf, &pods[1], "other")];
        // A new pod speaks IPv6 by itself, of its groups.
        pods.iter().for_each(|pod| pod.namespace().set_sysctl("net/ipv6/conf/all/disable_ipv6", "1"));
        let addresses = results.each_ref().map(|it| addresses_of(it).remove(0));
        Self { node, pods, addresses, link: host_link_of(&results[0]) }
    }

    fn call(&self, words: &str) -> Call {
        verb(&self.node, &format!("capture {words}")).through(AGENTS)
    }

    /// Begins, and waits until packets are copied.
    fn begin(&self, words: &str) -> Running {
        let running = self.call(words).spawn();
        self.node.namespace().wait_until("nft list tables | grep -q ferrule_capture_");
        running
    }

    fn has_table(&self) -> bool {
        nft::run(self.node.namespace(), "list tables").unwrap().contains("ferrule_capture")
    }
}

/// A packet of a pcap, and how long it was.
#[derive(Debug)]
struct Packet {
    bytes: Vec<u8>,
    length: u32,
}

impl Packet {
    fn source(&self) -> IpAddr {
        Ipv4Addr::new(self.bytes[12], self.bytes[13], self.bytes[14], self.bytes[15]).into()
    }
}

/// The packets of a pcap.
fn read(pcap: &[u8]) -> Vec<Packet> {
    let number = |at: usize| u32::from_le_bytes(*pcap[at..].first_chunk::<4>().unwrap());
    assert_eq!((number(0), number(20)), (0xa1b2_c3d4, 101), "a pcap of raw packets");
    let (mut packets, mut at) = (Vec::new(), 24);
    while at < pcap.len() {
        let kept = number(at + 8) as usize;
        packets.push(Packet { bytes: pcap[at + 16..at + 16 + kept].to_vec(), length: number(at + 12) });
        at += 16 + kept;
    }
    packets
}

fn holds(pcap: &[u8], text: &str) -> bool {
    pcap.windows(text.len()).any(|it| it == text.as_bytes())
}

#[test]
fn both_directions_are_there_and_no_byte_of_what_is_said() {
    let scene = Scene::new();
    let _server = Server::udp(scene.pods[0].namespace(), &scene.addresses[0], 5353, "web");
    let running = scene.begin("default/web --count 2");
    // Between others: it is not the pod's.
    assert!(answers_ping(scene.pods[1].namespace(), OUTSIDE_V4));
    let [web, other] = &scene.addresses;
    let reply = kit::traffic::udp(scene.pods[1].namespace(), other, web, 5353);
    assert!(reply.is_some());
    let answer = running.wait();
    assert!(answer.status.success(), "{answer:?}");
    assert!(answer.stderr.contains(&format!("capturing default/web on {}: headers only", scene.link)));
    assert!(answer.stderr.ends_with("2 packets captured\n"), "{}", answer.stderr);
    let packets = read(&answer.stdout);
    let sources: Vec<String> = packets.iter().map(|it| it.source().to_string()).collect();
    assert_eq!(sources, [other.clone(), web.clone()]);
    for packet in &packets {
        assert_eq!(packet.bytes.len(), 28, "IPv4 and UDP: {packet:?}");
        assert!(packet.length > 28, "{packet:?}");
    }
    assert!(!scene.has_table(), "it stayed");
    expect_tcpdump(&answer.stdout, &format!("{other}."), &format!("{web}.5353"));
}

/// tcpdump reads what was written.
fn expect_tcpdump(pcap: &[u8], from: &str, to: &str) {
    let child = Command::new("tcpdump")
        .args(["-n", "-r", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    // Not every machine has it; the format has been read by eye.
    let Ok(mut child) = child else { return };
    child.stdin.take().unwrap().write_all(pcap).unwrap();
    let said = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    assert!(said.contains(&format!("IP {from}")) && said.contains(&format!("> {to}: ")), "{said}");
}

#[test]
fn whole_packets_are_there_if_they_are_asked_for() {
    let scene = Scene::new();
    let _server = Server::tcp(scene.pods[0].namespace(), 8080, "web-says-this");
    let running = scene.begin("default/web --full --count 8");
    assert!(tcp(scene.pods[1].namespace(), &scene.addresses[0], 8080).is_some());
    assert!(answers_ping(scene.pods[1].namespace(), &scene.addresses[0]));
    assert!(answers_ping(scene.pods[1].namespace(), &scene.addresses[0]));
    let answer = running.wait();
    assert!(holds(&answer.stdout, "web-says-this"), "{answer:?}");
    assert!(read(&answer.stdout).iter().all(|it| it.bytes.len() == it.length as usize));
    // Without it the same words are not.
    let running = scene.begin("default/web --count 8");
    assert!(tcp(scene.pods[1].namespace(), &scene.addresses[0], 8080).is_some());
    assert!(answers_ping(scene.pods[1].namespace(), &scene.addresses[0]));
    assert!(answers_ping(scene.pods[1].namespace(), &scene.addresses[0]));
    assert!(!holds(&running.wait().stdout, "web-says-this"));
}

/// What ferrule drops is what one looks for.
#[test]
fn a_forged_packet_is_seen_though_it_is_dropped() {
    let scene = Scene::new();
    let running = scene.begin("default/web --count 1");
    let web = scene.pods[0].namespace();
    web.ip("address add 203.0.113.77/32 dev eth0");
    send_udp(web, "203.0.113.77", &scene.addresses[1], 9);
    let packets = read(&running.wait().stdout);
    assert_eq!(packets[0].source().to_string(), "203.0.113.77");
}

#[test]
fn two_captures_run_beside_each_other_and_leave_nothing() {
    let scene = Scene::new();
    let mut first = scene.begin("default/web");
    let second = scene.call("default/web --count 2").spawn();
    scene.node.namespace().wait_until("[ $(nft list tables | grep -c ferrule_capture_) = 2 ]");
    assert!(answers_ping(scene.pods[1].namespace(), &scene.addresses[0]));
    assert_eq!(read(&second.wait().stdout).len(), 2);
    assert!(scene.has_table());
    // However it ends: the kernel removes the table.
    first.kill();
    first.wait_for_any_end();
    scene.node.namespace().wait_until("! nft list tables | grep -q ferrule_capture_");
}

#[test]
fn it_ends_with_its_time_or_with_whoever_holds_its_leash() {
    let scene = Scene::new();
    let answer = scene.call("default/web --duration 1").run();
    assert!(answer.status.success() && answer.stderr.ends_with("0 packets captured\n"), "{answer:?}");
    let answer = scene.call("default/web --leash").stdin("").run();
    assert!(answer.status.success() && answer.stderr.ends_with("0 packets captured\n"), "{answer:?}");
    let answer = scene.call("default/web --count 1").unread().spawn();
    assert!(answers_ping(scene.pods[1].namespace(), &scene.addresses[0]));
    assert!(answer.wait().status.success(), "nobody reads any more");
    assert!(!scene.has_table());
}

#[test]
fn a_pod_that_is_not_here_is_named_and_so_is_a_wrong_interface() {
    let scene = Scene::new();
    for (words, complaint) in [
        ("default/nobody", "cannot capture default/nobody: no running pod of that name"),
        ("default/web --interface net1", "it has no interface net1 by ferrule, but eth0"),
    ] {
        let answer = scene.call(words).run();
        assert_eq!((answer.status.code(), answer.stdout.len()), (Some(1), 0), "{answer:?}");
        assert!(answer.stderr.contains(complaint), "{answer:?}");
    }
    let none = ["setpriv", "--no-new-privs", "--inh-caps=-all", "--bounding-set=-all"];
    let answer = verb(&scene.node, "capture default/web").through(none).run();
    assert!(answer.stderr.contains("CAP_NET_ADMIN"), "{answer:?}");
    assert!(!scene.has_table());
}

/// Nothing will come any more, and whoever waits for packets is told.
#[test]
fn it_ends_with_the_pod() {
    let scene = Scene::new();
    let begin = Instant::now();
    let running = scene.begin("default/web --duration 30s");
    scene.node.namespace().ip(&format!("link delete {}", scene.link));
    let answer = running.wait();
    assert!(answer.status.success() && begin.elapsed() < Duration::from_secs(15), "{answer:?}");
    assert!(answer.stderr.contains("the pod's link is gone"), "{}", answer.stderr);
}
