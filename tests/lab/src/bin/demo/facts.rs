//! The kernel's own words: what the plugin made, read by `ip`, and what is left of a pod that was killed.

use std::fs;
use std::net::IpAddr;
use std::time::Duration;

use lab::cri::Client;
use lab::{Node, Result, eventually};

use crate::network::Network;
use crate::pods::Pod;
use crate::screen::Screen;

type Shown<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Shows a node's routes and links, and what one of its pods sees.
pub fn show_kernel(screen: &Screen, node: &Node, pod: &Pod) -> Shown<()> {
    let name = &node.plan().name;
    screen.heading(&format!("What the kernel says on {name}"))?;
    for command in ["ip route", "ip -6 route"] {
        // fe80::/64 and multicast are the kernel's, on every link: noise here.
        let routes = run_words(node, command)?;
        let routes: Vec<&str> = routes.lines().filter(|line| !line.starts_with("fe80::/64")).collect();
        screen.quote(command, &routes.join("\n"))?;
    }
    screen.quote("ip link show type veth", &run_words(node, "ip link show type veth")?)?;
    screen.heading(&format!("... and inside its pod {}", pod.name))?;
    for command in ["ip address show eth0", "ip route", "ip -6 route", "ip neighbour"] {
        let inside = format!("nsenter --target {} --net {command}", pod.pid);
        screen.quote(command, &run_words(node, &inside)?)?;
    }
    Ok(())
}

/// Kills a pod as the kernel's OOM killer would, does what kubelet does about it, and looks for what is left.
///
/// Says what should be gone and is not.
pub async fn show_death(
    screen: &Screen,
    network: &Network,
    cri: &Client,
    node: &Node,
    pod: &Pod,
) -> Shown<Vec<String>> {
    let node_name = &node.plan().name;
    screen.heading(&format!("{} on {node_name} is killed (SIGKILL to the pod's first process)", pod.name))?;
    let before = Traces::find(network, node, pod)?;
    screen.line(&format!("  before: {}", before.spell()))?;

    node.run("kill", &["-KILL", &pod.pid.to_string()])?;
    eventually("the runtime to notice", Duration::from_secs(20), async || {
        match cri.pod_status(&pod.id).await {
            Ok(status) if status.is_ready => Err("the pod is still said to be ready".to_owned()),
            Ok(_) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    })
    .await?;
    cri.stop_pod(&pod.id).await?;
    cri.remove_pod(&pod.id).await?;

    let after = Traces::find(network, node, pod)?;
    screen.line(&format!("  after:  {}", after.spell()))?;
    let mut faults = before.missing();
    faults.extend(after.left(&before));
    screen.verdict(faults.is_empty(), "its addresses are free again, its link and routes are gone")?;
    Ok(faults)
}

/// What a node has of one pod.
struct Traces {
    pod: String,
    /// How many ends of pod links the node has, this pod's and others'.
    links: usize,
    /// Routes of the node to exactly this pod.
    routes: usize,
    /// Addresses of this pod that the store holds.
    held: Vec<IpAddr>,
    /// All addresses that the store holds.
    held_by_all: usize,
}

impl Traces {
    fn find(network: &Network, node: &Node, pod: &Pod) -> Shown<Self> {
        // One of the veths is the node's own cable.
        let links = json_list(&node.run("ip", &["-json", "link", "show", "type", "veth"])?)?;
        let links = links.iter().filter(|link| link.get("ifname").is_some_and(|name| name != "eth0")).count();
        let mut routes = 0;
        for address in &pod.addresses {
            let family = if address.is_ipv4() { "-4" } else { "-6" };
            let found = node.run("ip", &["-json", family, "route", "show", "exact", &address.to_string()])?;
            routes += json_list(&found)?.len();
        }
        let names = fs::read_dir(node.path(network.store()))?
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let held: Vec<IpAddr> = names.filter_map(|name| name.parse().ok()).collect();
        let mine = held.iter().copied().filter(|address| pod.addresses.contains(address)).collect();
        Ok(Self { pod: pod.name.clone(), links, routes, held: mine, held_by_all: held.len() })
    }

    fn spell(&self) -> String {
        let held: Vec<String> = self.held.iter().map(IpAddr::to_string).collect();
        let held = if held.is_empty() { "none".to_owned() } else { held.join(", ") };
        format!(
            "{} pod links on the node, {} routes to {pod}, addresses of {pod} held: {held} ({} held in all)",
            self.links,
            self.routes,
            self.held_by_all,
            pod = self.pod
        )
    }

    /// A comparison is worth something only if there was something before.
    fn missing(&self) -> Vec<String> {
        if self.held.len() == 2 {
            Vec::new()
        } else {
            vec![format!("{} held no address of each family", self.pod)]
        }
    }

    fn left(&self, before: &Self) -> Vec<String> {
        let mut left = Vec::new();
        if self.links + 1 != before.links {
            left.push(format!("the link of the dead {}", self.pod));
        }
        if self.routes > 0 {
            left.push(format!("{} routes to the dead {}", self.routes, self.pod));
        }
        if !self.held.is_empty() {
            left.push(format!("addresses of the dead {} are still held", self.pod));
        }
        left
    }
}

fn json_list(text: &str) -> serde_json::Result<Vec<serde_json::Value>> {
    // `ip -json` says nothing at all where it means an empty list.
    if text.trim().is_empty() { Ok(Vec::new()) } else { serde_json::from_str(text) }
}

fn run_words(node: &Node, command: &str) -> Result<String> {
    let mut words = command.split_whitespace();
    node.run(words.next().unwrap_or_default(), &words.collect::<Vec<_>>())
}
