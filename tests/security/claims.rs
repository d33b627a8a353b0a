//! What a pod claims to be, by ARP, neighbour discovery, router advertisements and redirects, is believed by nobody: the
//! node's neighbours, routes and addresses are the same afterwards, byte for byte.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde_json::Value;

use kit::frames::{
    self, ICMP, Mac, arp, mac, neighbour_advertisement, neighbour_solicitation, packet, redirect4, redirect6,
    router_advertisement,
};
use kit::ip;
use kit::nft;
use kit::node::{NODE_V4, NODE_V6, Node, OUTSIDE_V4, OUTSIDE_V6};
use kit::packets::{answers_ping, answers_ping_in_time};
use kit::pod::{Pod, addresses_of, host_link_of};

/// A node with a pod that means harm and one that does not.
struct Scene {
    node: Node,
    attacker: Pod,
    victim: Pod,
    /// Its addresses.
    own: (Ipv4Addr, Ipv6Addr),
    victims: (Ipv4Addr, Ipv6Addr),
    /// The node's end of the attacker's pair.
    link: String,
    node_mac: Mac,
    pod_mac: Mac,
}

fn parse(addresses: &[String]) -> (Ipv4Addr, Ipv6Addr) {
    (addresses[0].parse().unwrap(), addresses[1].parse().unwrap())
}

impl Scene {
    fn new() -> Self {
        let (node, attacker, victim) = (Node::new(), Pod::new("attacker"), Pod::new("victim"));
        let result = node.add(&attacker, &node.conf());
        let link = host_link_of(&result);
        let of = |namespace, name| mac(ip::link(namespace, name).unwrap()["address"].as_str().unwrap());
        let victims = parse(&addresses_of(&node.add(&victim, &node.conf())));
        let (node_mac, pod_mac) = (of(node.namespace(), &link), of(attacker.namespace(), "eth0"));
        let scene = Self {
            own: parse(&addresses_of(&result)),
            victims,
            link,
            node_mac,
            pod_mac,
            node,
            attacker,
            victim,
        };
        scene.settle();
        scene
    }

    /// What was sent before has been looked at when this returns: it goes the same way, behind it. The node knows its
    /// neighbours on the uplink afterwards.
    fn settle(&self) {
        for to in [OUTSIDE_V4, OUTSIDE_V6] {
            // The node asks for its router by its uplink, where questions and answers may take their time.
            assert!(answers_ping_in_time(self.attacker.namespace(), to), "the pod to {to}");
            assert!(answers_ping_in_time(self.node.namespace(), to), "the node to {to}");
        }
    }

    /// All that somebody could be made to believe. What comes and goes by itself is left out: how sure the node is of its
    /// router, the router's own link-local address, and groups that are listened to.
    fn beliefs(&self) -> Vec<String> {
        let router = ip::link(self.node.outside(), "down").unwrap()["address"].clone();
        let is_routers = |it: &Value| {
            it["lladdr"] == router && it["dst"].as_str().is_some_and(|dst| dst.starts_with("fe80:"))
        };
        let mut found: Vec<String> = ip::neighbours(self.node.namespace())
            .into_iter()
            .filter(|it| it["state"][0] != "NOARP" && !is_routers(it))
            .map(|mut it| {
                if it["dev"] == "uplink" {
                    it["state"] = Value::Null;
                }
                it.to_string()
            })
            .collect();
        found.sort();
        for words in [
            "-j -4 route show table all",
            "-j -6 route show table all",
            "-j -6 route show cache",
            "-j -4 route show cache",
            "-j -d address show",
            "-j -4 rule show",
            "-j -6 rule show",
        ] {
            found.push(self.node.namespace().ip(words));
        }
        found
    }

