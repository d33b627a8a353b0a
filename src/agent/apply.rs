//! Applies what is desired to the kernel and the store: one method for each part of the node, all idempotent.
//!
//! | file        | what it is                                                                 |
//! |-------------|----------------------------------------------------------------------------|
//! | `addresses` | the addresses that the Node names, and those that the node has             |
//! | [`routes`]  | the routes to other nodes, and the overlay                                 |
//! | `checksums` | who computes the overlay's checksums                                       |
//! | `paths`     | what is needed to try the ways to other nodes                              |
//! | `table`     | the nftables table of pods                                                 |
//! | `drops`     | what the node has dropped                                                  |
//! | [`lost`]    | pods that are not as the node's records and ranges have it                 |

mod addresses;
mod checksums;
mod drops;
pub mod lost;
mod paths;
pub mod routes;
mod table;

use std::net::IpAddr;
use std::path::PathBuf;

use ipnetwork::IpNetwork;
use tokio::time::Instant;

use crate::agent::cluster::desired_state::Desired;
use crate::agent::cluster::reserved::Reserved;
use crate::agent::drift::Ownership;
use crate::agent::settings::{ForwardAccept, Settings};
use crate::agent::surroundings::{self, ApiServer};
use crate::attachments::node::NodeFacts;
use crate::attachments::{LOCK_DEADLINE, node as node_state, pod_repair, reclaim};
use crate::cni::error::CniError;
use crate::cni::ids::NetworkName;
use crate::config::peer::Peer;
use crate::config::range::RangeSet;
use crate::datapath::error::DatapathError;
use crate::datapath::nftables::NftError;
use crate::datapath::node::{self, Uplink};
use crate::datapath::overlay;
use crate::datapath::pods::Depth;
use crate::desired::names::{self, ROUTE_PROTOCOL};
use crate::desired::node::NodeState;
use crate::desired::object::Place;
use crate::desired::overlay::Routing;
use crate::foreign_firewall::{self, Accepted, DropChain};
use crate::linux::change::Change;
use crate::linux::error::KernelError;
use crate::linux::link;
use crate::linux::netlink::{self, Netlink};
use crate::linux::nfnetlink::{self, Nfnetlink};
use crate::linux::route::{Route, RouteKind};
use crate::linux::sysctl;
use crate::store::{BootId, Store, Usage, current_boot_id};

/// The kernel and the store of this node, for one network.
pub struct Datapath {
    netlink: Netlink,
    nft: Nfnetlink,
    network: NetworkName,
    data_dir: PathBuf,
    exempt: Vec<IpNetwork>,
    boot: BootId,
    routing: Routing,
    vxlan: overlay::Settings,
    forward_accept: ForwardAccept,
    masquerade: bool,
    block_metadata: bool,
    /// Since when no node needs the overlay that is there.
    idle_overlay: Option<Instant>,
    /// Whether the overlay's checksums are to be left to the card; `None` if that stays as it is.
    checksum_offload: Option<bool>,
    /// Addresses of this node's Node that the node does not have, and what takes their place.
    replaced: Vec<(IpAddr, Option<IpAddr>)>,
    /// Netlink ports of the two sockets: the kernel names them in events of the agent's own changes.
    ports: Vec<u32>,
}

/// What other people's firewalls do with forwarded packets.
#[derive(Debug, Default)]
pub struct Forward {
    /// Chains that got accept rules now.
    pub accepted: Vec<Accepted>,
    /// Chains that end in a drop and have no accept rules, each with the remedy.
    pub dropping: Vec<(DropChain, String)>,
}

