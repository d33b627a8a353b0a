//! Follows the Nodes of the API server and sends what matters of them.
//!
//! The objects are read into a type with the few fields that are needed: of a Node, which may have twenty kilobytes
//! (images, managed fields), some hundred bytes are ever kept. The list is read in pages for the same reason.

use std::borrow::Cow;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::runtime::watcher as watch;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, Config};
use serde::{Deserialize, Deserializer};
use tokio::sync::mpsc;

use crate::agent::cluster::index::NodeEvent;
use crate::agent::k8s::node_info::{Condition, NodeInfo, RawNode};
use crate::agent::settings::Settings;
use crate::agent::surroundings::ApiServer;

/// Nodes per page of the list. A page is in memory as a whole.
const PAGE: u32 = 100;

/// Duration of a watch before it is started again. A connection that is dead without a RST is noticed after this.
const WATCH_SECONDS: u32 = 60;

/// Timeout of connecting. Before kube-proxy is up nothing answers at the Service's address, and a longer wait would only
/// delay the next attempt.
const CONNECT: Duration = Duration::from_secs(3);

/// First pause after a failure; each further one is twice as long.
const FIRST: Duration = Duration::from_millis(250);

/// Longest pause until the first list is complete: this node waits for it.
const LONGEST_AT_FIRST: Duration = Duration::from_secs(4);

/// Longest pause from then on, per node of the cluster: all agents together ask the same API server at most some hundred
/// times a second.
const LONGEST_PER_NODE: Duration = Duration::from_millis(10);

/// Bounds of the longest pause.
const LONGEST: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// What the watch sends.
#[derive(Debug)]
pub enum WatchMessage {
    /// A Node changed.
    Node(NodeEvent),
    /// The API server does not answer as it should; the watch retries.
    Error(String),
    /// Where the API server is, as far as that is known.
    ApiServer(ApiServer),
    /// The API server was asked, and did not answer.
    NoAnswer,
}

/// A Node with the fields that are needed.
#[derive(Debug, Clone, Deserialize)]
pub struct WatchedNode {
    #[serde(default, deserialize_with = "read_metadata")]
    metadata: ObjectMeta,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    #[serde(rename = "podCIDR")]
    pod_cidr: Option<String>,
    #[serde(default, rename = "podCIDRs")]
    pod_cidrs: Vec<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct Status {
    #[serde(default)]
    addresses: Vec<Address>,
    #[serde(default)]
    conditions: Vec<NodeCondition>,
}

#[derive(Debug, Clone, Deserialize)]
struct Address {
    #[serde(rename = "type")]
    kind: String,
    address: String,
}

#[derive(Debug, Clone, Deserialize)]
struct NodeCondition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
    #[serde(default, deserialize_with = "awaits_network")]
    message: bool,
}

/// The metadata that a watch needs, and those of [`RawNode`].
fn read_metadata<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Few {
        name: Option<String>,
        uid: Option<String>,
        resource_version: Option<String>,
        creation_timestamp: Option<Time>,
    }
    let Few { name, uid, resource_version, creation_timestamp } = Few::deserialize(deserializer)?;
    Ok(ObjectMeta { name, uid, resource_version, creation_timestamp, ..ObjectMeta::default() })
}

/// Whether a message says that the runtime has no network configuration (kubelet repeats the runtime's reason).
fn awaits_network<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    let message = Option::<Cow<'_, str>>::deserialize(deserializer)?;
    Ok(message.is_some_and(|message| message.contains("NetworkPluginNotReady")))
}

