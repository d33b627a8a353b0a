//! What is read once, whatever is asked.

use std::net::IpAddr;

use crate::attachments::judged::judge_network;
use crate::attachments::networks::{KnownNetwork, Networks};
use crate::attachments::node_view::NodeView;
use crate::attachments::pod_rules;
use crate::cli::arguments::Common;
use crate::cli::doctor::can_enter_namespaces;
use crate::cni::error::CniError;
use crate::config::{Network, Role};
use crate::datapath::peers::own_routes;
use crate::desired::node::NodeState;
use crate::linux::link::Link;
use crate::linux::nfnetlink::Nfnetlink;
use crate::linux::route::Route;
use crate::linux::sysctl;
use crate::policy::objects::Objects;
use crate::store::Record;

/// All of it.
pub struct Look<'a> {
    /// Where to look.
    pub common: &'a Common,
    /// The node's networks.
    pub networks: &'a Networks,
    /// The node.
    pub node: NodeView,
    /// Its nf_tables.
    pub nft: Nfnetlink,
    /// Records of pods that live.
    pub pods: Vec<Record>,
    /// What the agent knew of policies and pods, if it has left that.
    pub objects: Option<Objects>,
    /// The routes of ferrule's to other nodes.
    pub standing: Vec<Route>,
    /// The node's own addresses.
    pub own: Vec<IpAddr>,
    /// Its name, as it calls itself.
    pub name: String,
    /// Whether pods can be looked into.
    pub can_enter: bool,
}

impl<'a> Look<'a> {
    /// Reads it.
    ///
    /// # Errors
    /// Where store or kernel cannot be read.
    pub async fn read(common: &'a Common, networks: &'a Networks) -> Result<Self, CniError> {
        let node = NodeView::read().await?;
        let (mut pods, mut standing, mut objects) = (Vec::new(), Vec::new(), None);
        for network in &networks.known {
            let (store, judged) = judge_network(network, &node).await?;
            let alive = judged.into_iter().filter(|it| !it.is_dead());
            pods.extend(alive.filter_map(|it| it.state.ok()).map(|(record, _)| record));
            standing.extend(own_routes(&node.netlink, &network.name).await?);
            // That they cannot be read is said where policies are asked.
            let left = store.and_then(|store| store.policy_objects(&node.boot).ok().flatten());
            objects = objects.or(left.map(|it| it.objects));
        }
        let own = node.netlink.addresses(None).await?.iter().map(|it| it.network.ip()).collect();
        let name = sysctl::read(&["kernel", "hostname"]).unwrap_or_else(|_| "this node".to_owned());
        let nft = pod_rules::open()?;
        let can_enter = can_enter_namespaces();
        Ok(Self { common, networks, node, nft, pods, objects, standing, own, name, can_enter })
    }

    /// The pod of this node that has the address: the youngest, where an older one is not gone yet.
    pub fn pod_with(&self, address: IpAddr) -> Option<&Record> {
        let having = self.pods.iter().filter(|record| record.addresses.contains(&address));
        having.max_by_key(|record| record.created)
    }

    /// The network of that name.
    pub fn network(&self, record: &Record) -> Option<&KnownNetwork> {
        self.networks.known.iter().find(|it| it.name == record.network)
    }

    /// Networks in which ferrule makes the links.
    pub fn mains(&self) -> impl Iterator<Item = &Network> {
        let meanings = self.networks.known.iter().filter_map(|it| it.meaning.as_ref());
        meanings.filter(|it| it.role == Role::Main)
    }

    /// What a network wants of the node.
    pub fn state_of(&self, network: &Network) -> NodeState {
        NodeState::of(network, self.node.facts.has_ipv6)
    }

    /// Whether the address is of a subnet that this node gives to its pods.
    pub fn is_of_own_subnet(&self, address: IpAddr) -> bool {
        self.mains().any(|it| self.state_of(it).subnets.iter().any(|subnet| subnet.contains(address)))
    }

    /// The route of ferrule's to another node that is for this address, as the conf lists it, with the node's name.
    pub fn listed_route(&self, address: IpAddr) -> Option<(String, IpAddr)> {
        self.mains().find_map(|network| {
            let routes = self.state_of(network).peer_routes();
            let mut fitting = routes.into_iter().filter(|it| it.route.destination.contains(address));
            fitting.next().and_then(|it| Some((it.peer, it.route.gateway?)))
        })
    }

    /// The route of ferrule's to another node that stands and is for this address.
    pub fn standing_route(&self, address: IpAddr) -> Option<&Route> {
        let fitting = self.standing.iter().filter(|route| route.destination.contains(address));
        fitting.max_by_key(|route| route.destination.prefix())
    }

    /// Whether ferrule has routes to any other node.
    pub fn has_routes_to_nodes(&self, ipv4: bool) -> bool {
        self.standing.iter().any(|route| route.destination.is_ipv4() == ipv4)
    }

    /// Whether another node has the address, as the conf or ferrule's routes tell.
    pub fn is_other_node(&self, address: IpAddr) -> bool {
        let listed = self.mains().flat_map(|network| network.peers.listed());
        listed.flat_map(|peer| &peer.node_ips).any(|it| *it == address)
            || self.standing.iter().any(|route| route.gateway == Some(address))
    }

    /// A link by its index.
    pub fn link(&self, index: u32) -> Option<&Link> {
        self.node.links.iter().find(|link| link.index == index)
    }

    /// Its name.
    pub fn link_name(&self, index: u32) -> String {
        self.link(index).map_or_else(|| format!("link {index}"), |link| link.name.clone())
    }

    /// The node's end of a pod's link.
    pub fn host_link(&self, record: &Record) -> Option<&Link> {
        let name = record.host_link.as_ref()?;
        self.node.links.iter().find(|link| link.name == name.as_str())
    }
}
