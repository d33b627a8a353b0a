//! Messages about pods: `PodSandbox` is CRI's word for a pod without its containers.

use std::collections::HashMap;

/// Who a pod is, in Kubernetes' terms.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PodSandboxMetadata {
    /// The pod's name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// The pod's uid; with name, namespace and attempt it must be unique on the node.
    #[prost(string, tag = "2")]
    pub uid: String,
    /// The pod's namespace.
    #[prost(string, tag = "3")]
    pub namespace: String,
    /// Counts the sandboxes made for the same pod.
    #[prost(uint32, tag = "4")]
    pub attempt: u32,
}

/// Everything about a pod that is not a container's.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PodSandboxConfig {
    /// Required.
    #[prost(message, optional, tag = "1")]
    pub metadata: Option<PodSandboxMetadata>,
    /// Host name inside the pod; empty: the node's.
    #[prost(string, tag = "2")]
    pub hostname: String,
    /// Where the logs of the pod's containers go, on the node.
    #[prost(string, tag = "3")]
    pub log_directory: String,
    /// Absent: the node's own resolv.conf.
    #[prost(message, optional, tag = "4")]
    pub dns_config: Option<DnsConfig>,
    /// Handed to the network plugin as the `portMappings` capability.
    #[prost(message, repeated, tag = "5")]
    pub port_mappings: Vec<PortMapping>,
    /// For `ListPodSandbox`.
    #[prost(map = "string, string", tag = "6")]
    pub labels: HashMap<String, String>,
    /// Handed to the network plugin as `io.kubernetes.cri.pod-annotations`.
    #[prost(map = "string, string", tag = "7")]
    pub annotations: HashMap<String, String>,
    /// Linux' own part.
    #[prost(message, optional, tag = "8")]
    pub linux: Option<LinuxPodSandboxConfig>,
}

impl PodSandboxConfig {
    /// A pod of which nothing but the identity is set.
    pub fn named(namespace: &str, name: &str, uid: &str) -> Self {
        let metadata = PodSandboxMetadata {
            name: name.to_owned(),
            uid: uid.to_owned(),
            namespace: namespace.to_owned(),
            attempt: 0,
        };
        Self { metadata: Some(metadata), ..Self::default() }
    }

    /// The same pod, reachable at a TCP port of the node besides.
    pub fn with_port(mut self, host_port: u16, container_port: u16) -> Self {
        self.port_mappings.push(PortMapping {
            protocol: Protocol::Tcp.into(),
            container_port: container_port.into(),
            host_port: host_port.into(),
            host_ip: String::new(),
        });
        self
    }
}

/// A pod's resolv.conf.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DnsConfig {
    /// Addresses of name servers.
    #[prost(string, repeated, tag = "1")]
    pub servers: Vec<String>,
    /// Search domains.
    #[prost(string, repeated, tag = "2")]
    pub searches: Vec<String>,
    /// For instance `ndots:5`.
    #[prost(string, repeated, tag = "3")]
    pub options: Vec<String>,
}

/// A port of the node that leads to the pod.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PortMapping {
    /// See [`Protocol`].
    #[prost(enumeration = "Protocol", tag = "1")]
    pub protocol: i32,
    /// The port in the pod.
    #[prost(int32, tag = "2")]
    pub container_port: i32,
    /// The port on the node.
    #[prost(int32, tag = "3")]
    pub host_port: i32,
    /// Only on this address of the node; empty: on all.
    #[prost(string, tag = "4")]
    pub host_ip: String,
}

/// Transport protocols of a [`PortMapping`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum Protocol {
    /// TCP.
    Tcp = 0,
    /// UDP.
    Udp = 1,
    /// SCTP.
    Sctp = 2,
}

/// Linux' part of a pod.
#[derive(Clone, PartialEq, prost::Message)]
pub struct LinuxPodSandboxConfig {
    /// The cgroup below which the runtime makes those of the pod.
    #[prost(string, tag = "1")]
    pub cgroup_parent: String,
    /// Sysctls of the pod's namespaces.
    #[prost(map = "string, string", tag = "3")]
    pub sysctls: HashMap<String, String>,
}

/// Makes and starts a pod's sandbox; the network plugin's ADD happens in here.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RunPodSandboxRequest {
    /// The pod.
    #[prost(message, optional, tag = "1")]
    pub config: Option<PodSandboxConfig>,
}

/// The sandbox made.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RunPodSandboxResponse {
    /// Also the CNI container id.
    #[prost(string, tag = "1")]
    pub pod_sandbox_id: String,
}

/// Names a sandbox: the request of `StopPodSandbox`, `RemovePodSandbox` and `PodSandboxStatus`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PodSandboxRequest {
    /// The sandbox.
    #[prost(string, tag = "1")]
    pub pod_sandbox_id: String,
    /// `PodSandboxStatus` only: also the runtime's own details, among them the process id.
    #[prost(bool, tag = "2")]
    pub verbose: bool,
}

/// How a sandbox is.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PodSandboxStatusResponse {
    /// The state.
    #[prost(message, optional, tag = "1")]
    pub status: Option<PodSandboxStatus>,
    /// containerd puts JSON under the key `info`, if verbose.
    #[prost(map = "string, string", tag = "2")]
    pub info: HashMap<String, String>,
}

/// The state of a sandbox.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PodSandboxStatus {
    /// The sandbox.
    #[prost(string, tag = "1")]
    pub id: String,
    /// The pod.
    #[prost(message, optional, tag = "2")]
    pub metadata: Option<PodSandboxMetadata>,
    /// See [`PodSandboxState`].
    #[prost(enumeration = "PodSandboxState", tag = "3")]
    pub state: i32,
    /// The addresses.
    #[prost(message, optional, tag = "5")]
    pub network: Option<PodSandboxNetworkStatus>,
}

/// A pod's addresses, in the order of the plugin's result.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PodSandboxNetworkStatus {
    /// The first one; empty once the sandbox is stopped.
    #[prost(string, tag = "1")]
    pub ip: String,
    /// The others.
    #[prost(message, repeated, tag = "2")]
    pub additional_ips: Vec<PodIp>,
}

/// One further address.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PodIp {
    /// Without prefix length.
    #[prost(string, tag = "1")]
    pub ip: String,
}

/// Does the sandbox run?
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum PodSandboxState {
    /// It runs.
    Ready = 0,
    /// Its process is gone, or it was stopped.
    NotReady = 1,
}

/// Asks for all sandboxes.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ListPodSandboxRequest {}

/// All sandboxes.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ListPodSandboxResponse {
    /// In no order.
    #[prost(message, repeated, tag = "1")]
    pub items: Vec<PodSandbox>,
}

/// A sandbox, in short.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PodSandbox {
    /// The sandbox.
    #[prost(string, tag = "1")]
    pub id: String,
    /// The pod.
    #[prost(message, optional, tag = "2")]
    pub metadata: Option<PodSandboxMetadata>,
    /// See [`PodSandboxState`].
    #[prost(enumeration = "PodSandboxState", tag = "3")]
    pub state: i32,
}
