//! Connections that conntrack does not know: at a pod that is isolated in one direction, none begins in its middle.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::Duration;

use super::scene::{Planning, Scene, anyone, connects};
use crate::nftables::table::world::Pod;
use kit::netns::{Namespace, inside};
use kit::traffic::{BRIEF, PATIENT, Server};

/// Client, server.
type Ends = [TcpStream; 2];

fn connect(from: &Namespace, to: &Pod, address: &str) -> Ends {
    let listener = inside(&to.namespace, || TcpListener::bind((address, 0)).unwrap());
    let at = listener.local_addr().unwrap();
    let client = inside(from, || TcpStream::connect(at).unwrap());
    [client, listener.accept().unwrap().0]
}

/// Whether a byte comes from one end to the other.
fn comes(ends: &Ends, from: usize, patience: Duration) -> bool {
    let (mut from, mut to) = (&ends[from], &ends[1 - from]);
    to.set_read_timeout(Some(patience)).unwrap();
    from.write_all(b"x").is_ok() && to.read_exact(&mut [0]).is_ok()
}

fn plan() -> Planning {
    Planning::default().chain("pi-1", &[], &[anyone()]).chain("po-1", &[], &[anyone()])
}

/// Everything is allowed, but nobody knows who began.
#[test]
fn what_nobody_knows_ends_at_isolated_pods_only() {
    let mut scene = Scene::new();
    let _server = Server::tcp(&scene.b.namespace, 80, "b");
    for (ingress, egress, goes_on) in
        [("none", "po-1", false), ("pi-1", "none", false), ("", "", true), ("none", "", true)]
    {
        scene.apply(&plan().pod("b", ingress, egress).hold("closed", "closed").0);
        let Scene { a, b, world, .. } = &scene;
        for address in ["10.244.1.11", "fd00:1::11"] {
            for (peer, first) in
                [(&a.namespace, 0), (&a.namespace, 1), (&world.outside, 0), (&world.outside, 1)]
            {
                let what = format!("{ingress:?} {egress:?}: {} to {address}, {first} sends", peer.name());
                let ends = connect(peer, b, address);
                assert!(comes(&ends, 0, PATIENT) && comes(&ends, 1, PATIENT), "{what}");
                world.node.sh("conntrack -F 2>/dev/null");
                let patience = if goes_on { PATIENT } else { BRIEF };
                assert_eq!(comes(&ends, first, patience), goes_on, "{what}");
                // Retransmissions of the first do not help the other.
                assert_eq!(comes(&ends, 1 - first, patience), goes_on, "{what}, then the other");
            }
            assert!(connects(&a.namespace, address, 80), "a new one");
        }
    }
}

/// Whoever closes first, and on whichever side the isolated pod is.
#[test]
fn connections_of_isolated_pods_end_as_others_do() {
    let mut scene = Scene::new();
    for (ingress, egress) in [("none", "po-1"), ("pi-1", "none"), ("pi-1", "po-1")] {
        scene.apply(&plan().pod("b", ingress, egress).hold("closed", "closed").0);
        let Scene { a, b, c, .. } = &scene;
        for address in ["10.244.1.11", "fd00:1::11", "10.244.1.12", "fd00:1::12"] {
            let (from, to) = if address.ends_with('1') { (a, b) } else { (b, c) };
            for first in [0, 1] {
                let ends = connect(&from.namespace, to, address);
                assert!(comes(&ends, 0, PATIENT) && comes(&ends, 1, PATIENT), "{address}");
                for end in [first, 1 - first] {
                    ends[end].shutdown(Shutdown::Write).unwrap();
                    let (mut other, mut rest) = (&ends[1 - end], Vec::new());
                    other.set_read_timeout(Some(PATIENT)).unwrap();
                    assert_eq!(other.read_to_end(&mut rest).ok(), Some(0), "{address}: the end of {end}");
                }
            }
            let unfinished = "! ss -Htan state connected exclude time-wait | grep .";
            for namespace in [&from.namespace, &to.namespace] {
                namespace.sh(&format!("timeout 10 bash -c 'until {unfinished}; do sleep 0.05; done'"));
            }
        }
    }
}
