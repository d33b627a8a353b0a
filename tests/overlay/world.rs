//! Three nodes with a pod each, and a router that knows nothing of pods.
//!
//! ```text
//!   node 1  192.168.1.11, fd01::11 ┐                                     ┌ node 2  192.168.2.12, fd02::12
//!   node 3  192.168.1.13, fd01::13 ┴ br0  router  192.168.n.1, fd0n::1  ─┘
//!   pod of node n  10.244.n.10, fd00:n::10
//! ```
//!
//! Made with `ip`. rp_filter is strict everywhere, as on many a node, and on the router too: it drops what comes from a
//! pod's address, as a cloud does.

use ferrule::cni::ids::NetworkName;
use ferrule::config::peer::Peer;
use ferrule::datapath::error::DatapathError;
use ferrule::datapath::overlay::{self, OverlayDone, Settings, Ways};
use ferrule::datapath::peers::{self, Synchronised};
use ferrule::desired::node::NodeState;
use ferrule::desired::overlay::{DEFAULT_ID, DEFAULT_PORT, Overlay, Routing, Way};
use ferrule::linux::netlink::Netlink;
use ferrule::linux::route::Family;
use serde_json::Value;

use kit::netns::{Namespace, inside};
use kit::underlay::plug;
use kit::wired::{WiredPod, Wiring};
use kit::{block_on, ip};

/// What a node with both families, which others know as `own`, is told of itself and of `peers`.
pub fn state_of(own: Peer, peers: Vec<Peer>) -> NodeState {
    NodeState {
        block_metadata: false,
        network: NetworkName::parse("podnet").unwrap(),
        subnets: own.pod_cidrs,
        delegated: vec![],
        ipv4: true,
        ipv6: true,
        gateways: vec![],
        node_ips: own.node_ips,
        peers,
    }
}

/// What an agent would take if nobody said anything.
pub const SETTINGS: Settings = Settings { id: DEFAULT_ID, port: DEFAULT_PORT, mtu: None };

/// The device, as people see it.
pub const DEVICE: &str = "ferrule-vxlan";

/// All of it.
pub struct World {
    /// Knows the two subnets of nodes.
    pub router: Namespace,
    /// Nodes 1, 2 and 3.
    pub nodes: Vec<Node>,
}

/// A node and its pod.
pub struct Node {
    /// The node.
    pub namespace: Namespace,
    /// Its pod.
    pub pod: Namespace,
    /// Its number.
    pub n: u8,
    /// Its addresses, as Kubernetes would tell them.
    pub addresses: Vec<String>,
    /// Its pods' subnets.
    pub pod_cidrs: Vec<String>,
}

/// What one round of an agent did.
#[derive(Debug)]
pub struct Round {
    /// Who is reached how.
    pub ways: Ways,
    /// The overlay, where there is one.
    pub overlay: Option<OverlayDone>,
    /// The peers' routes.
    pub routes: Synchronised,
}

/// How node 1 reaches nodes 2 and 3, each by IPv4 and IPv6.
pub fn ways(ways: [Way; 4]) -> Vec<(String, Family, Way)> {
    let of = [("node-2", Family::V4), ("node-2", Family::V6), ("node-3", Family::V4), ("node-3", Family::V6)];
    of.into_iter().zip(ways).map(|((node, family), way)| (node.to_owned(), family, way)).collect()
}

impl Round {
    /// Whether nothing had to be done and nothing failed.
    pub fn changed_nothing(&self) -> bool {
        let overlay = self.overlay.clone().unwrap_or_default();
        overlay == OverlayDone::default() && self.routes == Synchronised::default()
    }

    /// All failures, as text.
    pub fn failures(&self) -> Vec<String> {
        let overlay = self.overlay.iter().flat_map(|done| &done.failures);
        self.ways
            .failures
            .iter()
            .chain(overlay)
            .chain(&self.routes.failures)
            .map(ToString::to_string)
            .collect()
    }
}

