//! Messages about containers, and commands run in them.

use super::pod::PodSandboxConfig;
use super::runtime::ImageSpec;

/// A container's name in its pod.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ContainerMetadata {
    /// Unique in the pod, together with `attempt`.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Counts restarts.
    #[prost(uint32, tag = "2")]
    pub attempt: u32,
}

/// What a container runs.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ContainerConfig {
    /// Required.
    #[prost(message, optional, tag = "1")]
    pub metadata: Option<ContainerMetadata>,
    /// Required.
    #[prost(message, optional, tag = "2")]
    pub image: Option<ImageSpec>,
    /// Replaces the image's entry point.
    #[prost(string, repeated, tag = "3")]
    pub command: Vec<String>,
    /// Arguments of the command.
    #[prost(string, repeated, tag = "4")]
    pub args: Vec<String>,
    /// Below the pod's log directory.
    #[prost(string, tag = "11")]
    pub log_path: String,
}

impl ContainerConfig {
    /// A container that runs `command`.
    pub fn new(name: &str, image: &str, command: &[&str]) -> Self {
        Self {
            metadata: Some(ContainerMetadata { name: name.to_owned(), attempt: 0 }),
            image: Some(ImageSpec { image: image.to_owned() }),
            command: command.iter().map(|word| (*word).to_owned()).collect(),
            log_path: format!("{name}.log"),
            ..Self::default()
        }
    }
}

/// Makes a container in a sandbox.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CreateContainerRequest {
    /// The sandbox.
    #[prost(string, tag = "1")]
    pub pod_sandbox_id: String,
    /// The container.
    #[prost(message, optional, tag = "2")]
    pub config: Option<ContainerConfig>,
    /// The same as in `RunPodSandbox`.
    #[prost(message, optional, tag = "3")]
    pub sandbox_config: Option<PodSandboxConfig>,
}

/// The container made.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CreateContainerResponse {
    /// The container.
    #[prost(string, tag = "1")]
    pub container_id: String,
}

/// Names a container: the request of `StartContainer`, `StopContainer`, `RemoveContainer` and `ContainerStatus`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ContainerRequest {
    /// The container.
    #[prost(string, tag = "1")]
    pub container_id: String,
    /// `StopContainer` only: seconds between SIGTERM and SIGKILL.
    ///
    /// `ContainerStatus` has a flag under this tag, which zero leaves unset.
    #[prost(int64, tag = "2")]
    pub timeout: i64,
}

/// Asks for all containers.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ListContainersRequest {}

/// All containers.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ListContainersResponse {
    /// In no order.
    #[prost(message, repeated, tag = "1")]
    pub containers: Vec<Container>,
}

/// A container, in short.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Container {
    /// The container.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Its sandbox.
    #[prost(string, tag = "2")]
    pub pod_sandbox_id: String,
    /// Its name in the pod.
    #[prost(message, optional, tag = "3")]
    pub metadata: Option<ContainerMetadata>,
    /// See [`ContainerState`].
    #[prost(enumeration = "ContainerState", tag = "6")]
    pub state: i32,
}

/// Where a container is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum ContainerState {
    /// Not started yet.
    Created = 0,
    /// Started, not ended.
    Running = 1,
    /// Ended.
    Exited = 2,
    /// The runtime lost track of it.
    Unknown = 3,
}

/// How a container is.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ContainerStatusResponse {
    /// The state.
    #[prost(message, optional, tag = "1")]
    pub status: Option<ContainerStatus>,
}

/// The state of a container.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ContainerStatus {
    /// The container.
    #[prost(string, tag = "1")]
    pub id: String,
    /// See [`ContainerState`].
    #[prost(enumeration = "ContainerState", tag = "3")]
    pub state: i32,
    /// Once it has ended.
    #[prost(int32, tag = "7")]
    pub exit_code: i32,
    /// One word on why it ended.
    #[prost(string, tag = "10")]
    pub reason: String,
    /// A sentence on why it ended.
    #[prost(string, tag = "11")]
    pub message: String,
}

/// Runs a command in a container and waits for its end.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ExecSyncRequest {
    /// The container.
    #[prost(string, tag = "1")]
    pub container_id: String,
    /// Program and arguments.
    #[prost(string, repeated, tag = "2")]
    pub cmd: Vec<String>,
    /// Seconds; zero: no limit.
    #[prost(int64, tag = "3")]
    pub timeout: i64,
}

/// What the command said.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ExecSyncResponse {
    /// Its standard output.
    #[prost(bytes = "vec", tag = "1")]
    pub stdout: Vec<u8>,
    /// Its standard error.
    #[prost(bytes = "vec", tag = "2")]
    pub stderr: Vec<u8>,
    /// Its exit code.
    #[prost(int32, tag = "3")]
    pub exit_code: i32,
}
