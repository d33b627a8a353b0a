//! A range that has run out, and pods that start all at once.

use std::path::Path;

use serde_json::json;

use crate::harness::call::{Call, Running};
use crate::harness::files::Scratch;
use crate::harness::netns::Namespace;
use crate::harness::store::Store;

/// A /28 without network, broadcast and gateway.
const CAPACITY: usize = 13;

/// After a restart of the node all pods start together, and the first of them to find the range full makes
/// room for all: none may be told that there is none because another one is at it (k8s#57280).
#[test]
fn pods_that_find_a_range_full_of_dead_ones_together_all_get_an_address() {
    let alive = Namespace::new("alive");
    for round in 0..8 {
        let data_dir = Scratch::new("full");
        let gone = Namespace::new("gone");
        let refused = add_at_once(data_dir.path(), &format!("gone-{round}"), &gone);
        assert_eq!(refused, Vec::<String>::new());
        drop(gone);
        // An hour: young records are not yet judged.
        let store = Store::of(data_dir.path(), "podnet");
        store.rewrite_records(|record| record["created"] = json!(record["created"].as_u64().unwrap() - 3600));
        let refused = add_at_once(data_dir.path(), &format!("alive-{round}"), &alive);
        assert_eq!(refused, Vec::<String>::new(), "round {round}");
        let names = store.known();
        assert_eq!(names.len(), CAPACITY);
        assert!(names.iter().all(|name| name.starts_with("alive-")), "{names:?}");
    }
}

/// Asks for an address for as many containers as the range has addresses, all at the same time, as the main
/// plugin `bridge` would; gives the refusals.
fn add_at_once(data_dir: &Path, word: &str, netns: &Namespace) -> Vec<String> {
    let conf = json!({ "cniVersion": "1.0.0", "name": "podnet", "type": "bridge", "ipam": {
        "type": "ferrule", "dataDir": data_dir, "ranges": [[{ "subnet": "10.244.1.0/28" }]] } });
    let add = Call::ferrule("ADD").env("CNI_PATH", "/opt/cni/bin").silent_stdin();
    let call = |number| add.clone().attachment(&format!("{word}-{number}"), netns.path());
    let mut running: Vec<_> = (0..CAPACITY).map(|number| call(number).spawn()).collect();
    running.iter_mut().for_each(|one| one.end_silence(&conf));
    let answers = running.into_iter().map(Running::wait);
    answers.filter(|answer| !answer.status.success()).map(|answer| answer.text()).collect()
}