impl World {
    /// Makes them, without any route between pods.
    pub fn new() -> Self {
        let router = Namespace::new("router");
        router.forward(1);
        router.ip_batch(
            "link add br0 address 02:00:00:00:00:01 type bridge\nlink set br0 up\n\
             address add 192.168.1.1/24 dev br0\naddress add fd01::1/64 dev br0 nodad\n",
        );
        let nodes = (1..=3).map(|n| Node::new(n, &router)).collect();
        router.ip_batch(
            "link set port1 master br0\nlink set port3 master br0\n\
             address add 192.168.2.1/24 dev port2\naddress add fd02::1/64 dev port2 nodad\n",
        );
        Self { router, nodes }
    }

    /// Node `n`.
    pub fn node(&self, n: u8) -> &Node {
        &self.nodes[usize::from(n) - 1]
    }

    /// The others as node `n` is told of them.
    pub fn peers_of(&self, n: u8) -> Vec<Peer> {
        self.nodes.iter().filter(|node| node.n != n).map(Node::as_peer).collect()
    }

    /// One round on each node, in which nothing may fail.
    pub fn settle(&self, routing: Routing) {
        for node in &self.nodes {
            let round = node.round(routing, self.peers_of(node.n)).unwrap();
            assert_eq!(round.failures(), [""; 0], "node {}", node.n);
        }
    }
}

impl Node {
    fn new(n: u8, router: &Namespace) -> Self {
        let subnet = subnet_of(n);
        let namespace = Namespace::new(&format!("node{n}"));
        namespace.forward(1);
        namespace.ip("link set lo up");
        plug(&namespace, router, &format!("port{n}"));
        let addresses = [format!("192.168.{subnet}.1{n}"), format!("fd0{subnet}::1{n}")];
        raise_uplink(&namespace, &addresses, subnet);
        let wiring = Wiring {
            host_link: "vethpod",
            more: "",
            number: n,
            addresses: pod_addresses(n),
            node: addresses.each_ref().map(String::as_str),
        };
        let pod = WiredPod::new(&format!("pod{n}"), &namespace, wiring).namespace;
        let pod_cidrs = vec![format!("10.244.{n}.0/24"), format!("fd00:{n}::/64")];
        Self { namespace, pod, n, addresses: addresses.to_vec(), pod_cidrs }
    }

    /// Gives the uplink its addresses and default routes.
    pub fn raise_uplink(&self) {
        raise_uplink(&self.namespace, &self.addresses, subnet_of(self.n));
    }

    /// The pod's addresses.
    pub fn pod_addresses(&self) -> [String; 2] {
        pod_addresses(self.n)
    }

    /// How others are told of it.
    pub fn as_peer(&self) -> Peer {
        Peer {
            node: format!("node-{}", self.n),
            pod_cidrs: self.pod_cidrs.iter().map(|text| text.parse().unwrap()).collect(),
            node_ips: self.addresses.iter().map(|text| text.parse().unwrap()).collect(),
        }
    }

    /// What it is told of itself and of `peers`.
    pub fn state(&self, peers: Vec<Peer>) -> NodeState {
        state_of(self.as_peer(), peers)
    }

    /// Does `work` on the node.
    pub fn on<T: Send>(&self, work: impl AsyncFnOnce(&Netlink) -> T + Send) -> T {
        inside(&self.namespace, || block_on(async { work(&Netlink::open_here().unwrap()).await }))
    }

    /// What an agent does after any event.
    pub fn round(&self, routing: Routing, peers: Vec<Peer>) -> Result<Round, DatapathError> {
        self.round_with(routing, peers, SETTINGS)
    }

