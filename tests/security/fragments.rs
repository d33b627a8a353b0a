//! A pod that sends the last fragment of somebody else's datagram: whoever puts the datagram together must not get it.
//!
//! The forged fragment comes first, the honest one last: the kernel takes the link of what came last for that of the
//! whole, so a look at the whole finds nothing wrong.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use kit::frames::{self, Mac, UDP, fragments, mac, udp};
use kit::ip;
use kit::netns::Namespace;
use kit::nft;
use kit::node::{NODE_V4, NODE_V6, Node, OUTSIDE_V4, OUTSIDE_V6};
use kit::pod::{Pod, addresses_of, host_link_of};
use kit::traffic::{BRIEF, PATIENT, receives_udp};

const PORT: u16 = 9000;

/// Bytes of the payload that the first fragment has.
const HEAD: usize = 32;

/// One end of a link, whose frames go to the other end.
struct End<'a> {
    namespace: &'a Namespace,
    link: &'a str,
    to: Mac,
}

impl<'a> End<'a> {
    fn new(namespace: &'a Namespace, link: &'a str, node: &Namespace, other: &str) -> Self {
        Self { namespace, link, to: mac_of(node, other) }
    }

    /// The two fragments of a datagram, as this end writes them.
    fn fragments(&self, source: IpAddr, target: IpAddr, id: u16) -> [Vec<u8>; 2] {
        let datagram = udp(source, target, PORT, &[b'?'; 56]);
        let macs = (self.to, mac_of(self.namespace, self.link));
        fragments(macs, (source, target), (UDP, &datagram), (id, HEAD))
    }

    fn send(&self, frame: &[u8]) {
        frames::send_by(self.namespace, self.link, &[frame.to_vec()]);
    }
}

fn mac_of(namespace: &Namespace, link: &str) -> Mac {
    mac(ip::link(namespace, link).unwrap()["address"].as_str().unwrap())
}

/// No two datagrams of a sender have the same.
fn next_id() -> u16 {
    static ID: AtomicU16 = AtomicU16::new(1);
    ID.fetch_add(1, Ordering::Relaxed)
}

#[test]
fn no_datagram_is_completed_with_a_forged_fragment() {
    let (node, attacker, victim, other) =
        (Node::new(), Pod::new("attacker"), Pod::new("victim"), Pod::new("other"));
    let conf = node.conf();
    let attackers_link = host_link_of(&node.add(&attacker, &conf));
    let (victims, others) = (node.add(&victim, &conf), node.add(&other, &conf));
    let victims_link = host_link_of(&victims);
    let (victims, others) = (addresses_of(&victims), addresses_of(&others));
    let forger = End::new(attacker.namespace(), "eth0", node.namespace(), &attackers_link);
    let pod = End::new(victim.namespace(), "eth0", node.namespace(), &victims_link);
    let outside = End::new(node.outside(), "down", node.namespace(), "uplink");
    let here = node.namespace();
    // Whose datagram, from where to where.
    let cases = [
        (&pod, victims[0].as_str(), other.namespace(), others[0].as_str()),
        (&pod, &victims[1], other.namespace(), &others[1]),
        (&pod, &victims[0], here, NODE_V4),
        (&pod, &victims[1], here, NODE_V6),
        (&outside, OUTSIDE_V4, other.namespace(), &others[0]),
        (&outside, OUTSIDE_V6, other.namespace(), &others[1]),
        (&outside, OUTSIDE_V4, here, NODE_V4),
        (&outside, OUTSIDE_V6, here, NODE_V6),
    ];
    let arrives = |patience: Duration, last: &End<'_>, case: &(&End<'_>, &str, &Namespace, &str)| {
        let (honest, source, receiver, target) = case;
        receives_udp(patience, receiver, target, PORT, || {
            let (from, to, id) = (source.parse().unwrap(), target.parse().unwrap(), next_id());
            last.send(&last.fragments(from, to, id)[1]);
            honest.send(&honest.fragments(from, to, id)[0]);
        })
    };
    for case in &cases {
        assert!(!arrives(BRIEF, &forger, case), "{} to {} is completed", case.1, case.3);
        assert!(arrives(PATIENT, case.0, case), "{} to {}: the honest one arrives", case.1, case.3);
    }
    // The proof that the test can fail.
    nft::run(here, "delete table inet ferrule").unwrap();
    for path in ["all", &attackers_link] {
        here.set_sysctl(&format!("net/ipv4/conf/{path}/rp_filter"), "0");
    }
    for case in &cases {
        assert!(arrives(PATIENT, &forger, case), "{} to {} with nobody to look", case.1, case.3);
    }
}
