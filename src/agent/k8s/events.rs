//! Writes to the API server: events of this Node, and its condition `NetworkUnavailable`.
//!
//! A task of its own, so that an API server that does not answer never holds up what the node needs.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::mpsc;
use tracing::{debug, info, warn};

use crate::agent::k8s::watch::WatchedNode;

/// How long the same event is not repeated.
const QUIET: Duration = Duration::from_secs(600);

/// How many notices wait. What comes beyond is in the log all the same.
const WAITING: usize = 64;

/// How many different events are remembered as written.
const REMEMBERED: usize = 1024;

/// How long the API server may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often a condition is tried to be set before somebody has to ask again.
const ATTEMPTS: u32 = 5;

/// Something to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// An event of this Node.
    Event {
        /// Whether something is wrong.
        is_warning: bool,
        /// In one word, `PascalCase`.
        reason: &'static str,
        /// For people.
        note: String,
    },
    /// The condition `NetworkUnavailable` becomes this.
    Condition {
        /// Its status.
        is_unavailable: bool,
        /// In one word, `PascalCase`.
        reason: &'static str,
        /// For people.
        message: String,
    },
}

/// Takes notices without waiting. Clones reach the same task.
#[derive(Debug, Clone)]
pub struct EventRecorder(mpsc::Sender<Notice>);

impl EventRecorder {
    /// Starts the task.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(client: Client, node: &str) -> Self {
        let (sender, receiver) = mpsc::channel(WAITING);
        tokio::spawn(write_notices(client, node.to_owned(), receiver));
        Self(sender)
    }

    /// Writes an event of type Warning, unless it was written within the last minutes. Never waits.
    pub fn warn(&self, reason: &'static str, note: impl Into<String>) {
        self.send(Notice::Event { is_warning: true, reason, note: note.into() });
    }

    /// Writes an event of type Normal, likewise.
    pub fn tell(&self, reason: &'static str, note: impl Into<String>) {
        self.send(Notice::Event { is_warning: false, reason, note: note.into() });
    }

    /// Has the condition `NetworkUnavailable` set to `False`: pods can have a network here.
    pub fn network_is_available(&self) {
        let message = "ferrule has set up routes, nftables table and network configuration";
        self.set_network_unavailable(false, "FerruleIsUp", message);
    }

    /// Has that condition set, with its reason.
    pub fn set_network_unavailable(&self, is_unavailable: bool, reason: &'static str, message: &str) {
        self.send(Notice::Condition { is_unavailable, reason, message: message.to_owned() });
    }

    fn send(&self, notice: Notice) {
        if self.0.try_send(notice).is_err() {
            debug!("event queue full, event not written");
        }
    }
}

async fn write_notices(client: Client, node: String, mut notices: mpsc::Receiver<Notice>) {
    let api: Api<WatchedNode> = Api::all(client.clone());
    // Of what is in no namespace, events are in this one.
    let events: Api<Event> = Api::namespaced(client, "default");
    let mut written: HashMap<(&'static str, String), Instant> = HashMap::new();
    while let Some(notice) = notices.recv().await {
        match notice {
            Notice::Condition { is_unavailable, reason, message } => {
                let status = if is_unavailable { "True" } else { "False" };
                set_condition(&api, &node, status, reason, &message).await;
            }
            Notice::Event { is_warning, reason, note } => {
                let now = Instant::now();
                written.retain(|_, at| now.duration_since(*at) < QUIET);
                if written.len() >= REMEMBERED || written.insert((reason, note.clone()), now).is_some() {
                    continue;
                }
                let event = event(&node, is_warning, reason, note);
                let parameters = PostParams::default();
                let published = tokio::time::timeout(PATIENCE, events.create(&parameters, &event)).await;
                match published {
                    Ok(Ok(_)) => {}
                    Ok(Err(error)) => debug!(event = reason, reason = %error, "event not written"),
                    Err(_) => debug!(event = reason, reason = "timeout", "event not written"),
                }
            }
        }
    }
}

fn event(node: &str, is_warning: bool, reason: &str, note: String) -> Event {
    // As kubelet does it: `kubectl describe node` finds an event by the node's name in the place of its uid.
    let regarding = ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Node".to_owned()),
        name: Some(node.to_owned()),
        uid: Some(node.to_owned()),
        ..ObjectReference::default()
    };
    Event {
        metadata: ObjectMeta {
            generate_name: Some(format!("{node}.ferrule-")),
            namespace: Some("default".to_owned()),
            ..ObjectMeta::default()
        },
        event_time: Some(MicroTime(Timestamp::now())),
        action: Some(reason.to_owned()),
        reason: Some(reason.to_owned()),
        note: Some(cut(note)),
        regarding: Some(regarding),
        reporting_controller: Some("ferruled".to_owned()),
        reporting_instance: Some(node.to_owned()),
        type_: Some(if is_warning { "Warning" } else { "Normal" }.to_owned()),
        ..Event::default()
    }
}

async fn set_condition(api: &Api<WatchedNode>, node: &str, status: &str, reason: &str, message: &str) {
    let now = Timestamp::now().to_string();
    let condition = json!({
        "type": "NetworkUnavailable", "status": status, "reason": reason, "message": message,
        "lastHeartbeatTime": now, "lastTransitionTime": now,
    });
    let patch = Patch::Strategic(json!({ "status": { "conditions": [condition] } }));
    let mut pause = Duration::from_secs(1);
    for _ in 0..ATTEMPTS {
        let parameters = PatchParams::default();
        match tokio::time::timeout(PATIENCE, api.patch_status(node, &parameters, &patch)).await {
            Ok(Ok(_)) => {
                return info!(condition = "NetworkUnavailable", status, "node condition set");
            }
            Ok(Err(error)) => {
                warn!(condition = "NetworkUnavailable", reason = %error, "node condition not set")
            }
            Err(_) => warn!(condition = "NetworkUnavailable", reason = "timeout", "node condition not set"),
        }
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
}

/// An event's note has at most 1,024 bytes.
fn cut(mut note: String) -> String {
    let mut end = note.len().min(1024);
    while !note.is_char_boundary(end) {
        end -= 1;
    }
    note.truncate(end);
    note
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_that_is_too_long_is_cut_between_letters() {
        assert_eq!(cut("x".repeat(2000)).len(), 1024);
        assert_eq!(cut("xä".repeat(700)).len(), 1024);
        assert_eq!(cut("ä".repeat(700) + "x").len(), 1024);
    }
}