impl kube::core::Resource for WatchedNode {
    type DynamicType = ();
    type Scope = kube::core::ClusterResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        Node::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        Node::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        Node::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        Node::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl WatchedNode {
    fn into_info(self) -> NodeInfo {
        let Self { metadata, spec, status } = self;
        let mut condition = Condition::default();
        for it in &status.conditions {
            match it.kind.as_str() {
                "Ready" => {
                    condition.ready = it.status == "True";
                    condition.awaits_network = it.status != "True" && it.message;
                }
                "NetworkUnavailable" => condition.network_unavailable = it.status != "False",
                _ => {}
            }
        }
        let is_internal = |it: &Address| it.kind == "InternalIP";
        let pod_cidrs = if spec.pod_cidrs.is_empty() {
            spec.pod_cidr.into_iter().filter(|text| !text.is_empty()).collect()
        } else {
            spec.pod_cidrs
        };
        NodeInfo::read(RawNode {
            name: metadata.name.unwrap_or_default(),
            created: metadata.creation_timestamp.map_or(0, |Time(time)| time.as_second()),
            pod_cidrs,
            internal_ips: status.addresses.into_iter().filter(is_internal).map(|it| it.address).collect(),
            condition,
        })
    }
}

/// A client for the API server that the settings or the pod's environment name, and that server's host.
///
/// # Errors
/// Why there is none, in words.
pub fn connect(settings: &Settings) -> Result<(Client, String), String> {
    let url = match &settings.apiserver {
        Some(text) => Some(text.parse().map_err(|error| format!("--apiserver {text:?}: {error}"))?),
        None => None,
    };
    let mut config = match (Config::incluster(), url.clone()) {
        (Ok(config), _) => config,
        (Err(_), Some(url)) => Config::new(url),
        (Err(error), None) => return Err(format!("this is no pod of a cluster: {error}; give --apiserver")),
    };
    if let Some(url) = url {
        config.cluster_url = url;
    }
    config.connect_timeout = Some(CONNECT);
    config.read_timeout = Some(Duration::from_secs(u64::from(WATCH_SECONDS) + 15));
    let host = config.cluster_url.host().unwrap_or_default().to_owned();
    let client = Client::try_from(config);
    client.map(|client| (client, host)).map_err(|error| format!("the API server cannot be asked: {error}"))
}

/// Sends every Node and every change, until nobody receives. What goes wrong is sent as well, and tried
/// again, after a time that grows.
pub async fn follow(client: Client, messages: mpsc::Sender<WatchMessage>) {
    let api: Api<WatchedNode> = Api::all(client);
    let config = watcher::Config::default().page_size(PAGE).timeout(WATCH_SECONDS);
    let mut events = watch(api.clone(), config.clone()).boxed();
    let (mut failures, mut longest, mut listed) = (0_u32, LONGEST_AT_FIRST, 0_u32);
    let mut is_list_asked_for = false;
    loop {
        let message = match events.next().await {
            // Comes before the server is asked: it has not answered yet, and may be down.
            Some(Ok(Event::Init)) => {
                is_list_asked_for = true;
                continue;
            }
            Some(Ok(event)) => {
                failures = 0;
                if std::mem::take(&mut is_list_asked_for) {
                    listed = 0;
                    if messages.send(WatchMessage::Node(NodeEvent::ListBegins)).await.is_err() {
                        return;
                    }
                }
                tell(event)
            }
            Some(Err(error)) => {
                failures += 1;
                // The history of where the watch was is gone. Servers say so within the watch, which leads to a new
                // list; one that refuses the watch for it would be asked for the same for ever.
                if is_expired(&error) {
                    events = watch(api.clone(), config.clone()).boxed();
                }
                WatchMessage::Error(error.to_string())
            }
            None => {
                events = watch(api.clone(), config.clone()).boxed();
                continue;
            }
        };
        match &message {
            WatchMessage::Node(NodeEvent::Listed(_)) => listed = listed.saturating_add(1),
            WatchMessage::Node(NodeEvent::ListEnds) => longest = longest_among(listed),
            _ => {}
        }
        if messages.send(message).await.is_err() {
            return;
        }
        if failures > 0 {
            tokio::time::sleep(pause(failures, longest)).await;
        }
    }
}

fn tell(event: Event<WatchedNode>) -> WatchMessage {
    WatchMessage::Node(match event {
        Event::Init => NodeEvent::ListBegins,
        Event::InitApply(node) => NodeEvent::Listed(node.into_info()),
        Event::InitDone => NodeEvent::ListEnds,
        Event::Apply(node) => NodeEvent::Changed(node.into_info()),
        Event::Delete(node) => NodeEvent::Gone(node.metadata.name.unwrap_or_default()),
    })
}

fn is_expired(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::WatchStartFailed(kube::Error::Api(status)) if status.code == 410)
}

