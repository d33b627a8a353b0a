//! Writes to the API server: events of this Node, its condition `NetworkUnavailable`, and that its startup taint goes.
//!
//! A task of its own, so that an API server that does not answer never holds up what the node needs. What it refuses, or
//! does not answer, is written again until it is there.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, info, warn};

mod taint;

use crate::agent::backoff::Backoff;
use crate::agent::k8s::watched_node::WatchedNode;

/// How long the same event is not repeated.
const QUIET: Duration = Duration::from_secs(600);

/// How many notices wait for the task, and how many events for the API server. What comes beyond is in the log all the
/// same.
const WAITING: usize = 64;

/// How many different events are remembered as written.
const REMEMBERED: usize = 1024;

/// How long the API server may take.
const PATIENCE: Duration = Duration::from_secs(10);

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
    /// The startup taint goes, which is at this place among the Node's taints.
    RemoveTaint(usize),
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

    /// Has the startup taint removed. To be repeated as long as the Node has it.
    pub fn remove_startup_taint(&self, place: usize) {
        self.send(Notice::RemoveTaint(place));
    }

    fn send(&self, notice: Notice) {
        if self.0.try_send(notice).is_err() {
            debug!("event queue full, event not written");
        }
    }
}

/// What the condition `NetworkUnavailable` is to say.
#[derive(Debug, Default)]
struct Condition {
    status: &'static str,
    reason: &'static str,
    message: String,
}

/// What is to be written, and what was.
struct Writer {
    nodes: Api<WatchedNode>,
    events: Api<Event>,
    node: String,
    condition: Condition,
    /// When the condition is set, if it is to be.
    condition_at: Option<Instant>,
    condition_failures: Backoff,
    /// Reason of the last failure to set it: it is logged once.
    condition_reason: String,
    /// Events that are not written yet, the oldest first.
    waiting: VecDeque<(&'static str, String, Event)>,
    events_at: Option<Instant>,
    event_failures: Backoff,
    /// Reason of the last failure to write one, as of the condition.
    event_reason: String,
    written: HashMap<(&'static str, String), Instant>,
    /// Place of the startup taint, if it is to go.
    taint: Option<usize>,
    taint_failures: Backoff,
    taint_reason: String,
    client: Client,
}

async fn write_notices(client: Client, node: String, mut notices: mpsc::Receiver<Notice>) {
    let mut writer = Writer {
        nodes: Api::all(client.clone()),
        taint: None,
        taint_failures: Backoff::default(),
        taint_reason: String::new(),
        client: client.clone(),
        // Of what is in no namespace, events are in this one.
        events: Api::namespaced(client, "default"),
        node,
        condition: Condition::default(),
        condition_at: None,
        condition_failures: Backoff::default(),
        condition_reason: String::new(),
        waiting: VecDeque::new(),
        events_at: None,
        event_failures: Backoff::default(),
        event_reason: String::new(),
        written: HashMap::new(),
    };
    loop {
        let at = [writer.condition_at, writer.events_at].into_iter().flatten().min();
        tokio::select! {
            notice = notices.recv() => match notice {
                Some(notice) => {
                    writer.take(notice);
                    taint::remove(&mut writer).await;
                }
                None => return,
            },
            () = sleep_until(at.unwrap_or_else(Instant::now)), if at.is_some() => writer.write().await,
        }
    }
}

impl Writer {
    /// A condition is set at once; events wait if the API server has refused some.
    fn take(&mut self, notice: Notice) {
        let now = Instant::now();
        match notice {
            Notice::Condition { is_unavailable, reason, message } => {
                let status = if is_unavailable { "True" } else { "False" };
                self.condition = Condition { status, reason, message };
                self.condition_failures.succeed();
                self.condition_at = Some(now);
            }
            Notice::RemoveTaint(place) => self.taint = Some(place),
            Notice::Event { is_warning, reason, note } => {
                self.written.retain(|_, at| now.duration_since(*at) < QUIET);
                let is_waiting = self.waiting.iter().any(|it| it.0 == reason && it.1 == note);
                let is_known = is_waiting || self.written.contains_key(&(reason, note.clone()));
                if is_known || self.written.len() >= REMEMBERED {
                    return;
                }
                if self.waiting.len() >= WAITING {
                    self.waiting.pop_front();
                }
                let event = event(&self.node, is_warning, reason, note.clone());
                self.waiting.push_back((reason, note, event));
                self.events_at.get_or_insert(now);
            }
        }
    }

    /// Writes what is due.
    async fn write(&mut self) {
        let now = Instant::now();
        if self.condition_at.take_if(|at| *at <= now).is_some() {
            self.set_condition().await;
        }
        if self.events_at.take_if(|at| *at <= now).is_some() {
            self.write_events().await;
        }
    }

    /// Sets the condition, or does so again after a pause that grows to a minute.
    async fn set_condition(&mut self) {
        let now = Timestamp::now().to_string();
        let Condition { status, reason, message } = &self.condition;
        let condition = json!({
            "type": "NetworkUnavailable", "status": status, "reason": reason, "message": message,
            "lastHeartbeatTime": now, "lastTransitionTime": now,
        });
        let patch = Patch::Strategic(json!({ "status": { "conditions": [condition] } }));
        let parameters = PatchParams::default();
        let reason = match timeout(PATIENCE, self.nodes.patch_status(&self.node, &parameters, &patch)).await {
            Ok(Ok(_)) => {
                self.condition_failures.succeed();
                self.condition_reason.clear();
                return info!(condition = "NetworkUnavailable", status, "node condition set");
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "timeout".to_owned(),
        };
        self.condition_failures.fail(Instant::now());
        self.condition_at = self.condition_failures.at();
        let attempts = self.condition_failures.failures();
        debug!(condition = "NetworkUnavailable", attempts, "node condition to be set again");
        if self.condition_reason != reason {
            warn!(condition = "NetworkUnavailable", reason, "node condition not set, will retry");
            self.condition_reason = reason;
        }
    }

    /// Writes the events that wait, until one fails: it is written again after a pause that grows to a minute.
    async fn write_events(&mut self) {
        while let Some((reason, note, event)) = self.waiting.front() {
            let parameters = PostParams::default();
            let why = match timeout(PATIENCE, self.events.create(&parameters, event)).await {
                Ok(Ok(_)) => None,
                // It would be refused for ever.
                Ok(Err(kube::Error::Api(status))) if [400, 413, 422].contains(&status.code) => {
                    debug!(event = reason, reason = %status, "event not accepted");
                    None
                }
                Ok(Err(error)) => Some(error.to_string()),
                Err(_) => Some("timeout".to_owned()),
            };
            if let Some(why) = why {
                debug!(event = reason, reason = why, "event not written, will retry");
                if self.event_reason != why {
                    warn!(event = reason, reason = why, "events not written, will retry");
                    self.event_reason = why;
                }
                self.event_failures.fail(Instant::now());
                self.events_at = self.event_failures.at();
                return;
            }
            self.written.insert((*reason, note.clone()), Instant::now());
            self.waiting.pop_front();
            self.event_failures.succeed();
            self.event_reason.clear();
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
