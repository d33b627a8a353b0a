//! A node with ferrule, its pods, and what can be seen of them without asking ferrule.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use kit::binaries::FERRULE;
use kit::files::Scratch;
use lab::cri::Client;
use lab::cri::messages::{ContainerConfig, PodSandboxConfig};
use lab::{Error, IMAGE, Lab, Node, NodePlan, Result, eventually};
use serde_json::{Value, json};
use tokio::task::JoinSet;

/// What a test returns.
pub type Test = std::result::Result<(), Box<dyn std::error::Error>>;

/// Longer than anything here takes on a busy machine.
pub const LIMIT: Duration = Duration::from_secs(60);

const STORE: &str = "/var/lib/cni/ferrule/podnet";

/// A lab in which every node knows the others as static peers. `subnet_v4` says the node's IPv4 range.
pub async fn start_lab(nodes: u8, subnet_v4: impl Fn(&NodePlan) -> String) -> Result<Lab> {
    // ferrule alone, under both names that containerd looks for.
    let scratch = Scratch::new("loopback");
    let loopback = scratch.path().join("loopback");
    std::os::unix::fs::symlink(&*FERRULE, &loopback).unwrap();
    let plugins = [FERRULE.clone(), loopback];
    let conflist = |node: &NodePlan, all: &[NodePlan]| write_conflist(node, all, &subnet_v4(node));
    Lab::start(&NodePlan::first(nodes), conflist, &plugins).await
}

/// In 1.0.0: containerd 1.6 knows no 1.1.0.
pub fn write_conflist(node: &NodePlan, all: &[NodePlan], subnet_v4: &str) -> String {
    let others = all.iter().filter(|other| other.name != node.name);
    let peers: Vec<Value> = others
        .map(|other| {
            json!({ "node": other.name, "podCIDRs": [other.pod_cidr_v4, other.pod_cidr_v6],
                    "nodeIPs": [other.ipv4, other.ipv6] })
        })
        .collect();
    let conf = json!({ "cniVersion": "1.0.0", "name": "podnet", "plugins": [{
        "type": "ferrule",
        "capabilities": { "portMappings": true, "bandwidth": true },
        "ipam": {
            "type": "ferrule",
            "ranges": [[{ "subnet": subnet_v4 }], [{ "subnet": node.pod_cidr_v6 }]],
            "routes": [{ "dst": "0.0.0.0/0" }, { "dst": "::/0" }]
        },
        "peers": peers
    }] });
    conf.to_string()
}

/// A running pod with a web server that says who asked.
pub struct Pod {
    pub name: String,
    /// The sandbox's id, which is the CNI container id.
    pub id: String,
    pub config: PodSandboxConfig,
    /// The container with the server.
    pub server: String,
    pub addresses: Vec<IpAddr>,
    /// The sandbox's process as the node numbers it.
    pub pid: i64,
}

/// Runs a pod with a server.
pub async fn run_server(node: &Node, name: &str) -> Result<Pod> {
    run_server_as(node, node.pod("default", name)).await
}

/// Runs such a pod with a server.
pub async fn run_server_as(node: &Node, config: PodSandboxConfig) -> Result<Pod> {
    let cri = node.cri().await?;
    let name = config.hostname.clone();
    let id = cri.run_pod(&config).await?;
    let words = ["httpd", "-f", "-p", "80", "-h", "/www"];
    let server = cri.run_container(&id, &config, ContainerConfig::new("server", IMAGE, &words)).await?;
    let status = cri.pod_status(&id).await?;
    Ok(Pod { name, id, config, server, addresses: status.addresses, pid: status.pid })
}

/// Runs bare sandboxes, all at once; for each the id or the runtime's complaint, in no order.
pub async fn run_at_once(node: &Node, names: &[String]) -> Result<JoinSet<Result<String>>> {
    let cri = node.cri().await?;
    let mut calls = JoinSet::new();
    for name in names {
        let (cri, config) = (cri.clone(), node.pod("burst", name));
        calls.spawn(async move { run_as_kubelet_does(&cri, &config).await });
    }
    Ok(calls)
}

/// Starts a pod, again where it failed for a reason of containerd's own: the native snapshotter of one that was
/// killed leaves directories that its successor stumbles over, once for each.
async fn run_as_kubelet_does(cri: &Client, config: &PodSandboxConfig) -> Result<String> {
    const ATTEMPTS: usize = 16;
    for _ in 1..ATTEMPTS {
        match cri.run_pod(config).await {
            Err(Error::Call { status, .. }) if status.message().contains("snapshots/new-") => {}
            outcome => return outcome,
        }
    }
    cri.run_pod(config).await
}

/// `count` names.
pub fn names(word: &str, count: usize) -> Vec<String> {
    (1..=count).map(|number| format!("{word}-{number}")).collect()
}

/// The ids, if every call succeeded.
pub async fn all_of(calls: JoinSet<Result<String>>) -> Result<Vec<String>> {
    calls.join_all().await.into_iter().collect()
}

