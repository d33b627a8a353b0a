//! Kubelet's probes are answered on the loopback, whatever the agent listens on and whoever holds that.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use ferrule::linux::netns::Netns;

use super::node::AgentNode;
use kit::traffic::{PATIENT, ask_tcp_from};

const PROBES: u16 = 9691;

fn is_answered(node: &AgentNode, path: &str) -> bool {
    node.page_at(PROBES, path).is_some_and(|page| page.contains(" 200 "))
}

#[test]
fn probes_are_answered_whatever_is_listened_on() {
    for listen in
        ["127.0.0.1:9690", ":9690", "[fd00:aa::10]:9690", "192.0.2.10:9691", ":9691", "203.0.113.9:9690"]
    {
        let mut node = AgentNode::new("probes");
        node.listen = listen.into();
        node.start();
        node.wait(&format!("readiness with --listen {listen}"), || is_answered(&node, "/readyz"));
        assert!(is_answered(&node, "/healthz"), "{listen}");
    }
}

/// As a pod does it: connections that say nothing, and some that ask and never read.
#[test]
fn a_pod_that_holds_its_connections_keeps_nobody_out() {
    let mut node = AgentNode::new("held");
    node.listen = ":9690".into();
    node.start();
    node.wait("readiness", || is_answered(&node, "/readyz"));
    for address in ["192.0.2.66/24", "192.0.2.67/24", "fd00:aa::66/64 nodad", "fd00:aa::67/64 nodad"] {
        node.others.ip(&format!("address add {address} dev eth0"));
    }
    let others = Netns::open(node.others.path()).unwrap();
    let mut held = Vec::new();
    for address in ["192.0.2.10:9690", "[fd00:aa::10]:9690"] {
        let address = address.parse().unwrap();
        // Were they not taken from the queue, nobody would get through once that is full.
        let connect = |_| TcpStream::connect_timeout(&address, PATIENT).ok();
        let mut mine: Vec<TcpStream> = others.run(|| (0..432).map_while(connect).collect()).unwrap();
        assert_eq!(mine.len(), 432, "all of them are taken from the queue");
        for stream in mine.iter_mut().take(32) {
            let _ = stream.write_all("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n".repeat(100).as_bytes());
        }
        held.extend(mine);
    }
    for path in ["/healthz", "/readyz"] {
        assert!(is_answered(&node, path), "{path}");
    }
    let question = "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    for (source, to) in [("192.0.2.67", "192.0.2.10"), ("fd00:aa::67", "fd00:aa::10")] {
        let page = ask_tcp_from(&node.others, source, to, 9690, question);
        assert!(page.as_ref().is_some_and(|page| page.contains("ferrule_nodes ")), "{source}: {page:?}");
        // By its own address as well the node is itself.
        let page = ask_tcp_from(&node.namespace, to, to, 9690, question);
        assert!(page.is_some_and(|page| page.contains("ferrule_nodes ")), "{to}");
    }
    // Nobody else reaches the port of the probes.
    let refused = others.run(|| TcpStream::connect(("192.0.2.10", PROBES)).is_err()).unwrap();
    assert!(refused);
    drop(held);
}

/// A connection is a place: who is answered has had it, and who takes longer than an answer needs loses it.
#[test]
fn no_connection_lasts() {
    let mut node = AgentNode::new("slow");
    node.start();
    node.wait("readiness", || is_answered(&node, "/readyz"));
    let namespace = Netns::open(node.namespace.path()).unwrap();
    for words in ["GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", "GET /healthz HTTP/1.1\r\nx: "] {
        let mut stream = namespace.run(|| TcpStream::connect(("127.0.0.1", 9690)).unwrap()).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        // A word more each half second, and whatever is answered is read.
        let is_over = (0..60).any(|_| {
            let is_written = stream.write_all(words.as_bytes()).is_ok();
            let is_closed = match stream.read(&mut [0; 4096]) {
                Ok(0) => true,
                Ok(_) => false,
                Err(reason) => reason.kind() != ErrorKind::WouldBlock,
            };
            is_closed || !is_written
        });
        assert!(is_over, "{words}");
    }
}
