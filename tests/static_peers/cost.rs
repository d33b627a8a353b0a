//! What thousands of peers cost an ADD.

use std::fs;

use serde_json::Value;

use super::{add_one, conf, peer_routes, silent_peer};
use kit::node::Node;
use kit::pod::Pod;
use kit::underlay::Underlay;

/// What an ADD said to the kernel and heard from it over netlink.
#[derive(Debug, PartialEq, Eq)]
struct Conversation {
    datagrams_sent: usize,
    bytes_sent: u64,
    bytes_received: u64,
}

/// Watches an ADD with strace, a reader that is not the code under test.
fn overhear(node: &Node, conf: &Value, container: &str) -> Conversation {
    let trace = node.scratch().path().join(container);
    let trace_path = trace.display().to_string();
    let strace =
        ["strace", "-f", "-e", "trace=sendto,sendmsg,recvfrom,recvmsg", "-s", "0", "-o", &trace_path];
    node.call_for("ADD", &Pod::with_container(container), conf).through(strace).run().success();
    let trace = fs::read_to_string(trace).unwrap();
    let calls = |names: [&str; 2]| -> Vec<u64> {
        let of_names = |line: &&str| names.iter().any(|name| line.contains(&format!(" {name}(")));
        let result = |line: &str| line.rsplit_once(" = ").and_then(|(_, result)| result.parse().ok());
        trace.lines().filter(of_names).filter_map(result).collect()
    };
    let (sent, received) = (calls(["sendto", "sendmsg"]), calls(["recvfrom", "recvmsg"]));
    Conversation {
        datagrams_sent: sent.len(),
        bytes_sent: sent.iter().sum(),
        bytes_received: received.iter().sum(),
    }
}

/// With per-node work in ADD, big clusters start pods slowly: what an ADD asks of the kernel must not grow with them.
#[test]
fn five_thousand_peers_are_applied_at_once_and_then_cost_an_add_as_many_messages_as_five() {
    let few = Underlay::new(1);
    let many = Underlay::new(1);
    let heard = [(&few, 5), (&many, 5000)].map(|(underlay, count)| {
        let node = &underlay.nodes[0];
        let conf = conf(node, "podnet", 0, (0..count).map(silent_peer).collect());
        assert_eq!(add_one(node, &conf, "first"), "");
        assert_eq!(peer_routes(node).len(), 2 * count);
        overhear(node, &conf, "second")
    });
    let [few, many] = heard;
    assert!(few.datagrams_sent > 5 && few.bytes_received > 500, "strace saw it: {few:?}");
    assert_eq!((many.datagrams_sent, many.bytes_sent), (few.datagrams_sent, few.bytes_sent));
    // Interface indexes and addresses are as long everywhere; what differs is padding at most.
    assert!(many.bytes_received <= few.bytes_received + 100, "{many:?} against {few:?}");
}

/// A whole rack that is down must not make each ADD try thousands of routes again.
#[test]
fn peers_that_cannot_be_reached_cost_the_next_add_nothing_however_many_they_are() {
    let underlay = Underlay::new(1);
    let node = &underlay.nodes[0];
    node.namespace().ip_batch("address flush dev up0\naddress add 10.99.0.1/24 dev up0\n");
    let with = |count| {
        let mut conf = conf(node, "podnet", 0, (0..count).map(silent_peer).collect());
        conf.as_object_mut().unwrap().remove("nodeIPs");
        conf
    };
    let none = with(0);
    add_one(node, &none, "first-of-none");
    let alone = overhear(node, &none, "none");
    let all_bad = with(300);
    let told = add_one(node, &all_bad, "first-of-bad");
    assert!(told.contains("silent-0") && told.contains("and 584 more"), "{told}");
    assert!(told.lines().count() < 20, "{told}");
    assert_eq!(peer_routes(node), [""; 0]);
    let among_bad = overhear(node, &all_bad, "bad");
    assert_eq!(among_bad.datagrams_sent, alone.datagrams_sent, "{among_bad:?} against {alone:?}");
}