/// Longest pause in a cluster of that many nodes. It is short in a small one: while an agent pauses, it does not hear of
/// a node that came back with another address.
fn longest_among(nodes: u32) -> Duration {
    LONGEST_PER_NODE.saturating_mul(nodes).clamp(LONGEST.0, LONGEST.1)
}

/// Random between half and the whole of what it grew to, so that agents that failed together do not retry together.
fn pause(failures: u32, longest: Duration) -> Duration {
    let grown = FIRST.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(longest);
    let chance = RandomState::new().build_hasher().finish() % 1024;
    grown / 2 + grown.mul_f64(f64::from(u16::try_from(chance).unwrap_or(0)) / 2048.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_read_for_what_matters() {
        let node: WatchedNode = serde_json::from_value(serde_json::json!({
            "metadata": {
                "name": "worker", "uid": "u", "resourceVersion": "7",
                "creationTimestamp": "2026-11-23T16:04:05Z", "managedFields": [{ "fieldsV1": { "f:x": {} } }],
            },
            "spec": { "podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24", "fd00:1::/64"], "taints": [] },
            "status": {
                "addresses": [
                    { "type": "Hostname", "address": "worker" },
                    { "type": "ExternalIP", "address": "203.0.113.7" },
                    { "type": "InternalIP", "address": "172.18.0.2" },
                    { "type": "InternalIP", "address": "fc00::2" },
                ],
                "conditions": [
                    { "type": "MemoryPressure", "status": "False" },
                    { "type": "NetworkUnavailable", "status": "True" },
                    { "type": "Ready", "status": "False", "reason": "KubeletNotReady", "message":
                        "container runtime network not ready: NetworkReady=false \
                         reason:NetworkPluginNotReady message:Network plugin returns error: \"x\"" },
                ],
            },
        }))
        .unwrap();
        let info = node.into_info();
        assert_eq!((info.name.as_str(), info.created), ("worker", 1_795_449_845));
        assert_eq!((info.pod_cidrs.len(), info.node_ips.len(), info.unusable.len()), (2, 2, 0));
        let expected = Condition { ready: false, awaits_network: true, network_unavailable: true };
        assert_eq!(info.condition, expected);
    }

    #[test]
    fn pauses_grow_to_the_longest_and_are_not_all_the_same() {
        for (failures, grown) in [(1, 250), (2, 500), (5, 4_000), (40, 4_000)] {
            let pause = pause(failures, LONGEST_AT_FIRST).as_millis();
            assert!((grown / 2..=grown).contains(&pause), "{failures}: {pause}");
        }
        let many: std::collections::HashSet<Duration> = (0..50).map(|_| pause(40, LONGEST.1)).collect();
        assert!(many.len() > 10);
    }

    #[test]
    fn the_more_agents_wait_the_longer_each_of_them_does() {
        let seconds = [0, 3, 100, 500, 3_000, 5_000, u32::MAX].map(|nodes| longest_among(nodes).as_secs());
        assert_eq!(seconds, [1, 1, 1, 5, 30, 30, 30]);
    }

    #[test]
    fn a_node_that_says_nothing_is_a_node() {
        let node: WatchedNode = serde_json::from_str(r#"{"metadata": {"name": "new"}}"#).unwrap();
        let info = node.into_info();
        assert_eq!((info.name.as_str(), info.pod_cidrs.len()), ("new", 0));
    }
}
