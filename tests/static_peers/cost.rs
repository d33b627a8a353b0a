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

/// An ADD lists the routes of its network and sets none that stands: its requests do not grow with the peers, only the
/// kernel's answer does.
#[test]
fn five_thousand_peers_cost_an_add_as_many_requests_as_five() {
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
    assert!(many.bytes_received > few.bytes_received + 10_000 * 44, "all were listed: {many:?}");
}

/// Routes of other protocols are left out by the kernel, not by ADD.
#[test]
fn other_peoples_routes_cost_an_add_nothing() {
    let underlay = Underlay::new(1);
    let node = &underlay.nodes[0];
    let conf = conf(node, "podnet", 0, (0..5).map(silent_peer).collect());
    add_one(node, &conf, "first");
    let before = overhear(node, &conf, "before");
    let foreign: String =
        (0..200).map(|n| format!("route add 12.0.{n}.0/24 via 192.168.77.200 proto 186\n")).collect();
    node.namespace().ip_batch(&foreign);
    let after = overhear(node, &conf, "after");
    assert_eq!((after.datagrams_sent, after.bytes_sent), (before.datagrams_sent, before.bytes_sent));
    // One more pod has two routes by now; 200 foreign ones would be ten kilobytes.
    assert!(after.bytes_received < before.bytes_received + 1000, "{after:?} against {before:?}");
}

/// A rack that is down is tried again by each ADD, all of it at once, and told in a few lines.
#[test]
fn unreachable_peers_are_tried_at_once_and_logged_in_few_lines() {
    let underlay = Underlay::new(1);
    let node = &underlay.nodes[0];
    node.namespace().ip_batch("address flush dev up0\naddress add 10.99.0.1/24 dev up0\n");
    let with = |count| {
        let mut conf = conf(node, "podnet", 0, (0..count).map(silent_peer).collect());
        conf.as_object_mut().unwrap().remove("nodeIPs");
        conf
    };
    // The first makes the node's part.
    add_one(node, &with(0), "one");
    let alone = overhear(node, &with(0), "none");
    let all_bad = with(300);
    for container in ["first", "second"] {
        let told = add_one(node, &all_bad, container);
        assert!(told.contains("peer=silent-0 ") && told.contains("more=584"), "{told}");
        assert_eq!(told.lines().count(), 17, "{told}");
    }
    assert_eq!(peer_routes(node), [""; 0]);
    let among_bad = overhear(node, &all_bad, "bad");
    // 600 routes, 64 in a datagram; a look at why for those that are told; and two at the way to the first peer.
    let more = among_bad.datagrams_sent - alone.datagrams_sent;
    assert!((10..=10 + 16 + 2).contains(&more), "{among_bad:?} against {alone:?}");
}
