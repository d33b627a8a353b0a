//! The connection to the API server: what goes over it, and its end.

use std::time::{Duration, Instant};

use super::node::{AgentNode, other};
use kit::nft;

/// Whoever waits for the end of a watch waits five minutes at least.
const PATIENCE: Duration = Duration::from_secs(240);

#[test]
fn long_lists_come_compressed_to_a_client_that_has_a_name() {
    let mut node = AgentNode::new("compressed");
    let numbers: Vec<u8> = (11..90).collect();
    for number in &numbers {
        node.api.put(other(*number));
    }
    node.start_ready();
    node.wait_for_routes_to(&numbers);
    assert!(node.api.compressed() > 0, "{}", node.log());
    let name = format!("ferruled/{}", env!("CARGO_PKG_VERSION"));
    assert_eq!(node.api.clients().into_iter().collect::<Vec<_>>(), [name]);
    // What is compressed ends well, and so does what follows it on the same connection.
    node.api.put(other(90));
    node.wait("one more", || node.peer_routes().iter().any(|it| it.starts_with("10.244.90.0/24")));
}

/// Its packets are lost: no FIN and no RST says that it is gone, and no watch is at its end.
#[test]
fn a_peer_that_vanishes_is_noticed_and_found_again() {
    let mut node = AgentNode::new("vanished");
    node.api.put(other(11));
    node.start_ready();
    node.wait_for_routes_to(&[11]);
    assert_eq!(node.metric("ferrule_api_up"), Some(1.0));
    let port = node.api.port();
    let lose = format!(
        "table inet lose {{ chain in {{ type filter hook input priority 0; tcp dport {port} drop; tcp sport {port} drop; }}; }}"
    );
    nft::load(&node.namespace, &lose);
    let took = node.wait_within(PATIENCE, "word of it", || node.metric("ferrule_api_up") == Some(0.0));
    println!("noticed after {took:?}");
    node.api.put(other(12));
    node.nft("delete table inet lose");
    node.wait_for_routes_to(&[11, 12]);
    node.wait_for_metric("ferrule_api_up", 1.0);
}

/// It would ask thousands of times a second.
#[test]
fn watches_that_end_at_once_are_asked_for_ever_less_often() {
    let mut node = AgentNode::new("cut-short");
    node.start_ready();
    node.wait_for_metric("ferrule_api_up", 1.0);
    node.api.end_watches(true);
    node.wait_for_metric("ferrule_api_up", 0.0);
    let (_, before) = node.api.lists_and_watches();
    node.wait("some more", || node.api.lists_and_watches().1 > before + 3);
    assert!(node.log().contains("ended at once"), "{}", node.log());
    let (began, (_, before)) = (Instant::now(), node.api.lists_and_watches());
    node.wait("some more", || node.api.lists_and_watches().1 > before + 3);
    assert!(began.elapsed() > Duration::from_millis(500), "four watches in {:?}", began.elapsed());
    node.api.end_watches(false);
    node.wait_for_metric("ferrule_api_up", 1.0);
    node.api.put(other(11));
    node.wait_for_routes_to(&[11]);
}

/// No Node changes for minutes in a cluster that is at rest.
#[test]
fn a_watch_that_begins_again_is_word_enough() {
    let mut node = AgentNode::new("resumed");
    node.start_ready();
    node.wait_for_metric("ferrule_api_up", 1.0);
    let (lists, _) = node.api.lists_and_watches();
    node.api.be_away(true);
    node.wait_for_metric("ferrule_api_up", 0.0);
    node.api.be_away(false);
    node.wait_for_metric("ferrule_api_up", 1.0);
    node.wait("word of it", || node.log().contains("API server reachable again"));
    assert_eq!(node.api.lists_and_watches().0, lists, "it goes on from where it was");
}
