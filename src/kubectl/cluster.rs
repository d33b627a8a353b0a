//! The API server, as the kubeconfig names it: nodes and pods.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{ListParams, LogParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, ResourceExt};

use crate::kubectl::agents::{self, Asked};
use crate::kubectl::arguments::Common;
use crate::kubectl::target::{End, Who};

/// Timeout of connecting.
const CONNECT: Duration = Duration::from_secs(10);

/// How long a list may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Objects per page of a list.
const PAGE: u32 = 500;

/// What the agents' pods are found by.
pub(super) const SELECTOR: &str = "app.kubernetes.io/name=ferrule";

/// A cluster.
pub(super) struct Cluster {
    pub client: Client,
    /// The namespace of the context.
    pub default_namespace: String,
    /// Where the agents are; `None`: anywhere.
    agents_in: Option<String>,
}

impl Cluster {
    /// The cluster of the kubeconfig, or the one that this is a pod of.
    pub async fn connect(common: &Common) -> Result<Self, String> {
        let options = KubeConfigOptions { context: common.context.clone(), ..KubeConfigOptions::default() };
        let read = match &common.kubeconfig {
            Some(path) => Kubeconfig::read_from(path),
            None => Kubeconfig::read(),
        };
        let config = match read {
            Ok(kubeconfig) => Config::from_custom_kubeconfig(kubeconfig, &options).await,
            Err(error) => Err(error),
        };
        let mut config = match config {
            Ok(config) => config,
            Err(error) => {
                let own = Config::incluster().ok().filter(|_| common.kubeconfig.is_none());
                own.ok_or_else(|| format!("no kubeconfig: {error}; name one with --kubeconfig or --context"))?
            }
        };
        config.connect_timeout = Some(CONNECT);
        // A capture may be silent for hours; whoever asks for an answer has a deadline.
        config.read_timeout = None;
        let default_namespace = config.default_namespace.clone();
        let client =
            Client::try_from(config).map_err(|error| format!("the API server cannot be asked: {error}"))?;
        Ok(Self { client, default_namespace, agents_in: common.namespace.clone() })
    }

    /// The nodes, each with its agent.
    pub async fn agents(&self, common: &Common) -> Result<Vec<Asked>, String> {
        let nodes = self.list(&Api::<Node>::all(self.client.clone()), ListParams::default(), "nodes").await?;
        let agents_in = match &self.agents_in {
            Some(namespace) => Api::<Pod>::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        };
        let pods = self.list(&agents_in, ListParams::default().labels(SELECTOR), "pods").await?;
        agents::find(&nodes, &pods, &common.nodes)
    }

    /// All objects of a kind, page by page.
    pub async fn list<K>(&self, api: &Api<K>, params: ListParams, what: &str) -> Result<Vec<K>, String>
    where
        K: Clone + serde::de::DeserializeOwned + std::fmt::Debug,
    {
        let mut params = params.limit(PAGE);
        let mut found = Vec::new();
        loop {
            let page = within(PATIENCE, api.list(&params)).await;
            let page = page.map_err(|error| format!("cannot list {what}: {error}"))?;
            found.extend(page.items);
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params.continue_token = Some(token),
                None => return Ok(found),
            }
        }
    }

    /// The pod that is meant; an address is looked for among all pods. `None`: nobody's address, or no pod is meant.
    pub async fn find_pod(&self, end: &End) -> Result<Option<Pod>, String> {
        match &end.who {
            Who::Service { .. } | Who::Node(_) => Ok(None),
            Who::Pod { namespace, name } => {
                let namespace = namespace.as_deref().unwrap_or(&self.default_namespace);
                let api = Api::<Pod>::namespaced(self.client.clone(), namespace);
                let found = within(PATIENCE, api.get_opt(name)).await;
                let found = found.map_err(|error| format!("cannot read pod {namespace}/{name}: {error}"))?;
                found.map(Some).ok_or_else(|| format!("there is no pod {namespace}/{name}"))
            }
            Who::Address(address) => {
                let field = format!("status.podIP={address}");
                let api = Api::<Pod>::all(self.client.clone());
                let address = address.to_string();
                let mut found = self.list(&api, ListParams::default().fields(&field), "pods").await?;
                if found.is_empty() {
                    // Of another family than the pod's first.
                    found = self.list(&api, ListParams::default(), "pods").await?;
                }
                let is_meant =
                    |pod: &Pod| has_address(pod, &address) && !has_ended(pod) && !is_on_hosts_network(pod);
                Ok(found.into_iter().find(is_meant))
            }
        }
    }

    /// The end of a container's log.
    pub async fn log(&self, agent: &agents::Agent, lines: i64, previous: bool) -> Result<String, String> {
        let api = Api::<Pod>::namespaced(self.client.clone(), &agent.namespace);
        let params = LogParams {
            container: Some(agents::CONTAINER.to_owned()),
            tail_lines: Some(lines),
            previous,
            ..LogParams::default()
        };
        within(PATIENCE, api.logs(&agent.pod, &params)).await
    }
}

/// What a pod has in `status.podIPs`.
fn has_address(pod: &Pod, address: &str) -> bool {
    let list = pod.status.as_ref().and_then(|status| status.pod_ips.as_ref());
    list.into_iter().flatten().any(|it| it.ip == address)
}

/// Whether its address is free for others.
pub(super) fn has_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// Whether it has its node's addresses.
pub(super) fn is_on_hosts_network(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.host_network).unwrap_or_default()
}

/// The node that it is on.
pub(super) fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref()
}

/// `namespace/name`
pub(super) fn full_name(pod: &Pod) -> String {
    format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any())
}

/// The answer, or in words why there is none.
pub(super) async fn within<T>(
    limit: Duration,
    asked: impl Future<Output = kube::Result<T>>,
) -> Result<T, String> {
    match tokio::time::timeout(limit, asked).await {
        Ok(answer) => answer.map_err(|error| explain(&error)),
        Err(_) => Err(format!("the API server did not answer within {} s", limit.as_secs())),
    }
}

/// The API server's own words, where it has some.
pub(super) fn explain(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => {
            let reason = if status.message.is_empty() { &status.reason } else { &status.message };
            reason.clone()
        }
        other => {
            let mut words = other.to_string();
            let mut source = std::error::Error::source(other);
            while let Some(cause) = source {
                let said = cause.to_string();
                if !words.contains(&said) {
                    words = format!("{words}: {said}");
                }
                source = cause.source();
            }
            words
        }
    }
}