/// Stops and removes pods, all at once, as kubelet does with those of a deleted namespace.
pub async fn remove_pods(cri: &Client, ids: &[String]) -> Result<()> {
    let mut calls = JoinSet::new();
    for id in ids {
        let (cri, id) = (cri.clone(), id.clone());
        calls.spawn(async move {
            cri.stop_pod(&id).await?;
            cri.remove_pod(&id).await
        });
    }
    calls.join_all().await.into_iter().collect()
}

/// Stops and removes every pod that the runtime knows.
pub async fn remove_all_pods(node: &Node) -> Result<()> {
    let cri = node.cri().await?;
    let ids: Vec<String> = cri.pods().await?.into_iter().map(|pod| pod.id).collect();
    remove_pods(&cri, &ids).await
}

/// The page that says who asks, at a host.
pub fn page_of(host: &str) -> String {
    format!("http://{host}/cgi-bin/who")
}

/// The address as it stands in a URL.
pub fn in_url(address: IpAddr) -> String {
    if address.is_ipv6() { format!("[{address}]") } else { address.to_string() }
}

/// The address as busybox' server, which listens for both families at once, writes whoever asks.
pub fn as_seen(address: IpAddr) -> String {
    if address.is_ipv6() { format!("[{address}]") } else { format!("[::ffff:{address}]") }
}

/// A shell line that asks each page in turn, three times at most, and prints each answer or what failed.
pub fn ask_each(pages: &[String], wget: &str) -> String {
    let asks = pages.iter().map(|page| {
        let ask = format!("timeout 2 {wget} -qO- '{page}' 2>/dev/null");
        format!("{ask} || {ask} || {ask} || echo 'no answer from {page}'\n")
    });
    asks.collect()
}

/// What a container hears from each page.
pub async fn ask(node: &Node, container: &str, pages: &[String]) -> Result<Vec<String>> {
    let line = ask_each(pages, "wget");
    let output = node.cri().await?.exec(container, &["sh", "-c", &line], LIMIT).await?;
    Ok(output.stdout.lines().map(str::to_owned).collect())
}

/// Waits until a pod's server answers: the runtime does not say when a container listens.
pub async fn await_server(node: &Node, pod: &Pod) -> Result<()> {
    let Some(&address) = pod.addresses.first() else { return Ok(()) };
    eventually(&format!("the server of {}", pod.name), LIMIT, async || {
        let page = page_of(&in_url(address));
        let answer = node.run("timeout", &["2", "busybox", "wget", "-qO-", &page]);
        answer.map(|_| ()).map_err(|error| error.to_string())
    })
    .await
}

/// The addresses that are held, from the names of their files.
pub fn held(node: &Node) -> io::Result<Vec<String>> {
    names_in(&node.path(STORE).join("by-ip"))
}

/// The attachments that have a record: `<container id>@<ifname>`.
pub fn records(node: &Node) -> io::Result<Vec<String>> {
    names_in(&node.path(STORE).join("by-id"))
}

fn names_in(directory: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut names = entries
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<io::Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}

/// Makes the records look `seconds` older than they are.
pub fn age_records(node: &Node, seconds: u64) -> Test {
    for name in records(node)? {
        let path = node.path(STORE).join("by-id").join(name);
        let mut record: Value = serde_json::from_slice(&fs::read(&path)?)?;
        let created = record["created"].as_u64().ok_or("a record without a time")?;
        record["created"] = json!(created - seconds);
        record.as_object_mut().ok_or("no object")?.remove("sum");
        // In place: the file has other names.
        fs::write(&path, serde_json::to_vec_pretty(&record)?)?;
    }
    Ok(())
}

/// The aliases of the pods' links on the node, sorted.
pub fn pod_links(node: &Node) -> std::result::Result<Vec<String>, Box<dyn std::error::Error>> {
    let links: Vec<Value> =
        serde_json::from_str(&node.run("ip", &["-j", "-d", "link", "show", "type", "veth"])?)?;
    // The node's own is its cable to the underlay.
    let pods = links.iter().filter(|link| link["ifname"] != "eth0");
    let mut aliases: Vec<String> =
        pods.map(|link| link["ifalias"].as_str().unwrap_or("a link without an alias").to_owned()).collect();
    aliases.sort();
    Ok(aliases)
}

/// The node's routes to single addresses of its pods.
pub fn pod_routes(node: &Node) -> std::result::Result<Vec<String>, Box<dyn std::error::Error>> {
    let mut found = Vec::new();
    for family in ["-4", "-6"] {
        let routes: Vec<Value> = serde_json::from_str(&node.run("ip", &[family, "-j", "route", "show"])?)?;
        let devices =
            routes.iter().filter(|route| route["dev"].as_str().is_some_and(|dev| dev.starts_with("veth")));
        found.extend(devices.map(|route| route["dst"].as_str().unwrap_or_default().to_owned()));
    }
    Ok(found)
}

/// Asserts that the node has nothing of a pod any more: no address, no record, no link, no route.
#[track_caller]
pub fn assert_nothing_left(node: &Node) {
    assert_eq!(held(node).unwrap(), Vec::<String>::new(), "addresses are held");
    assert_eq!(records(node).unwrap(), Vec::<String>::new(), "attachments are recorded");
    assert_eq!(pod_links(node).unwrap(), Vec::<String>::new(), "links are left");
    assert_eq!(pod_routes(node).unwrap(), Vec::<String>::new(), "routes are left");
}