    /// Everything that a pod can say of anybody, from hardware address `from`.
    fn claims(&self, from: Mac) -> Vec<Vec<u8>> {
        let fours = [
            self.victims.0,
            NODE_V4.parse().unwrap(),
            OUTSIDE_V4.parse().unwrap(),
            Ipv4Addr::new(169, 254, 1, 1),
            Ipv4Addr::new(10, 88, 0, 99),
        ];
        let sixes = [
            self.victims.1,
            NODE_V6.parse().unwrap(),
            OUTSIDE_V6.parse().unwrap(),
            Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1),
            "fd00:88::99".parse().unwrap(),
        ];
        let mut frames = Vec::new();
        for claimed in fours {
            // Of its own accord in either form; an answer; a question that tells the asker's own address.
            frames.push(arp(from, 1, claimed, claimed));
            frames.push(arp(from, 2, claimed, claimed));
            frames.push(arp(from, 2, claimed, NODE_V4.parse().unwrap()));
            frames.push(arp(from, 1, claimed, NODE_V4.parse().unwrap()));
            frames.push(arp(from, 1, claimed, Ipv4Addr::new(169, 254, 1, 1)));
        }
        for claimed in sixes {
            frames.push(neighbour_advertisement(from, claimed));
            frames.push(neighbour_solicitation(from, claimed));
            frames.push(redirect6(from, claimed));
        }
        frames.push(router_advertisement(from, "2001:db8:66::".parse().unwrap()));
        // About a packet of the node's to the victim and to the world.
        let (node, own): (Ipv4Addr, Ipv4Addr) = (NODE_V4.parse().unwrap(), self.own.0);
        for sender in [own, Ipv4Addr::new(169, 254, 1, 1), OUTSIDE_V4.parse().unwrap()] {
            for about in [self.victims.0, OUTSIDE_V4.parse().unwrap(), own] {
                let inner = packet(from, from, node.into(), about.into(), ICMP, &[8, 0, 0, 0, 0, 1, 0, 1]);
                let message = redirect4(sender, node, own, &inner[14..]);
                frames.push(packet(self.node_mac, from, sender.into(), node.into(), ICMP, &message));
            }
        }
        frames
    }

    fn claim(&self, from: Mac) {
        frames::send(self.attacker.namespace(), &self.claims(from));
    }
}

#[test]
fn claims_of_a_pod_change_nothing_on_the_node() {
    let scene = Scene::new();
    let before = scene.beliefs();
    scene.claim(scene.pod_mac);
    scene.settle();
    assert_eq!(scene.beliefs(), before);
    // From hardware addresses that are others' as well: the victim's, the node's, and one that nobody has.
    let victims = ip::link(scene.victim.namespace(), "eth0").unwrap();
    for from in [mac(victims["address"].as_str().unwrap()), scene.node_mac, mac("02:66:66:66:66:66")] {
        scene.claim(from);
    }
    scene.settle();
    assert_eq!(scene.beliefs(), before);
    for address in [scene.victims.0.to_string(), scene.victims.1.to_string()] {
        assert!(answers_ping(scene.node.namespace(), &address), "{address}");
        assert!(answers_ping(scene.attacker.namespace(), &address), "{address}");
    }
}

/// The pod may do in its namespace what it likes: another hardware address, others' addresses, no permanent neighbours.
#[test]
fn a_pod_with_a_foreign_mac_cuts_off_itself_alone() {
    let scene = Scene::new();
    let before = scene.beliefs();
    let victims = ip::link(scene.victim.namespace(), "eth0").unwrap();
    scene.attacker.namespace().ip_batch(&format!(
        "link set eth0 address {}\naddress add {}/32 dev eth0\naddress add {}/128 dev eth0 nodad\n\
         neighbour flush dev eth0\n",
        victims["address"].as_str().unwrap(),
        scene.victims.0,
        scene.victims.1
    ));
    assert!(!answers_ping(scene.attacker.namespace(), OUTSIDE_V4));
    assert_eq!(scene.beliefs(), before);
    for address in [scene.victims.0.to_string(), scene.victims.1.to_string()] {
        assert!(answers_ping(scene.node.namespace(), &address), "{address}");
    }
}

/// The proof that these are frames that a kernel listens to: without the table, and with neighbours that may change,
/// the same frames are believed.
#[test]
fn on_a_node_without_ferrules_care_the_same_claims_are_believed() {
    let scene = Scene::new();
    let node = scene.node.namespace();
    nft::run(node, "delete table inet ferrule").unwrap();
    let link = &scene.link;
    for (path, value) in [("accept_ra", "2"), ("accept_ra_defrtr", "1"), ("accept_redirects", "1")] {
        node.set_sysctl(&format!("net/ipv6/conf/{link}/{path}"), value);
    }
    node.ip_batch(&format!(
        "address add fe80::1/64 dev {link} nodad\n\
         neighbour replace 10.88.0.99 lladdr 02:00:00:00:00:01 dev {link} nud stale\n\
         neighbour replace fd00:88::99 lladdr 02:00:00:00:00:01 dev {link} nud stale\n"
    ));
    let before = scene.beliefs();
    scene.claim(scene.pod_mac);
    let after = scene.beliefs();
    assert_ne!(after, before);
    let taught: Vec<String> = ip::neighbours(node)
        .iter()
        .filter(|it| it["dev"] == link.as_str() && it["lladdr"].as_str().map(mac) == Some(scene.pod_mac))
        .map(|it| it["dst"].as_str().unwrap().to_owned())
        .collect();
    assert!(taught.contains(&"10.88.0.99".to_owned()), "by ARP: {taught:?}");
    assert!(taught.contains(&"fd00:88::99".to_owned()), "by neighbour discovery: {taught:?}");
    let default = ip::routes(node, "-6 default proto ra");
    assert!(default.iter().any(|it| it["dev"] == link.as_str()), "by router advertisement: {default:?}");
}
