//! Kubelet's probes are answered on the loopback, whatever the agent listens on and whoever holds that.

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use ferrule::linux::netns::Netns;

use super::node::AgentNode;

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
fn whoever_holds_the_metrics_port_holds_no_probe() {
    let mut node = AgentNode::new("held");
    node.listen = ":9690".into();
    node.start();
    node.wait("readiness", || is_answered(&node, "/readyz"));
    let others = Netns::open(node.others.path()).unwrap();
    node.others.ip("address add 192.0.2.66/24 dev eth0");
    let held: Vec<TcpStream> = others
        .run(|| {
            let address = "192.0.2.10:9690".parse().unwrap();
            // Once the backlog is full as well, nobody gets through any more.
            let connect = |_| TcpStream::connect_timeout(&address, Duration::from_millis(500)).ok();
            let mut held: Vec<TcpStream> = (0..400).map_while(connect).collect();
            for stream in held.iter_mut().take(20) {
                let _ = stream.write_all("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n".repeat(100).as_bytes());
            }
            held
        })
        .unwrap();
    assert!(held.len() > 100, "{}", held.len());
    for path in ["/healthz", "/readyz"] {
        assert!(is_answered(&node, path), "{path}");
    }
    // Nobody else reaches that port.
    let refused = others.run(|| TcpStream::connect(("192.0.2.10", PROBES)).is_err()).unwrap();
    assert!(refused);
    drop(held);
}
