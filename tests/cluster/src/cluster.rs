//! The cluster under test: its nodes, its address families, and what is asked of kubectl about all of it.

use std::net::IpAddr;

use serde_json::Value;

use crate::process::{Result, run, run_with_input};

/// Where a node keeps what [`Cluster::note_nodes`] noted; it outlives a restart of the node.
const NOTES: &str = "/kind/before-the-network";

/// The image of Kubernetes' own tests; kind's nodes may hold another version of it already.
const AGNHOST: &str = "registry.k8s.io/e2e-test-images/agnhost:2.53";

/// What a node has that a network plugin might leave behind; one thing a line, sorted, so that two states compare.
const STATE: &str = r#"
    find /opt/cni/bin /etc/cni/net.d -mindepth 1 2>/dev/null
    find /var/lib/cni -name 'ferrule*' -prune 2>/dev/null
    ip -o link show | sed 's/^[0-9]*: \([^:@]*\).*/link \1/'
    ip route show table all proto 102 | sed 's/^/route /'
    ip -6 route show table all proto 102 | sed 's/^/route /'
    nft list tables | grep -v -e ' kube-proxy$' -e ' \(nat\|filter\|mangle\|raw\)$'
    sysctl net.ipv4.ip_forward net.ipv6.conf.all.forwarding net.ipv4.conf.all.rp_filter
"#;

/// An address family, as Kubernetes spells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// `IPv4`
    V4,
    /// `IPv6`
    V6,
}

impl Family {
    /// That of an address.
    pub fn of(address: &IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

/// A node, as the API server knows it.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its name, which is that of kind's container too.
    pub name: String,
    /// Its InternalIPs, one per family.
    pub addresses: Vec<IpAddr>,
    /// Its pod ranges, one per family.
    pub pod_ranges: Vec<String>,
    /// Whether it has the label of a control plane.
    pub is_control_plane: bool,
}

impl Node {
    /// Runs a program on the node itself, in its own namespaces, and gives what it said.
    pub fn run(&self, words: &[&str]) -> Result<String> {
        let mut all = vec!["exec", self.name.as_str()];
        all.extend(words);
        run("docker", &all)
    }

    /// The same for a line of shell.
    pub fn shell(&self, script: &str) -> Result<String> {
        self.run(&["sh", "-c", script])
    }

    /// Its address of a family.
    pub fn address(&self, family: Family) -> Result<IpAddr> {
        let found = self.addresses.iter().find(|address| Family::of(address) == family);
        found.copied().ok_or_else(|| format!("{} has no {family:?} address", self.name).into())
    }

    /// What it has that a network might leave behind, one thing a line.
    pub fn state(&self) -> Result<String> {
        let mut lines: Vec<String> = self.shell(STATE)?.lines().map(str::to_owned).collect();
        lines.sort();
        Ok(lines.join("\n"))
    }

    /// What it had before the network was installed.
    pub fn state_noted(&self) -> Result<String> {
        self.run(&["cat", NOTES])
    }

    fn read(item: &Value) -> Result<Self> {
        let text = |pointer| item.pointer(pointer).and_then(Value::as_str);
        let list = |pointer| item.pointer(pointer).and_then(Value::as_array).cloned().unwrap_or_default();
        let name = text("/metadata/name").ok_or("a node without a name")?.to_owned();
        let addresses = list("/status/addresses")
            .iter()
            .filter(|address| address["type"] == "InternalIP")
            .filter_map(|address| address["address"].as_str()?.parse().ok())
            .collect();
        let pod_ranges =
            list("/spec/podCIDRs").iter().filter_map(|range| range.as_str().map(str::to_owned)).collect();
        let is_control_plane = item
            .pointer("/metadata/labels")
            .is_some_and(|labels| labels.get("node-role.kubernetes.io/control-plane").is_some());
        Ok(Self { name, addresses, pod_ranges, is_control_plane })
    }
}

/// The cluster that KIND_CLUSTER_NAME names.
#[derive(Debug)]
pub struct Cluster {
    /// kind's name of it.
    pub name: String,
    /// Its nodes when the tests began, the control plane first.
    pub nodes: Vec<Node>,
    /// The families that pods have addresses of, the first one first.
    pub families: Vec<Family>,
    /// The agnhost image that the nodes have, or that they may pull.
    pub agnhost: String,
}

impl Cluster {
    /// Looks at it.
    pub fn discover() -> Result<Self> {
        let name = std::env::var("KIND_CLUSTER_NAME").unwrap_or_else(|_| "ferrule".to_owned());
        let mut cluster = Self { name, nodes: Vec::new(), families: Vec::new(), agnhost: AGNHOST.to_owned() };
        let answer = cluster.get(&["nodes"])?;
        cluster.nodes = cluster.read_nodes(&answer)?;
        let images = answer.pointer("/items/0/status/images").and_then(Value::as_array).cloned();
        let mut names = images.iter().flatten().filter_map(|image| image["names"].as_array()).flatten();
        let has_tag = |name: &&str| name.contains("/agnhost:") && !name.contains('@');
        if let Some(present) = names.find_map(|name| name.as_str().filter(has_tag)) {
            cluster.agnhost = present.to_owned();
        }
        let first = cluster.nodes.first().ok_or("the cluster has no node")?;
        let family = |range: &String| if range.contains(':') { Family::V6 } else { Family::V4 };
        cluster.families = first.pod_ranges.iter().map(family).collect();
        Ok(cluster)
    }

