//! Somebody else's route to the pods of another node wins: it is told, with the command that removes it.

use kit::call::Call;
use serde_json::Value;

use super::node::{AgentNode, other};

/// Each a way to win, as a script that does it, and what takes it back.
const WINNERS: [(&str, &str); 7] = [
    ("ip route add 10.244.11.0/24 via 192.0.2.77 proto static", ""),
    ("ip route add 10.244.11.0/25 via 192.0.2.77", ""),
    ("ip -6 route add fd00:10:11::/64 via fd00:aa::77 metric 20", ""),
    ("ip route add 10.244.11.2 dev eth0", ""),
    ("ip route add blackhole 10.244.11.0/24 metric 5", "ip route delete blackhole 10.244.11.0/24"),
    (
        "ip -6 route add unreachable fd00:10:11::/80 metric 5",
        "ip -6 route delete unreachable fd00:10:11::/80",
    ),
    (
        "ip route add default via 192.0.2.77 table 200; ip rule add to 10.244.11.0/24 lookup 200 priority 100",
        "ip rule delete priority 100",
    ),
];

fn findings(node: &AgentNode) -> Vec<Value> {
    let call = Call::ferrulectl("doctor --output json").on(&node.namespace);
    let call = call.argument("--conf-dir").argument(node.path("net.d"));
    let answer = call.argument("--data-dir").argument(node.path("data")).run();
    answer.document().expect("a document")["findings"].as_array().unwrap().clone()
}

#[test]
fn whatever_wins_over_a_route_to_a_peer_is_told() {
    let mut node = AgentNode::new("overruled");
    node.api.put(other(11));
    node.api.put(other(12));
    // The plugin before left it.
    node.namespace.ip("route add 10.244.12.0/24 via 192.0.2.77");
    node.start_ready();
    node.wait_for_metric("ferrule_routes_overruled", 1.0);
    assert_eq!(node.metric("ferrule_routes_programmed"), Some(3.0));
    node.namespace.ip("route delete 10.244.12.0/24 proto boot");
    node.wait_for_metric("ferrule_routes_overruled", 0.0);
    for (script, undo) in WINNERS {
        node.namespace.sh(script);
        node.wait_for_metric("ferrule_routes_overruled", 1.0);
        node.wait_for_metric("ferrule_routes_programmed", 3.0);
        let told = findings(&node);
        let is_it = |it: &&Value| ["foreign-route", "route-overruled"].iter().any(|id| it["id"] == **id);
        let finding = told.iter().find(is_it).unwrap_or_else(|| panic!("{script}: {told:?}"));
        let remedy = finding["remedy"].as_str().unwrap();
        // What doctor says to do is done.
        match remedy.split_once("any more: ") {
            Some((_, command)) => node.namespace.sh(command),
            None => {
                assert!(remedy.contains("turns packets to"), "{remedy}");
                node.namespace.sh(undo)
            }
        };
        node.wait_for_metric("ferrule_routes_overruled", 0.0);
        assert_eq!(node.metric("ferrule_routes_programmed"), Some(4.0), "{script}");
        node.wait_for_routes_to(&[11, 12]);
    }
    let log = node.log();
    assert!(log.contains("route overruled") && log.contains("no longer overruled"), "{log}");
    node.wait("the event", || {
        let events = node.api.written("/events");
        events
            .iter()
            .any(|it| it["reason"] == "RouteOverruled" && it["note"].to_string().contains("ip route delete"))
    });
}
