//! What the container runtime knows: the pods that it has, those that it is attaching, and so what GC is told.
//!
//! The specification wants no ADD under way while GC runs. Runtimes do not keep to that, and neither does this one. A
//! careful GC names every attachment that stands, that is being made, or that may be begun before its end: none of them
//! may be touched. A careless one names only those that stand. What is begun, or finished, around it may be collected
//! or not, as the specification lets it; but whole.

use crate::system::lock;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Mutex;

/// How many attachments may be begun during one careful GC. One more counts as overlooked.
const AHEAD: u64 = 512;

/// A pod, as its runtime sees it.
#[derive(Debug, Clone)]
pub struct Pod {
    /// Container id.
    pub id: String,
    /// Where its namespace is, or was.
    pub netns: PathBuf,
    /// Whether that is still there.
    pub has_namespace: bool,
    /// What its ADD is asked for besides: `portMappings` and `bandwidth`.
    pub wishes: Value,
    /// The result of its ADD.
    pub result: Value,
}

/// The runtime's memory, shared by all callers.
#[derive(Default)]
pub struct Runtime(Mutex<Memory>);

#[derive(Default)]
struct Memory {
    next: u64,
    begun: BTreeSet<String>,
    standing: BTreeMap<String, Pod>,
    /// A GC is under way that names no attachment from this number on.
    collecting_from: Option<u64>,
    overlooked: BTreeSet<String>,
}

impl Runtime {
    /// The id of a container that is about to be attached.
    pub fn begin(&self) -> String {
        let mut memory = lock(&self.0);
        let number = memory.next;
        memory.next += 1;
        let id = format!("{number:064x}");
        memory.begun.insert(id.clone());
        if memory.collecting_from.is_some_and(|first| number >= first) {
            memory.overlooked.insert(id.clone());
        }
        id
    }

    /// Its ADD has succeeded. Whether a GC that did not name it may have come between, and so may have removed it.
    pub fn stands(&self, pod: &Pod) -> bool {
        let mut memory = lock(&self.0);
        memory.begun.remove(&pod.id);
        memory.standing.insert(pod.id.clone(), pod.clone());
        memory.overlooked.remove(&pod.id)
    }

    /// It is no attachment any more, or is about to be none: from now on GC may take it.
    pub fn forget(&self, id: &str) {
        let mut memory = lock(&self.0);
        memory.begun.remove(id);
        memory.standing.remove(id);
        memory.overlooked.remove(id);
    }

    /// Its namespace went away; that it ended nobody has told.
    pub fn lost_namespace(&self, id: &str) {
        if let Some(pod) = lock(&self.0).standing.get_mut(id) {
            pod.has_namespace = false;
        }
    }

    /// A GC begins: what it is to be told.
    pub fn begin_collection(&self, is_careful: bool) -> Value {
        let mut memory = lock(&self.0);
        let mut valid: Vec<String> = memory.standing.keys().cloned().collect();
        if is_careful {
            valid.extend(memory.begun.iter().cloned());
            valid.extend((memory.next..memory.next + AHEAD).map(|number| format!("{number:064x}")));
            memory.collecting_from = Some(memory.next + AHEAD);
        } else {
            let begun = memory.begun.clone();
            memory.overlooked.extend(begun);
            memory.collecting_from = Some(0);
        }
        valid.iter().map(|id| json!({ "containerID": id, "ifname": "eth0" })).collect()
    }

    /// It has ended.
    pub fn end_collection(&self) {
        lock(&self.0).collecting_from = None;
    }

    /// The pods that stand. Between two deeds that is all that there are.
    pub fn pods(&self) -> Vec<Pod> {
        lock(&self.0).standing.values().cloned().collect()
    }
}
