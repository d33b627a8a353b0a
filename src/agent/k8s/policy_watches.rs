//! Follows what NetworkPolicies are about: policies, ClusterNetworkPolicies, namespaces, this node's pods, and the pods of all nodes for as long as
//! somebody wants those.
//!
//! A pod that is finished leaves the selection, so it arrives as deleted: its address may be another's at once.

use kube::{Api, Client};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::agent::k8s::policy_objects::{WatchedClusterPolicy, WatchedNamespace, WatchedPod, WatchedPolicy};
use crate::agent::k8s::watch::{ClusterSize, Heard, Selection, Watched, follow};
use crate::policy::object::{Event, Feed};

/// How many messages wait for whoever receives them. What is beyond waits in the connections.
const MESSAGES_WAITING: usize = 64;

/// Pods that are not finished.
const NOT_FINISHED: &str = "status.phase!=Succeeded,status.phase!=Failed";

/// What is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// NetworkPolicies.
    Policies,
    /// ClusterNetworkPolicies, which many clusters do not have.
    ClusterPolicies,
    /// Namespaces.
    Namespaces,
    /// Pods of this node.
    OwnPods,
    /// Pods of all nodes.
    AnyPods,
}

impl Kind {
    /// As a role calls it.
    pub fn resource(self) -> &'static str {
        match self {
            Self::Policies => "networkpolicies.networking.k8s.io",
            Self::ClusterPolicies => "clusternetworkpolicies.policy.networking.k8s.io",
            Self::Namespaces => "namespaces",
            Self::OwnPods | Self::AnyPods => "pods",
        }
    }
}

/// What is sent.
#[derive(Debug)]
pub enum PolicyMessage {
    /// What the API server says.
    Event {
        /// What it says.
        event: Event,
        /// When it said so.
        at: Instant,
    },
    /// The API server has no such resource.
    Absent {
        /// Which.
        kind: Kind,
    },
    /// A watch goes on, after it failed.
    Resumed {
        /// Which.
        kind: Kind,
    },
    /// A watch failed, and is retried.
    Error {
        /// Which.
        kind: Kind,
        /// Why.
        reason: String,
        /// Whether the agent's role lacks it.
        is_refusal: bool,
    },
}

/// The watches.
pub struct PolicyWatches {
    client: Client,
    size: ClusterSize,
    always: mpsc::Receiver<PolicyMessage>,
    any_pods: Option<(mpsc::Receiver<PolicyMessage>, AbortHandle)>,
}

impl PolicyWatches {
    /// Starts those that are always followed.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(client: Client, node: &str, size: ClusterSize) -> Self {
        let (sender, always) = mpsc::channel(MESSAGES_WAITING);
        let own = format!("spec.nodeName={node},{NOT_FINISHED}");
        let watches = Self { client, size, always, any_pods: None };
        watches.spawn::<WatchedPolicy>(Kind::Policies, None, Event::Policy, sender.clone());
        let of_cluster = sender.clone();
        watches.spawn::<WatchedClusterPolicy>(Kind::ClusterPolicies, None, Event::ClusterPolicy, of_cluster);
        watches.spawn::<WatchedNamespace>(Kind::Namespaces, None, Event::Namespace, sender.clone());
        watches.spawn::<WatchedPod>(Kind::OwnPods, Some(own), Event::OwnPod, sender);
        watches
    }

    /// Follows the pods of all nodes from now on, or no longer; returns whether that is new. Nothing that was said of them
    /// before is received afterwards.
    pub fn follow_any_pods(&mut self, is_wanted: bool) -> bool {
        match (is_wanted, self.any_pods.take()) {
            (true, None) => {
                let (sender, receiver) = mpsc::channel(MESSAGES_WAITING);
                let fields = Some(NOT_FINISHED.to_owned());
                let task = self.spawn::<WatchedPod>(Kind::AnyPods, fields, Event::AnyPod, sender);
                self.any_pods = Some((receiver, task));
                true
            }
            (false, Some((_, task))) => {
                task.abort();
                true
            }
            (_, as_before) => {
                self.any_pods = as_before;
                false
            }
        }
    }

    /// The next message; waits for it. Cancel safe. What concerns few comes before what concerns all nodes.
    pub async fn next(&mut self) -> Option<PolicyMessage> {
        let Self { always, any_pods, .. } = self;
        match any_pods {
            None => always.recv().await,
            Some((any, _)) => tokio::select! {
                biased;
                message = always.recv() => message,
                message = any.recv() => message,
            },
        }
    }

    fn spawn<K: Watched>(
        &self,
        kind: Kind,
        fields: Option<String>,
        event: fn(Feed<K::Read>) -> Event,
        sender: mpsc::Sender<PolicyMessage>,
    ) -> AbortHandle {
        let tell = move |heard: Heard<K::Read>| match heard {
            Heard::Object(feed) => PolicyMessage::Event { event: event(feed), at: Instant::now() },
            Heard::Absent => PolicyMessage::Absent { kind },
            Heard::Resumed => PolicyMessage::Resumed { kind },
            Heard::Error { reason, is_refusal } => PolicyMessage::Error { kind, reason, is_refusal },
        };
        let selection = Selection { fields, is_streamed: true };
        let api: Api<K> = Api::all(self.client.clone());
        tokio::spawn(follow(api, selection, self.size.clone(), tell, sender)).abort_handle()
    }
}
