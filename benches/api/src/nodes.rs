//! Nodes as clusters have them, and their kubelets.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use futures_util::{StreamExt, stream};
use hyper::header::CONTENT_TYPE;
use hyper::http::Request;
use kube::Client;
use serde_json::{Value, json};

use crate::Failure;
use crate::control_plane::{ControlPlane, within};

/// Kubelet tells of so many images.
const IMAGES: u64 = 50;

/// The cluster has so many; each node has some of them.
const IMAGES_OF_ALL: u64 = 150;

/// Requests at a time.
const AT_ONCE: usize = 8;

/// A node's name.
pub fn name(number: u32) -> String {
    format!("node-{number:05}.example.internal")
}

/// A node's address.
pub fn address(number: u32) -> String {
    format!("172.20.{}.{}", number / 250, number % 250 + 1)
}

/// A Node as its kubelet registers it, with what kube-controller-manager adds.
fn node(number: u32) -> Value {
    let name = name(number);
    let zone = format!("zone-{}", number % 3);
    let images: Vec<Value> =
        (0..IMAGES).map(|place| image((u64::from(number) * 7 + place * 3) % IMAGES_OF_ALL)).collect();
    let capacity = json!({ "cpu": "16", "ephemeral-storage": "102626232Ki", "hugepages-1Gi": "0",
        "hugepages-2Mi": "0", "memory": "64792532Ki", "pods": "110" });
    let hex = |salt: u64| digest(u64::from(number) * 31 + salt);
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {
                "beta.kubernetes.io/arch": "amd64", "beta.kubernetes.io/instance-type": "m6i.4xlarge",
                "beta.kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64",
                "kubernetes.io/hostname": name, "kubernetes.io/os": "linux",
                "node.kubernetes.io/instance-type": "m6i.4xlarge",
                "topology.kubernetes.io/region": "region-1", "topology.kubernetes.io/zone": zone,
            },
            "annotations": {
                "csi.volume.kubernetes.io/nodeid": format!("{{\"ebs.csi.example\":\"i-{}\"}}", &hex(1)[..17]),
                "node.alpha.kubernetes.io/ttl": "0",
                "volumes.kubernetes.io/controller-managed-attach-detach": "true",
            },
        },
        "spec": {
            "podCIDR": pod_cidr(number), "podCIDRs": [pod_cidr(number)],
            "providerID": format!("cloud:///{zone}/i-{}", &hex(1)[..17]),
        },
        "status": {
            "addresses": [
                { "type": "InternalIP", "address": address(number) },
                { "type": "Hostname", "address": name },
            ],
            "allocatable": capacity, "capacity": capacity,
            "conditions": conditions("2026-11-30T10:00:00Z"),
            "daemonEndpoints": { "kubeletEndpoint": { "Port": 10250 } },
            "images": images,
            "nodeInfo": {
                "architecture": "amd64", "bootID": &hex(2)[..36], "containerRuntimeVersion": "containerd://2.1.4",
                "kernelVersion": "6.12.40-cloud-amd64", "kubeProxyVersion": "", "kubeletVersion": "v1.34.4",
                "machineID": &hex(3)[..32], "operatingSystem": "linux", "osImage": "Debian GNU/Linux 13 (trixie)",
                "systemUUID": &hex(4)[..36],
            },
        },
    })
}

fn pod_cidr(number: u32) -> String {
    format!("10.{}.{}.0/24", 100 + number / 250, number % 250)
}

/// Digits as if by chance, the same in each run.
fn digest(seed: u64) -> String {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut text = String::new();
    for _ in 0..4 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let _ = write!(text, "{state:016x}");
    }
    text
}

fn image(number: u64) -> Value {
    let team = number % 17;
    let repository = format!("registry.example.internal:5000/team-{team:02}/service-{number:03}");
    json!({
        "names": [format!("{repository}@sha256:{}", digest(number + 1)), format!("{repository}:v1.{number}.0")],
        "sizeBytes": 40_000_000 + number * 1_234_567,
    })
}