    /// The same with other settings.
    pub fn round_with(
        &self,
        routing: Routing,
        peers: Vec<Peer>,
        settings: Settings,
    ) -> Result<Round, DatapathError> {
        let state = self.state(peers);
        self.on(async |netlink| {
            let ways = overlay::ways(netlink, &state, routing).await?;
            match overlay::describe(netlink, &state, &ways, settings, false).await? {
                Some(wanted) => {
                    let done = overlay::keep(netlink, &wanted).await?;
                    let routes = peers::synchronise_with(netlink, &state, &wanted).await?;
                    Ok(Round { ways, overlay: Some(done), routes })
                }
                None => {
                    let routes = peers::synchronise(netlink, &state).await?;
                    overlay::remove(netlink).await?;
                    Ok(Round { ways, overlay: None, routes })
                }
            }
        })
    }

    /// The overlay that it would make.
    pub fn overlay(&self, routing: Routing, peers: Vec<Peer>) -> Option<Overlay> {
        let state = self.state(peers);
        self.on(async |netlink| {
            let ways = overlay::ways(netlink, &state, routing).await.unwrap();
            overlay::describe(netlink, &state, &ways, SETTINGS, false).await.unwrap()
        })
    }

    /// All that is kept for peers, as text to compare: device, forwarding entries, neighbours, rules, routes.
    pub fn picture(&self) -> Vec<String> {
        let mut found = Vec::new();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        if let Some(link) = ip::link(&self.namespace, DEVICE) {
            let data = &link["linkinfo"]["info_data"];
            found.push(format!(
                "link {} mtu {} id {} port {} local {}{} learning {} {}",
                text(&link["address"]),
                link["mtu"],
                data["id"],
                data["port"],
                text(&data["local"]),
                text(&data["local6"]),
                data["learning"],
                link["flags"]
            ));
            found.extend(self.forwarding_entries());
        }
        let here = ip::neighbours(&self.namespace);
        let here = here.iter().filter(|it| it["dev"] == DEVICE && it["state"][0] == "PERMANENT");
        found.extend(here.map(|it| format!("neighbour {} {}", text(&it["dst"]), text(&it["lladdr"]))));
        for family in ["-4", "-6"] {
            let rules = self.namespace.ip(&format!("{family} -j rule show"));
            let rules: Vec<Value> = serde_json::from_str(&rules).unwrap();
            let ours = rules.iter().filter(|rule| rule["protocol"] == "102");
            found.extend(ours.map(|rule| format!("rule {} {}", rule["priority"], text(&rule["src"]))));
            for route in ip::routes(&self.namespace, &format!("{family} table all proto 102")) {
                let table = route["table"].as_str().unwrap_or("main");
                let via = text(&route["gateway"]);
                found.push(format!(
                    "route {} via {via} dev {} table {table}",
                    text(&route["dst"]),
                    text(&route["dev"])
                ));
            }
        }
        found.sort();
        found
    }

    /// The device's, as `bridge` lists them.
    pub fn forwarding_entries(&self) -> Vec<String> {
        let words = ["-n", self.namespace.name(), "-j", "fdb", "show", "dev", DEVICE];
        let run = std::process::Command::new("bridge").args(words).output().unwrap();
        let entries: Vec<Value> = serde_json::from_slice(&run.stdout).unwrap();
        let text = |it: &Value| {
            assert_eq!((&it["state"], &it["flags"][0]), (&"permanent".into(), &"self".into()), "{it}");
            format!("fdb {} {}", it["mac"].as_str().unwrap(), it["dst"].as_str().unwrap())
        };
        let mut entries: Vec<String> = entries.iter().map(text).collect();
        entries.sort();
        entries
    }
}

/// Of which of the router's two subnets node `n` is.
fn subnet_of(n: u8) -> u8 {
    if n == 2 { 2 } else { 1 }
}

fn pod_addresses(n: u8) -> [String; 2] {
    [format!("10.244.{n}.10"), format!("fd00:{n}::10")]
}

fn raise_uplink(node: &Namespace, addresses: &[String], subnet: u8) {
    let [four, six] = addresses else { panic!("two addresses") };
    node.ip_batch(&format!(
        "link set up0 up\naddress replace {four}/24 dev up0\naddress replace {six}/64 dev up0 nodad\n\
         route replace default via 192.168.{subnet}.1\nroute replace default via fd0{subnet}::1\n"
    ));
}
