//! SCTP by its own packets: to send and to see one needs no SCTP in the kernel.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketType, recv, sendto, socket};
use std::num::NonZeroU32;
use std::os::fd::OwnedFd;

use super::scene::{Planning, Scene, anyone, peers, port, range};
use kit::netns::{Namespace, inside};
use kit::traffic::{BRIEF, PATIENT};

const SCTP: u8 = 132;
const SENDER: u16 = 40_000;

#[test]
fn sctp_is_judged_by_its_ports() {
    let mut scene = Scene::new();
    let ports = [port(SCTP, 3868, &[anyone()]), range(SCTP, 5000, 5003, &[peers("peers-1")])];
    let plan = Planning::default()
        .pods("peers-1", &["10.244.1.10", "fd00:1::10"])
        .chain("pi-1", &ports, &[])
        .chain("po-1", &[port(SCTP, 9000, &[anyone()])], &[])
        .pod("a", "", "po-1")
        .pod("b", "pi-1", "");
    let Scene { a, b, c, .. } = &scene;
    for (to, at) in [("10.244.1.11", b), ("fd00:1::11", b), ("10.244.1.12", c)] {
        assert!(arrives(PATIENT, &a.namespace, &at.namespace, to, 2905), "before any policy: {to}");
    }
    scene.apply(&plan.0);
    let Scene { a, b, c, .. } = &scene;
    for to in ["10.244.1.11", "fd00:1::11"] {
        for (number, is_allowed) in [(3868, true), (3869, false), (4999, false), (5000, false), (5003, false)]
        {
            let patience = if is_allowed { PATIENT } else { BRIEF };
            assert_eq!(
                arrives(patience, &c.namespace, &b.namespace, to, number),
                is_allowed,
                "c to {to} {number}"
            );
        }
    }
    // Whom one end lets in, the other must let out.
    assert!(!arrives(BRIEF, &a.namespace, &b.namespace, "10.244.1.11", 5000));
    assert!(!arrives(BRIEF, &a.namespace, &c.namespace, "10.244.1.12", 9001));
    assert!(arrives(PATIENT, &a.namespace, &c.namespace, "10.244.1.12", 9000));
    let open = Planning(plan.0).pod("a", "", "");
    scene.apply(&open.0);
    let Scene { a, b, .. } = &scene;
    for to in ["10.244.1.11", "fd00:1::11"] {
        assert!(arrives(PATIENT, &a.namespace, &b.namespace, to, 5000));
        assert!(arrives(PATIENT, &a.namespace, &b.namespace, to, 5003));
        assert!(!arrives(BRIEF, &a.namespace, &b.namespace, to, 5004));
    }
}

/// Whether the first packet of an association comes through.
fn arrives(patience: Duration, from: &Namespace, at: &Namespace, to: &str, port: u16) -> bool {
    let to: IpAddr = to.parse().unwrap();
    let packet = init(port);
    let receiver = inside(at, || raw(to));
    set_socket_timeout(&receiver, Timeout::Recv, Some(Duration::from_millis(20))).unwrap();
    let sender = inside(from, || raw(to));
    let begin = Instant::now();
    let mut buffer = [0; 256];
    while begin.elapsed() < patience {
        // Again and again, as SCTP does.
        let _ = sendto(&sender, &packet, SendFlags::empty(), &SocketAddr::new(to, 0));
        // With IPv4 the header of IP comes before.
        if let Ok((length, _)) = recv(&receiver, &mut buffer, RecvFlags::empty())
            && buffer[..length].ends_with(&packet)
        {
            return true;
        }
    }
    false
}

fn raw(to: IpAddr) -> OwnedFd {
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let protocol = Protocol::from_raw(NonZeroU32::from(std::num::NonZeroU8::new(SCTP).unwrap()));
    socket(family, SocketType::RAW, Some(protocol)).unwrap()
}

/// An INIT chunk behind the common header (RFC 9260, 3.1 and 3.3.2).
fn init(port: u16) -> Vec<u8> {
    let mut packet = [SENDER.to_be_bytes(), port.to_be_bytes()].concat();
    packet.extend([0; 8]);
    packet.extend([1, 0, 0, 20]);
    // Tag, window, streams out and in, first number.
    packet.extend([0, 0, 0, 1, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1]);
    let sum = crc32c(&packet).to_le_bytes();
    packet[8..12].copy_from_slice(&sum);
    packet
}

/// RFC 9260, appendix A.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |sum: u32, _| if sum & 1 == 1 { (sum >> 1) ^ 0x82f6_3b78 } else { sum >> 1 };
    !bytes.iter().fold(u32::MAX, |sum, byte| (0..8).fold(sum ^ u32::from(*byte), step))
}
