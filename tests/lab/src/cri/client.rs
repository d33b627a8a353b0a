//! One method per call of the interface.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use http::uri::PathAndQuery;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

use super::messages::*;
use crate::error::{Error, Result};

/// Longer than containerd gives any of its own steps: a call that takes this long hangs.
const CALL_DEADLINE: Duration = Duration::from_secs(120);

/// A connection to one runtime. Clones share it, and calls may overlap.
///
/// It connects anew by itself after the runtime was restarted on the same socket.
#[derive(Clone, Debug)]
pub struct Client {
    channel: Channel,
}

/// What a command in a container left behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Its exit code.
    pub code: i32,
    /// Its standard output, bytes that are not UTF-8 replaced.
    pub stdout: String,
    /// Its standard error, likewise.
    pub stderr: String,
}

/// How a pod is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodStatus {
    /// Does its sandbox run?
    pub is_ready: bool,
    /// Its addresses in the order of the plugin's result; none once it is stopped.
    pub addresses: Vec<IpAddr>,
    /// The sandbox's process as the node sees it; 0 when there is none.
    pub pid: i64,
}

impl Client {
    /// Connects to the runtime that listens on `socket`.
    pub async fn connect(socket: &Path) -> Result<Self> {
        let failed = |source| Error::Socket { socket: socket.to_owned(), source };
        let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display())).map_err(failed)?;
        let channel = endpoint.timeout(CALL_DEADLINE).connect().await.map_err(failed)?;
        Ok(Self { channel })
    }

    /// Name and version of the runtime.
    pub async fn version(&self) -> Result<VersionResponse> {
        self.call("Version", VersionRequest {}).await
    }

    /// The conditions from which kubelet makes the node's Ready: `RuntimeReady` and `NetworkReady`.
    pub async fn status(&self) -> Result<Vec<RuntimeCondition>> {
        let answer: StatusResponse = self.call("Status", StatusRequest {}).await?;
        Ok(answer.status.map(|status| status.conditions).unwrap_or_default())
    }

    /// Makes and starts a pod's sandbox, its network included, and says its id, which is the CNI container id.
    pub async fn run_pod(&self, config: &PodSandboxConfig) -> Result<String> {
        let request = RunPodSandboxRequest { config: Some(config.clone()) };
        let answer: RunPodSandboxResponse = self.call("RunPodSandbox", request).await?;
        Ok(answer.pod_sandbox_id)
    }

    /// Stops the pod's containers and takes its network down. Stopping a stopped pod succeeds.
    pub async fn stop_pod(&self, id: &str) -> Result<()> {
        let _: Empty = self.call("StopPodSandbox", pod_request(id)).await?;
        Ok(())
    }

    /// Forgets a pod, stopping it first where needed. Removing what is not there succeeds.
    pub async fn remove_pod(&self, id: &str) -> Result<()> {
        let _: Empty = self.call("RemovePodSandbox", pod_request(id)).await?;
        Ok(())
    }

    /// The pod's state, addresses and process.
    pub async fn pod_status(&self, id: &str) -> Result<PodStatus> {
        let request = PodSandboxRequest { verbose: true, ..pod_request(id) };
        let answer: PodSandboxStatusResponse = self.call("PodSandboxStatus", request).await?;
        let status = answer.status.ok_or(Error::Lacks { method: "PodSandboxStatus", what: "a status" })?;
        let network = status.network.clone().unwrap_or_default();
        let further = network.additional_ips.iter().map(|address| address.ip.as_str());
        let details = answer.info.get("info").map(String::as_str).unwrap_or("{}");
        let details: serde_json::Value = serde_json::from_str(details).unwrap_or_default();
        Ok(PodStatus {
            is_ready: status.state() == PodSandboxState::Ready,
            addresses: std::iter::once(network.ip.as_str())
                .chain(further)
                .filter_map(|a| a.parse().ok())
                .collect(),
            pid: details.get("pid").and_then(serde_json::Value::as_i64).unwrap_or_default(),
        })
    }

    /// All pods, stopped ones too.
    pub async fn pods(&self) -> Result<Vec<PodSandbox>> {
        let answer: ListPodSandboxResponse = self.call("ListPodSandbox", ListPodSandboxRequest {}).await?;
        Ok(answer.items)
    }

    /// Makes a container in a pod and starts it. `pod` is what the sandbox was made from.
    pub async fn run_container(
        &self,
        id: &str,
        pod: &PodSandboxConfig,
        config: ContainerConfig,
    ) -> Result<String> {
        let container = self.create_container(id, pod, config).await?;
        self.start_container(&container).await?;
        Ok(container)
    }

    /// Makes a container in a pod. `pod` is what the sandbox was made from.
    pub async fn create_container(
        &self,
        id: &str,
        pod: &PodSandboxConfig,
        config: ContainerConfig,
    ) -> Result<String> {
        let request = CreateContainerRequest {
            pod_sandbox_id: id.to_owned(),
            config: Some(config),
            sandbox_config: Some(pod.clone()),
        };
        let answer: CreateContainerResponse = self.call("CreateContainer", request).await?;
        Ok(answer.container_id)
    }

    /// Starts a container made before.
    pub async fn start_container(&self, id: &str) -> Result<()> {
        let _: Empty = self.call("StartContainer", container_request(id)).await?;
        Ok(())
    }

    /// Ends a container, by force `seconds` after it was asked to.
    pub async fn stop_container(&self, id: &str, seconds: u32) -> Result<()> {
        let request = ContainerRequest { timeout: seconds.into(), ..container_request(id) };
        let _: Empty = self.call("StopContainer", request).await?;
        Ok(())
    }

    /// Forgets a container, ending it by force where needed.
    pub async fn remove_container(&self, id: &str) -> Result<()> {
        let _: Empty = self.call("RemoveContainer", container_request(id)).await?;
        Ok(())
    }

    /// The container's state.
    pub async fn container_status(&self, id: &str) -> Result<ContainerStatus> {
        let answer: ContainerStatusResponse = self.call("ContainerStatus", container_request(id)).await?;
        answer.status.ok_or(Error::Lacks { method: "ContainerStatus", what: "a status" })
    }

    /// All containers, ended ones too.
    pub async fn containers(&self) -> Result<Vec<Container>> {
        let answer: ListContainersResponse = self.call("ListContainers", ListContainersRequest {}).await?;
        Ok(answer.containers)
    }

    /// Runs a command in a container until it ends, or is ended after `limit`. An exit code other than 0 is no error.
    pub async fn exec(&self, container: &str, command: &[&str], limit: Duration) -> Result<Output> {
        let request = ExecSyncRequest {
            container_id: container.to_owned(),
            cmd: command.iter().map(|word| (*word).to_owned()).collect(),
            timeout: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
        };
        let answer: ExecSyncResponse = self.call("ExecSync", request).await?;
        Ok(Output {
            code: answer.exit_code,
            stdout: String::from_utf8_lossy(&answer.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&answer.stderr).into_owned(),
        })
    }

    /// Can a container be made from this image?
    pub async fn has_image(&self, name: &str) -> Result<bool> {
        let request = ImageStatusRequest { image: Some(ImageSpec { image: name.to_owned() }) };
        let answer: ImageStatusResponse = self.call("ImageStatus", request).await?;
        Ok(answer.image.is_some())
    }

    async fn call<Q, R>(&self, method: &'static str, request: Q) -> Result<R>
    where
        Q: prost::Message + 'static,
        R: prost::Message + Default + 'static,
    {
        let service = if method == "ImageStatus" { "ImageService" } else { "RuntimeService" };
        let failed = |status| Error::Call { method, status: Box::new(status) };
        let path = PathAndQuery::try_from(format!("/runtime.v1.{service}/{method}"))
            .map_err(|invalid| failed(tonic::Status::internal(invalid.to_string())))?;
        let mut grpc = Grpc::new(self.channel.clone());
        grpc.ready().await.map_err(|gone| failed(tonic::Status::unavailable(gone.to_string())))?;
        let codec = ProstCodec::<Q, R>::default();
        let response = grpc.unary(tonic::Request::new(request), path, codec).await.map_err(failed)?;
        Ok(response.into_inner())
    }
}

fn pod_request(id: &str) -> PodSandboxRequest {
    PodSandboxRequest { pod_sandbox_id: id.to_owned(), verbose: false }
}

fn container_request(id: &str) -> ContainerRequest {
    ContainerRequest { container_id: id.to_owned(), timeout: 0 }
}
