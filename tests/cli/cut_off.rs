//! Whatever on a node keeps its pods from their peers: each alone, traffic says that it does, and the doctor names it.

use serde_json::{Value, json};

use super::{install, verb};
use crate::foreign_firewall::conf;
use kit::node::Node;
use kit::packets::{answers_ping_at_once, answers_ping_in_time};
use kit::pod::{Pod, addresses_of, host_link_of};
use kit::traffic;
use kit::underlay::Underlay;

/// Two nodes that list each other; two pods on the first, which is the patient, and one on the other.
struct Lab {
    underlay: Underlay,
    pods: [Pod; 3],
    /// Of each pod: IPv4, IPv6.
    addresses: Vec<Vec<String>>,
    host_link: String,
    _server: traffic::Server,
}

const PORT: u16 = 8080;

/// More than any MTU that a test sets.
const LARGE: u32 = 1400;

/// A way that packets take, from a pod and back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// To the other pod of the node.
    Neighbour4,
    Neighbour6,
    /// To the pod of the other node.
    Peer4,
    Peer6,
    /// The same, with packets that are as large as the pod's MTU lets them be.
    Large,
}

use Way::{Large, Neighbour4, Neighbour6, Peer4, Peer6};

const ALL: [Way; 5] = [Neighbour4, Neighbour6, Peer4, Peer6, Large];

impl Lab {
    fn new() -> Self {
        let underlay = Underlay::new(2);
        let pods = ["one", "two", "far"].map(Pod::new);
        let confs: Vec<Value> = (0..2).map(|n| conf(&underlay.nodes[n], n)).collect();
        let node_of = |pod: usize| usize::from(pod == 2);
        let results: Vec<Value> =
            (0..3).map(|pod| underlay.nodes[node_of(pod)].add(&pods[pod], &confs[node_of(pod)])).collect();
        install(&underlay.nodes[0], "10-ferrule.conflist", &confs[0]);
        let lab = Self {
            addresses: results.iter().map(addresses_of).collect(),
            host_link: host_link_of(&results[0]),
            _server: traffic::Server::tcp(pods[2].namespace(), PORT, "far"),
            underlay,
            pods,
        };
        // For most of its first second a new link hears no neighbour solicitation.
        assert!(answers_ping_in_time(lab.pods[0].namespace(), &lab.addresses[2][1]));
        assert_eq!(lab.passing(), ALL, "before anything was done");
        lab.expect_no_error();
        lab
    }

    fn node(&self) -> &Node {
        &self.underlay.nodes[0]
    }

    /// The ways by which the first pod is answered.
    fn passing(&self) -> Vec<Way> {
        let from = self.pods[0].namespace();
        let is_answered = |way: &Way| match way {
            Neighbour4 => answers_ping_at_once(from, &self.addresses[1][0]),
            Neighbour6 => answers_ping_at_once(from, &self.addresses[1][1]),
            Peer4 => traffic::tcp(from, &self.addresses[2][0], PORT).is_some(),
            Peer6 => answers_ping_at_once(from, &self.addresses[2][1]),
            Large => kit::packets::ping_whole(from, LARGE, &self.addresses[2][0]).0,
        };
        ALL.into_iter().filter(is_answered).collect()
    }

    /// The findings: "error forwarding-off", "warning forward-drops".
    fn findings(&self) -> Vec<String> {
        let document = verb(self.node(), "doctor --output json").run().document().expect("a document");
        let findings = document["findings"].as_array().unwrap();
        let word = |it: &Value, key: &str| it[key].as_str().unwrap().to_owned();
        findings.iter().map(|it| format!("{} {}", word(it, "severity"), word(it, "id"))).collect()
    }

    /// What a machine that runs the tests has is none of their business.
    fn expect_no_error(&self) {
        let mut findings = self.findings();
        findings.retain(|it| !it.ends_with("networkd-foreign-routes"));
        assert_eq!(findings, Vec::<String>::new());
    }
}

/// Something that the node does to its pods.
struct Trial {
    /// In a shell of the node; `$link` is the first pod's.
    script: &'static str,
    /// What no longer passes.
    cut: &'static [Way],
    /// The finding that must be among those told.
    told: &'static str,
}

