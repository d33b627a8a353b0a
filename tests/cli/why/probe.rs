//! `ferrulectl why --probe`: what is said of a packet is what became of it, no application has seen it, and nothing of it is
//! left.

mod dropped;
mod unseen;

use serde_json::Value;

use super::scene::Scene;
use crate::cli::document;
use kit::nft;
use kit::node::Node;

/// The probe of the only flow, by which the verb ends with `status`. No table is left.
fn probe(node: &Node, words: &str, status: i32) -> Value {
    let document = document(node, &format!("why {words} --probe"), status);
    let probes = document["probes"].as_array().unwrap_or_else(|| panic!("{document:#}"));
    assert_eq!(probes.len(), 1, "{document:#}");
    assert!(!has_table(node), "a table is left");
    probes[0].clone()
}

fn has_table(node: &Node) -> bool {
    nft::run(node.namespace(), "list tables").unwrap().contains("ferrule_probe")
}

/// `ADDRESS:PORT` of an end of the scene.
fn door(scene: &Scene, name: &str, ipv4: bool, port: u16) -> String {
    match scene.end(name).address(ipv4).unwrap() {
        address if address.is_ipv4() => format!("{address}:{port}"),
        address => format!("[{address}]:{port}"),
    }
}

#[track_caller]
fn says(probe: &Value, outcome: &str, words: &[&str]) {
    assert_eq!(probe["outcome"], outcome, "{probe:#}");
    let sentence = probe["sentence"].as_str().unwrap();
    for word in words {
        assert!(sentence.contains(word), "{word}: {probe:#}");
    }
}