fn conditions(heartbeat: &str) -> Value {
    let condition = |kind: &str, status: &str, reason: &str, message: &str| {
        json!({ "type": kind, "status": status, "reason": reason, "message": message,
            "lastHeartbeatTime": heartbeat, "lastTransitionTime": "2026-11-01T08:00:00Z" })
    };
    json!([
        condition(
            "NetworkUnavailable",
            "False",
            "FerruleIsUp",
            "ferrule has set up routes, nftables table and network configuration"
        ),
        condition(
            "MemoryPressure",
            "False",
            "KubeletHasSufficientMemory",
            "kubelet has sufficient memory available"
        ),
        condition("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        condition("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        condition("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
    ])
}

/// Makes the Nodes; how many bytes one of them has, as the server writes it.
pub fn create(server: &ControlPlane, count: u32) -> Result<usize, Failure> {
    server.run(async |client| {
        let made = stream::iter(0..count).map(|number| {
            let client = client.clone();
            async move {
                let request = Request::post("/api/v1/nodes").header(CONTENT_TYPE, "application/json");
                let made = client.request_text(request.body(serde_json::to_vec(&node(number))?)?).await?;
                // As all have it that have lived for a while.
                beat(&client, number).await?;
                Ok::<_, Failure>(made.len())
            }
        });
        let made: Vec<Result<usize, Failure>> = made.buffer_unordered(AT_ONCE).collect().await;
        made.into_iter().collect::<Result<Vec<usize>, Failure>>()
    })?;
    Ok(server.get(&format!("/api/v1/nodes/{}", name(count / 2)))?.len())
}

/// What kubelet writes if nothing has changed.
async fn beat(client: &Client, number: u32) -> Result<(), Failure> {
    let now = SystemTime::UNIX_EPOCH.elapsed()?.as_secs();
    let time = format!("2026-11-30T{:02}:{:02}:{:02}Z", now / 3600 % 24, now / 60 % 60, now % 60);
    let body = json!({ "status": { "conditions": conditions(&time) } });
    let request = Request::patch(format!("/api/v1/nodes/{}/status", name(number)))
        .header(CONTENT_TYPE, "application/strategic-merge-patch+json")
        .body(serde_json::to_vec(&body)?)?;
    client.request_text(request).await?;
    Ok(())
}

/// All kubelets, until it is dropped.
pub struct Heartbeats {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    ends: AtomicBool,
    count: AtomicU64,
    refused: AtomicU64,
}

impl Heartbeats {
    /// Starts so many writes a second, one Node after the other.
    pub fn start(server: &ControlPlane, nodes: u32, rate: f64) -> Self {
        let (netns, shared) = (server.netns.path().to_owned(), Arc::new(Shared::default()));
        let told = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let _ = within(&netns, async |client| {
                let mut ticks = tokio::time::interval(Duration::from_secs_f64(1.0 / rate));
                let mut number = 0;
                while !told.ends.load(Ordering::Relaxed) {
                    ticks.tick().await;
                    let (client, told) = (client.clone(), Arc::clone(&told));
                    tokio::spawn(async move {
                        match beat(&client, number).await {
                            Ok(()) => told.count.fetch_add(1, Ordering::Relaxed),
                            Err(_) => told.refused.fetch_add(1, Ordering::Relaxed),
                        }
                    });
                    number = (number + 1) % nodes;
                }
                Ok(())
            });
        });
        Self { shared, thread: Some(thread) }
    }

    /// Writes so far.
    pub fn count(&self) -> u64 {
        self.shared.count.load(Ordering::Relaxed)
    }

    /// Those that failed.
    pub fn refused(&self) -> u64 {
        self.shared.refused.load(Ordering::Relaxed)
    }
}

impl Drop for Heartbeats {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