impl Datapath {
    /// Opens the sockets, in the namespace of the calling thread.
    ///
    /// # Errors
    /// Where the kernel cannot be asked.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn open(settings: &Settings) -> Result<Self, CniError> {
        let refuse = |source| DatapathError::Socket { place: "node", source };
        let mut netlink = netlink::Socket::open_here().map_err(refuse)?;
        let mut nft = nfnetlink::Socket::open_here().map_err(refuse)?;
        let ports = vec![netlink.bind().map_err(refuse)?, nft.bind().map_err(refuse)?];
        Ok(Self {
            netlink: Netlink::start(netlink),
            nft: Nfnetlink::start(nft),
            network: settings.network.clone(),
            data_dir: settings.data_dir.clone(),
            exempt: settings.non_masquerade_cidrs.clone(),
            boot: current_boot_id()?,
            routing: settings.routing,
            forward_accept: settings.forward_accept,
            masquerade: settings.masquerade,
            block_metadata: settings.block_instance_metadata,
            checksum_offload: settings.vxlan_checksum_offload.wanted(),
            vxlan: overlay::Settings {
                id: settings.vxlan_id,
                port: settings.vxlan_port,
                mtu: Some(settings.mtu).filter(|&mtu| mtu != 0),
            },
            idle_overlay: None,
            replaced: Vec::new(),
            ports,
        })
    }

    /// By what the agent's own changes are told from others', now.
    pub fn ownership(&self, pod_cidrs: &[IpNetwork]) -> Ownership {
        Ownership {
            pod_cidrs: pod_cidrs.to_vec(),
            network: self.network.clone(),
            ports: self.ports.clone(),
            overlay: link::index_of(names::OVERLAY_DEVICE).unwrap_or_default(),
        }
    }

    /// Reads what this node needs and no other node's pods may have.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub async fn surroundings(&self, api_server: &ApiServer) -> Result<Reserved, KernelError> {
        surroundings::read(&self.netlink, api_server).await
    }

    /// Enables forwarding, sets the catch-all routes and rules of the own podCIDRs and deletes those of `former` ones. Returns
    /// the sysctls that were changed.
    ///
    /// # Errors
    /// What the kernel refused.
    pub async fn prepare(&self, desired: &Desired, former: &[IpNetwork]) -> Result<Vec<String>, CniError> {
        let mut state = self.state_with(desired, Vec::new());
        state.ipv6 &= sysctl::has_ipv6();
        node::allow_metadata(&self.netlink, &state).await?;
        let switches = node_state::prepare_in(&self.netlink, &self.data_dir, &state, &self.boot).await?;
        let stale = former.iter().filter(|cidr| !desired.own.pod_cidrs.contains(cidr)).map(|&cidr| {
            let route = Route::to(cidr, ROUTE_PROTOCOL);
            Change::DeleteRoute(Route { kind: RouteKind::Unreachable, metric: Some(u32::MAX), ..route })
        });
        let own = state.pod_rules();
        let former = NodeState { subnets: former.to_vec(), ..state };
        let stale_rules = former.pod_rules().into_iter().filter(|rule| !own.contains(rule));
        let stale = stale.chain(stale_rules.map(Change::DeleteRule));
        let outcomes = self.netlink.submit(stale.collect::<Vec<_>>()).await;
        let is_told = |it: &Result<(), KernelError>| !it.as_ref().is_err_and(KernelError::is_not_found);
        DatapathError::check(Place::Node, outcomes.into_iter().filter(is_told))?;
        Ok(switches.into_iter().map(|switch| switch.path.join(".")).collect())
    }

    /// Inserts accept rules where iptables' chain FORWARD drops, unless the administrator has switched that off, and
    /// finds the chains that may drop the pods' packets all the same.
    ///
    /// # Errors
    /// What the kernel refused.
    pub async fn forward(&self, desired: &Desired) -> Result<Forward, CniError> {
        let subnets = &desired.own.pod_cidrs;
        let mut found = Forward::default();
        match self.forward_accept {
            ForwardAccept::Auto => {
                let accepted = foreign_firewall::accept(&self.nft, &self.network, subnets).await?;
                found.accepted = accepted.into_iter().filter(|it| it.inserted > 0).collect();
            }
            ForwardAccept::Off => {
                foreign_firewall::remove(&self.nft, Some(&self.network)).await?;
            }
        }
        let dropping = foreign_firewall::unaccepted(&self.nft, &self.network, subnets).await;
        let with_remedy = |chain: DropChain| {
            let remedy = chain.remedy(subnets);
            (chain, remedy)
        };
        found.dropping = dropping.map_err(NftError::from)?.into_iter().map(with_remedy).collect();
        Ok(found)
    }

    /// The node's state, with the addresses that this node has.
    fn state_with(&self, desired: &Desired, peers: Vec<Peer>) -> NodeState {
        let state = desired.state_with(&self.network, peers);
        let block_metadata = self.block_metadata;
        NodeState { node_ips: self.localised(&state.node_ips), block_metadata, ..state }
    }

    /// Releases the addresses of dead attachments; returns how many attachments there were.
    ///
    /// # Errors
    /// Where store or kernel cannot be used.
    pub async fn reclaim(&self) -> Result<usize, CniError> {
        let Some(store) = Store::open_existing(&self.data_dir, &self.network)? else { return Ok(0) };
        let dead = reclaim::find_dead(&store, &self.boot, Some(&self.netlink)).await?.dead;
        let count = dead.len();
        if count > 0 {
            let mut locked = store.lock(&self.boot, LOCK_DEADLINE)?;
            reclaim::release_dead(&mut locked, dead)?;
            locked.repair()?;
        }
        Ok(count)
    }

    /// How many addresses of each range set are in use and free.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn usage(&self, sets: &[RangeSet]) -> Result<Vec<Usage>, CniError> {
        let unused = |set: &RangeSet| Usage { held: 0, free: set.capacity() };
        match Store::open_existing(&self.data_dir, &self.network)? {
            Some(store) => Ok(store.usage(&self.boot, sets)?),
            None => Ok(sets.iter().map(unused).collect()),
        }
    }

    /// Repairs the node's side of its own pods; returns how many objects were wrong.
    ///
    /// # Errors
    /// What kernel or store refuse.
    pub async fn pods(&self, desired: &Desired, depth: Depth) -> Result<usize, CniError> {
        let Some(store) = Store::open_existing(&self.data_dir, &self.network)? else { return Ok(0) };
        let uplink = self.uplink(desired).await?;
        let facts = NodeFacts { boot: self.boot.clone(), has_ipv6: sysctl::has_ipv6() };
        // The conf that the agent writes names no gateway.
        pod_repair::repair(&self.netlink, &store, &facts, &uplink, |_| None, depth).await
    }

    /// How the node is reached: by its own addresses, and by the default route. The peers, of which there may be
    /// thousands, have no say in it.
    async fn uplink(&self, desired: &Desired) -> Result<Uplink, DatapathError> {
        node::find_uplink(&self.netlink, &self.state_with(desired, Vec::new()), None).await
    }

    /// Whether the overlay's device exists.
    pub fn has_overlay(&self) -> bool {
        link::index_of(names::OVERLAY_DEVICE).unwrap_or_default().is_some()
    }
}