const TRIALS: [Trial; 13] = [
    Trial {
        script: "iptables -P FORWARD DROP",
        cut: &[Neighbour4, Peer4, Large],
        told: "warning forward-drops",
    },
    Trial {
        script: "nft 'add table ip6 mine; add chain ip6 mine raw { type filter hook prerouting priority -300; policy drop; }'",
        cut: &[Neighbour6, Peer6],
        told: "warning forward-drops",
    },
    Trial {
        script: "nft 'add table inet mine; add chain inet mine last { type filter hook postrouting priority 0; policy drop; }'",
        cut: &ALL,
        told: "warning forward-drops",
    },
    Trial {
        script: "sysctl -qw net.ipv4.ip_forward=0",
        cut: &[Neighbour4, Peer4, Large],
        told: "error forwarding-off",
    },
    Trial {
        script: "sysctl -qw net.ipv6.conf.all.forwarding=0",
        cut: &[Neighbour6, Peer6],
        told: "error forwarding-off",
    },
    Trial {
        script: "sysctl -qw net.ipv4.conf.$link.forwarding=0",
        cut: &[Neighbour4, Peer4, Large],
        told: "error attachment-differs",
    },
    Trial {
        script: "sysctl -qw net.ipv4.conf.up0.forwarding=0",
        cut: &[Peer4, Large],
        told: "error link-forwarding-off",
    },
    Trial { script: "ip link set up0 down", cut: &[Peer4, Peer6, Large], told: "error peer-unreachable" },
    Trial { script: "ip link set $link down", cut: &ALL, told: "error attachment-differs" },
    Trial {
        script: "ip neighbour replace 192.168.77.11 lladdr 02:00:00:00:00:99 dev up0 nud permanent",
        cut: &[Peer4, Large],
        told: "warning neighbour-silent",
    },
    Trial {
        script: "ip neighbour flush dev $link nud permanent",
        // The pod answers ARP, and no neighbour solicitation.
        cut: &[Neighbour6, Peer6],
        told: "error attachment-differs",
    },
    Trial { script: "ip link set up0 mtu 1280", cut: &[Large], told: "error mtu-too-large" },
    Trial {
        script: "sysctl -qw net.ipv6.conf.all.disable_ipv6=1",
        cut: &[Neighbour6, Peer6],
        told: "error attachment-differs",
    },
];

#[test]
fn whatever_cuts_pods_off_is_named() {
    kit::at_once(TRIALS.len(), 4, |n| {
        let (lab, Trial { script, cut, told }) = (Lab::new(), &TRIALS[n]);
        lab.node().namespace().sh(&format!("link={}; {script}", lab.host_link));
        let passing = lab.passing();
        let wanted: Vec<Way> = ALL.into_iter().filter(|way| !cut.contains(way)).collect();
        assert_eq!(passing, wanted, "{script}: what passes");
        let findings = lab.findings();
        assert!(findings.iter().any(|it| it == told), "{script}: {findings:?}");
    });
}

/// An uplink whose other end is gone looks well to every look-up.
#[test]
fn an_uplink_without_a_carrier_is_named() {
    let lab = Lab::new();
    lab.underlay.switch.ip("link set port0 down");
    assert_eq!(lab.passing(), [Neighbour4, Neighbour6]);
    assert!(lab.findings().contains(&"error no-carrier".to_owned()), "{:?}", lab.findings());
}

/// A peer's node that is away: its neighbour entry says so once somebody has asked.
#[test]
fn a_next_hop_that_does_not_answer_is_named() {
    let lab = Lab::new();
    lab.underlay.switch.ip("link set port1 down");
    lab.node().namespace().ip("neighbour flush dev up0");
    assert_eq!(lab.passing(), [Neighbour4, Neighbour6]);
    assert!(lab.findings().contains(&"warning neighbour-silent".to_owned()), "{:?}", lab.findings());
}

/// Nobody's list of peers is needed for that.
#[test]
fn a_node_alone_is_told_of_a_firewall_too() {
    let node = Node::new();
    let conf = node.conf();
    install(&node, "10-ferrule.conflist", &conf);
    let pods = [Pod::new("one"), Pod::new("two")];
    let addresses: Vec<Vec<String>> = pods.iter().map(|pod| addresses_of(&node.add(pod, &conf))).collect();
    let passes = || answers_ping_at_once(pods[0].namespace(), &addresses[1][0]);
    assert!(passes());
    node.namespace().sh("iptables -P FORWARD DROP");
    assert!(!passes());
    let answer = verb(&node, "doctor").run();
    assert!(super::text(&answer).contains("chain ip filter FORWARD (policy drop)"), "{answer:?}");
    let mut accepting = conf.clone();
    accepting["forwardAccept"] = json!(true);
    install(&node, "10-ferrule.conflist", &accepting);
    assert!(verb(&node, "sync").run().status.success());
    assert!(passes());
}

/// The setting for new links may be off though the node forwards: ferrule's own links say for themselves.
#[test]
fn pods_pass_where_new_links_would_not_forward() {
    let node = Node::new();
    node.namespace().sh("sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.default.forwarding=0");
    node.namespace().sh("sysctl -qw net.ipv4.conf.all.forwarding=1 net.ipv4.conf.default.forwarding=0");
    let pods = [Pod::new("one"), Pod::new("two")];
    let conf = node.conf();
    let addresses: Vec<Vec<String>> = pods.iter().map(|pod| addresses_of(&node.add(pod, &conf))).collect();
    assert!(answers_ping_at_once(pods[0].namespace(), &addresses[1][0]));
    assert!(answers_ping_at_once(pods[1].namespace(), &addresses[0][0]));
}
