//! A node of which nothing can be made: its Node lacks a podCIDR, or an address, or is not there. Said in the log, as an
//! event, and in the Node's condition NetworkUnavailable, because each is where somebody looks.
//!
//! A new Node lacks them for a moment in every cluster, so this waits a little.

use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

use crate::agent::cluster::index::{Index, Problem};
use crate::agent::k8s::events::EventRecorder;

/// How long a Node may lack what its controllers give it.
const SETTLE: Duration = Duration::from_secs(10);

/// How often it is said again to whoever did not hear it: the events of a Node expire after an hour.
const AGAIN: Duration = Duration::from_secs(60);

/// Whether this node lacks something, and since when.
#[derive(Debug, Default)]
pub struct OwnNodeLacks {
    since: Option<Instant>,
    /// What was said last, and when.
    told: Option<(Lack, Instant)>,
}

/// What is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Lack {
    /// In one word, `PascalCase`.
    reason: &'static str,
    /// For people: what, and who can put it right.
    message: String,
    /// Whether pods start here by another network: then the condition is not the agent's to set.
    is_ready: bool,
}

impl OwnNodeLacks {
    /// Tells what is missing, once it has been missing for a while, and again now and then.
    pub fn tell(&mut self, now: Instant, index: &Index, name: &str, recorder: Option<&EventRecorder>) {
        let since = *self.since.get_or_insert(now);
        let lack = Lack::of(index, name);
        let is_due = match &self.told {
            Some((told, at)) => *told != lack || now.duration_since(*at) >= AGAIN,
            None => now.duration_since(since) >= SETTLE,
        };
        if !is_due {
            return;
        }
        if self.told.as_ref().is_none_or(|(told, _)| *told != lack) {
            warn!(node = name, reason = lack.message, "no pod can start on this node");
        }
        if let Some(recorder) = recorder {
            recorder.warn(lack.reason, format!("no pod can start on this node: {}", lack.message));
            let was_unavailable = self.told.as_ref().is_some_and(|(told, _)| !told.is_ready);
            if !lack.is_ready {
                recorder.set_network_unavailable(true, lack.reason, &lack.message);
            } else if was_unavailable && index.own().is_some() {
                let message = "the Node is Ready, by another network than ferrule";
                recorder.set_network_unavailable(false, "NodeIsReady", message);
            }
        }
        self.told = Some((lack, now));
    }

    /// Nothing is missing, or nothing any more.
    pub fn over(&mut self, name: &str) {
        self.since = None;
        if self.told.take().is_some() {
            info!(node = name, "own Node has what pods need");
        }
    }
}

impl Lack {
    fn of(index: &Index, name: &str) -> Self {
        let Some(own) = index.own() else {
            let message = format!(
                "the API server has no Node named {name}; FERRULE_NODE_NAME has to be spec.nodeName of the agent's pod, \
                 and kubelet has to have registered the Node"
            );
            return Self { reason: "NodeNotFound", message, is_ready: true };
        };
        let problems = index.assess(name).problems;
        let reason = if problems.contains(&Problem::NoPodCidr) { "NoPodCIDR" } else { "NodeLacksNetwork" };
        let words: Vec<String> = problems.iter().map(ToString::to_string).collect();
        Self { reason, message: format!("its Node {}", words.join("; ")), is_ready: own.condition.ready }
    }
}