    /// The nodes as they are now; addresses and ranges may have changed.
    pub fn nodes_now(&self) -> Result<Vec<Node>> {
        self.read_nodes(&self.get(&["nodes"])?)
    }

    fn read_nodes(&self, answer: &Value) -> Result<Vec<Node>> {
        let items = answer["items"].as_array().ok_or("no list of nodes")?;
        let mut nodes = items.iter().map(Node::read).collect::<Result<Vec<_>>>()?;
        nodes.sort_by_key(|node| !node.is_control_plane);
        Ok(nodes)
    }

    /// The node with the control plane.
    pub fn control_plane(&self) -> Result<&Node> {
        self.nodes.iter().find(|node| node.is_control_plane).ok_or_else(|| "no control plane".into())
    }

    /// The `number`th worker, from 0; where there are fewer, the last node.
    pub fn worker(&self, number: usize) -> Result<&Node> {
        let workers = self.nodes.iter().filter(|node| !node.is_control_plane);
        workers.chain(self.nodes.last()).nth(number).or(self.nodes.last()).ok_or_else(|| "no node".into())
    }

    /// Runs kubectl against it.
    pub fn kubectl(&self, words: &[&str]) -> Result<String> {
        self.kubectl_with_input(words, "")
    }

    /// The same, with something on standard input.
    pub fn kubectl_with_input(&self, words: &[&str], input: &str) -> Result<String> {
        let context = format!("kind-{}", self.name);
        let mut all = vec!["--context", context.as_str()];
        all.extend(words);
        run_with_input("kubectl", &all, input)
    }

    /// Runs a line of the documents that begins with "kubectl", as its reader would in this checkout.
    pub fn follow(&self, line: &str) -> Result<String> {
        let words = line.split_whitespace().skip(1);
        let words: Vec<String> =
            words.map(|word| word.strip_prefix("deploy/").map_or_else(|| word.to_owned(), deploy)).collect();
        self.kubectl(&words.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// `kubectl get ... -o json`.
    pub fn get(&self, words: &[&str]) -> Result<Value> {
        let mut all = vec!["get", "--output", "json"];
        all.extend(words);
        parse(&self.kubectl(&all)?)
    }

    /// Waits for a rollout in kube-system, for instance of `daemonset/ferrule`.
    pub fn system_rolled_out(&self, what: &str) -> Result {
        let words = ["--namespace", "kube-system", "rollout", "status", what, "--timeout=180s"];
        self.kubectl(&words).map(|_| ())
    }

    /// The address of a Service, that of its first family.
    pub fn service_address(&self, namespace: &str, name: &str) -> Result<IpAddr> {
        let answer = self.get(&["--namespace", namespace, "service", name])?;
        let address = answer.pointer("/spec/clusterIP").and_then(Value::as_str).unwrap_or_default();
        address.parse().map_err(|_| format!("{namespace}/{name} has the address {address:?}").into())
    }

    /// Every pod of the cluster that has addresses of its own and is neither finished nor on its way out.
    pub fn pods_with_addresses(&self) -> Result<Vec<Value>> {
        let answer = self.get(&["pods", "--all-namespaces"])?;
        let items = answer["items"].as_array().cloned().unwrap_or_default();
        let lives = |pod: &Value| {
            let finished = matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
            !finished && pod["spec"]["hostNetwork"] != true && pod["metadata"]["deletionTimestamp"].is_null()
        };
        Ok(items.into_iter().filter(|pod| lives(pod) && pod["status"]["podIP"].is_string()).collect())
    }

    /// Notes on each node what it has now, before a network is installed.
    pub fn note_nodes(&self) -> Result {
        for node in &self.nodes {
            let state = node.state()?;
            run_with_input("docker", &["exec", "--interactive", &node.name, "tee", NOTES], &state)?;
        }
        Ok(())
    }
}

/// The addresses that the API server shows for a pod.
pub fn addresses_of(pod: &Value) -> Vec<IpAddr> {
    let list = pod.pointer("/status/podIPs").and_then(Value::as_array);
    list.into_iter().flatten().filter_map(|entry| entry["ip"].as_str()?.parse().ok()).collect()
}

/// A file of this checkout's deploy/.
pub fn deploy(name: &str) -> String {
    format!("{}/../../deploy/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// Reads JSON that a program printed.
pub fn parse(text: &str) -> Result<Value> {
    serde_json::from_str(text).map_err(|error| format!("{error} in {text}").into())
}
