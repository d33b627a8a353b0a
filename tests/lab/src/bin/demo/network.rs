//! The network under demonstration: ferrule, or ptp as the reference that anybody can compare with.

use std::path::PathBuf;

use lab::{Node, NodePlan, Result};
use serde_json::{Value, json};

/// Where the distribution's package puts the reference plugins.
const REFERENCE_DIRECTORY: &str = "/usr/lib/cni";

/// Which plugin the nodes get.
#[derive(Clone, Debug)]
pub enum Network {
    /// The program at this path, with `ferrulectl` beside it; it makes the routes between the nodes too.
    Ferrule(PathBuf),
    /// ptp with host-local; the demo makes the routes between the nodes.
    Ptp,
}

impl Network {
    /// As the headline says it.
    pub fn title(&self) -> &'static str {
        match self {
            Self::Ferrule(_) => "ferrule",
            Self::Ptp => "ptp + host-local, the reference",
        }
    }

    /// The programs to put into /opt/cni/bin. containerd 1.6 sets `lo` up by a plugin of that name.
    pub fn plugins(&self) -> Vec<PathBuf> {
        let reference = |name: &str| PathBuf::from(REFERENCE_DIRECTORY).join(name);
        match self {
            Self::Ferrule(program) => {
                vec![program.clone(), program.with_file_name("ferrulectl"), reference("loopback")]
            }
            Self::Ptp => vec![reference("ptp"), reference("host-local"), reference("loopback")],
        }
    }

    /// The configuration of one node among all of them.
    pub fn conflist(&self, node: &NodePlan, all: &[NodePlan]) -> String {
        let ranges = json!([[{"subnet": node.pod_cidr_v4}], [{"subnet": node.pod_cidr_v6}]]);
        let routes = json!([{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]);
        let plugin = match self {
            Self::Ferrule(_) => json!({
                "type": "ferrule",
                "ipMasq": true,
                "capabilities": {"portMappings": true, "bandwidth": true},
                "ipam": {"type": "ferrule", "ranges": ranges, "routes": routes, "dataDir": "/var/lib/cni/ferrule"},
                "peers": peers_of(node, all),
            }),
            Self::Ptp => json!({
                "type": "ptp",
                "ipam": {"type": "host-local", "ranges": ranges, "routes": routes, "dataDir": "/var/lib/cni/networks"},
            }),
        };
        // containerd 1.6 knows the protocol up to 1.0.0.
        format!("{:#}", json!({"cniVersion": "1.0.0", "name": "podnet", "plugins": [plugin]}))
    }

    /// Whether it has more than addresses and routes: masquerade, hostPorts, a source check, verbs for people.
    ///
    /// ptp's `ipMasq` hides pods from the pods of other nodes as well, so it is off; for hostPorts it takes `portmap`
    /// behind it.
    pub fn has_services(&self) -> bool {
        matches!(self, Self::Ferrule(_))
    }

    /// What the plugin itself does not do for a node.
    pub fn complete(&self, node: &Node, all: &[NodePlan]) -> Result<()> {
        if let Self::Ptp = self {
            for peer in all.iter().filter(|peer| *peer != node.plan()) {
                node.run("ip", &["route", "add", &peer.pod_cidr_v4, "via", &peer.ipv4.to_string()])?;
                node.run("ip", &["route", "add", &peer.pod_cidr_v6, "via", &peer.ipv6.to_string()])?;
            }
        }
        Ok(())
    }

    /// The directory on a node with one file for each address held.
    pub fn store(&self) -> &'static str {
        match self {
            Self::Ferrule(_) => "/var/lib/cni/ferrule/podnet/by-ip",
            Self::Ptp => "/var/lib/cni/networks/podnet",
        }
    }
}

fn peers_of(node: &NodePlan, all: &[NodePlan]) -> Vec<Value> {
    let others = all.iter().filter(|peer| *peer != node);
    let peer = |peer: &NodePlan| json!({"node": peer.name, "podCIDRs": [peer.pod_cidr_v4, peer.pod_cidr_v6], "nodeIPs": [peer.ipv4, peer.ipv6]});
    others.map(peer).collect()
}
