//! Two nodes, a client and a server on the first and a server on the second: network namespaces, wired by pairs.
//!
//! ```text
//! client 10.244.1.2 --+-- node 1 -- 192.168.0.0/24 -- node 2 --- far 10.244.2.2
//! near   10.244.1.3 --+
//! ```
//!
//! Both nodes follow connections whatever the policies are, as a node does on which kube-proxy has a rule.

use std::net::{IpAddr, Ipv4Addr};

use kit::netns::{Namespace, inside};

use crate::Failure;
use crate::agent::Agent;
use crate::objects::{self, Events};
use crate::traffic::Server;

/// What is there without policies. The times are short, so that closed connections do not fill the kernel's table.
const NODE: &str = "
    ip link set lo up
    nft add table inet node
    nft 'add chain inet node forward { type filter hook forward priority 0; }'
    nft add rule inet node forward ct state established,related counter accept
    echo 1 >/proc/sys/net/ipv4/ip_forward
    echo 1 >/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_close
    echo 1 >/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_time_wait
    echo 1 >/proc/sys/net/netfilter/nf_conntrack_udp_timeout
    echo 1 >/proc/sys/net/netfilter/nf_conntrack_udp_timeout_stream";

/// A pod: a namespace, and where it is.
pub struct Pod {
    /// Its name, in the namespace of all that are measured.
    pub name: &'static str,
    /// Its network.
    pub netns: Namespace,
    /// Its address.
    pub address: IpAddr,
    /// The node's end of its pair.
    pub link: String,
}

/// All of it.
pub struct Lab {
    /// Who connects.
    pub client: Pod,
    /// Whom it connects to, on its own node and on the other.
    pub servers: [Pod; 2],
    /// What each node's agent would do.
    agents: [Agent; 2],
    // They end first of all that is here.
    _listening: Vec<Server>,
    _nodes: [Namespace; 2],
}

impl Lab {
    /// Makes it; without any policy.
    pub fn new() -> Result<Self, Failure> {
        let nodes = [Namespace::new("node-1"), Namespace::new("node-2")];
        for node in &nodes {
            node.sh(NODE);
        }
        nodes[0].ip(&format!("link add underlay type veth peer name underlay netns {}", nodes[1].name()));
        for (place, node) in nodes.iter().enumerate() {
            let (own, other) = (place + 1, 2 - place);
            node.ip_batch(&format!(
                "link set underlay up\naddress add 192.168.0.{own}/24 dev underlay\n\
                 route add 10.244.{other}.0/24 via 192.168.0.{other}\n"
            ));
        }
        let client = pod("client", &nodes[0], Ipv4Addr::new(10, 244, 1, 2));
        let near = pod("near", &nodes[0], Ipv4Addr::new(10, 244, 1, 3));
        let far = pod("far", &nodes[1], Ipv4Addr::new(10, 244, 2, 2));
        let servers = [near, far];
        let mut listening = Vec::new();
        for server in &servers {
            listening.extend(inside(&server.netns, Server::start)?);
        }
        let agents =
            [Agent::start(&nodes[0], &[&client, &servers[0]])?, Agent::start(&nodes[1], &[&servers[1]])?];
        Ok(Self { client, servers, agents, _listening: listening, _nodes: nodes })
    }

    /// Tells both nodes of a change.
    pub fn tell(&mut self, events: &Events) -> Result<(), Failure> {
        self.agents.iter_mut().try_for_each(|agent| agent.follow(events.clone()).map(|_| ()))
    }

    /// The first node's agent.
    pub fn agent(&mut self) -> &mut Agent {
        &mut self.agents[0]
    }

    /// Both agents begin anew, with so many policies.
    pub fn have_policies(&mut self, count: usize) -> Result<(), Failure> {
        let [near, far] = &self.servers;
        let all = [&self.client, near, far];
        let (first, second) = (&all[..2], &all[2..]);
        for (agent, own) in self.agents.iter_mut().zip([first, second]) {
            agent.list(objects::lists(count, own, &all)?)?;
        }
        Ok(())
    }
}

/// Makes a pod on a node.
fn pod(name: &'static str, node: &Namespace, address: Ipv4Addr) -> Pod {
    let netns = Namespace::new(name);
    let link = format!("veth-{name}");
    node.ip_batch(&format!(
        "link add {link} type veth peer name eth0 netns {}\nlink set {link} up\n\
         address add 169.254.1.1/32 dev {link}\nroute add {address} dev {link}\n",
        netns.name()
    ));
    netns.ip_batch(&format!(
        "link set lo up\nlink set eth0 up\naddress add {address}/32 dev eth0\n\
         route add 169.254.1.1 dev eth0\nroute add default via 169.254.1.1\n"
    ));
    // Closed connections are gone at once: the client resets them.
    netns.set_sysctl("net/ipv4/ip_local_port_range", "1024 65000");
    Pod { name, netns, address: address.into(), link }
}
