//! Applies what is desired to the kernel and the store: one method for each part of the node, all idempotent.

mod checksums;
mod drops;
pub mod lost;
mod paths;

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnetwork::IpNetwork;
use tokio::time::Instant;

use crate::agent::cluster::desired_state::Desired;
use crate::agent::cluster::reserved::Reserved;
use crate::agent::drift::Ownership;
use crate::agent::settings::{ForwardAccept, Settings};
use crate::agent::surroundings::{self, ApiServer};
use crate::attachments::node::NodeFacts;
use crate::attachments::{LOCK_DEADLINE, node as node_state, pod_repair, pod_rules, reclaim};
use crate::cni::error::CniError;
use crate::cni::ids::NetworkName;
use crate::config::peer::Peer;
use crate::config::range::RangeSet;
use crate::datapath::error::DatapathError;
use crate::datapath::nftables;
use crate::datapath::nftables::{NftError, Rebuilt};
use crate::datapath::node::{self, Uplink};
use crate::datapath::node_addresses::find_node_addresses;
use crate::datapath::overlay::{self, OverlayDone, Ways};
use crate::datapath::overruled::{self, Overruled};
use crate::datapath::peers::{self, Synchronised};
use crate::datapath::pods::Depth;
use crate::desired::names::{self, ROUTE_PROTOCOL};
use crate::desired::nftables::element::NoMasquerade;
use crate::desired::nftables::node_addresses::NodeAddresses;
use crate::desired::nftables::vxlan::VxlanPeers;
use crate::desired::node::NodeState;
use crate::desired::object::Place;
use crate::desired::overlay::{Routing, local_end, pod_mtu};
use crate::foreign_firewall;
use crate::foreign_firewall::{Accepted, DropChain};
use crate::linux::change::Change;
use crate::linux::error::KernelError;
use crate::linux::link;
use crate::linux::netlink::{self, Netlink};
use crate::linux::nfnetlink::{self, Nfnetlink};
use crate::linux::route::{Family, Route, RouteKind};
use crate::linux::sysctl;
use crate::store::{BootId, Store, Usage, current_boot_id};

/// How long the overlay's device stays when no node needs it any more: the agent at the other end may find that out later,
/// with its look at everything at the latest, and until then it sends by VXLAN.
const OVERLAY_LINGERS: Duration = Duration::from_secs(300);

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

/// Outcome of comparing the routes to other nodes.
#[derive(Debug, Default)]
pub struct Routed {
    /// The routes.
    pub routes: Synchronised,
    /// The overlay, where there is one.
    pub overlay: Option<OverlayDone>,
    /// MTU of new pods, in bytes, where the uplink's is too large.
    pub pod_mtu: Option<u32>,
    /// Families of this node's Node that the node has not.
    pub lost: Vec<Family>,
    /// How many routes are left out for that.
    pub left_out: usize,
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

    /// Removes the routes to other nodes whose destination the node needs itself: an earlier process set them, and
    /// without the list of Nodes nobody else would. Returns how many there were.
    ///
    /// # Errors
    /// Where the kernel's routes cannot be read, or stay.
    pub async fn withdraw(&self, reserved: &Reserved) -> Result<usize, DatapathError> {
        let is_refused = |destination| reserved.refusal(destination).is_some();
        peers::withdraw(&self.netlink, &self.network, is_refused).await
    }

    /// Routes to other nodes that the kernel does not take, among `count` from the place `from` on; and how many routes
    /// there are.
    ///
    /// # Errors
    /// Where the kernel cannot be asked.
    pub async fn overruled(
        &self,
        from: usize,
        count: usize,
    ) -> Result<(Vec<Overruled>, usize), DatapathError> {
        overruled::find(&self.netlink, &self.network, from, count).await
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

    /// Compares the overlay and the routes to all peers with the kernel's and sets what is missing or wrong. With
    /// `is_whole_truth` (the list of Nodes is complete) it deletes what nothing asks for.
    ///
    /// # Errors
    /// Where the kernel cannot be read, or the overlay's device cannot be created. Failures of single peers are in the
    /// answer.
    pub async fn routes(&mut self, desired: &Desired, is_whole_truth: bool) -> Result<Routed, DatapathError> {
        let mut state = self.state_with(desired, desired.peers.clone());
        let lost = self.lost_families(desired).await?;
        let left_out = leave_out(&mut state.peers, &lost);
        let ways = overlay::ways(&self.netlink, &state, self.routing).await?;
        let is_kept = self.keeps_idle_overlay(&ways);
        let overlay = overlay::describe(&self.netlink, &state, &ways, self.vxlan, is_kept).await?;
        let pod_mtu = self.pod_mtu(&state, &ways).await?;
        let mut routed = Routed { pod_mtu, lost, left_out, ..Routed::default() };
        if let Some(overlay) = &overlay {
            routed.overlay = Some(overlay::keep(&self.netlink, overlay).await?);
        }
        routed.routes = match &overlay {
            _ if !is_whole_truth => peers::supplement(&self.netlink, &state, overlay.as_ref()).await?,
            Some(overlay) => peers::synchronise_with(&self.netlink, &state, overlay).await?,
            None => peers::synchronise(&self.netlink, &state).await?,
        };
        if overlay.is_none() && is_whole_truth {
            // Only now that no route uses it.
            overlay::remove(&self.netlink).await?;
        }
        routed.routes.failures.extend(ways.failures);
        routed.routes.failures.extend(routed.overlay.iter_mut().flat_map(|done| done.failures.drain(..)));
        Ok(routed)
    }

    /// Whether a device stays that no node needs any more.
    fn keeps_idle_overlay(&mut self, ways: &Ways) -> bool {
        if ways.need_overlay() || self.routing == Routing::Direct || !self.has_overlay() {
            self.idle_overlay = None;
            return false;
        }
        let now = Instant::now();
        now.duration_since(*self.idle_overlay.get_or_insert(now)) < OVERLAY_LINGERS
    }

    /// Sets the routes to a few peers; the cost does not depend on the others. `None` if one of them is reached by the
    /// overlay, or was: then all routes have to be compared.
    ///
    /// # Errors
    /// Where the kernel cannot be read.
    pub async fn routes_of(
        &self,
        desired: &Desired,
        before: Vec<Peer>,
        after: Vec<Peer>,
    ) -> Result<Option<Synchronised>, DatapathError> {
        if self.has_overlay() {
            return Ok(None);
        }
        let before = self.state_with(desired, before);
        let mut after = self.state_with(desired, after);
        let lost = self.lost_families(desired).await?;
        leave_out(&mut after.peers, &lost);
        let ways = overlay::ways(&self.netlink, &after, self.routing).await?;
        if ways.need_overlay() {
            return Ok(None);
        }
        let mut done = peers::update(&self.netlink, &before, &after).await;
        done.failures.extend(ways.failures);
        Ok(Some(done))
    }

    /// The node's state, with the addresses that this node has.
    fn state_with(&self, desired: &Desired, peers: Vec<Peer>) -> NodeState {
        let state = desired.state_with(&self.network, peers);
        let block_metadata = self.block_metadata;
        NodeState { node_ips: self.localised(&state.node_ips), block_metadata, ..state }
    }

    /// The addresses that this node has itself where its Node names these: those can be sources.
    pub fn localised(&self, node_ips: &[IpAddr]) -> Vec<IpAddr> {
        let local = |address: &IpAddr| match self.replaced.iter().find(|(it, _)| it == address) {
            Some((_, replacement)) => *replacement,
            None => Some(*address),
        };
        node_ips.iter().filter_map(local).collect()
    }

    /// Finds out which of the Node's addresses this node does not have: with 1:1 NAT the address of its uplink takes their
    /// place, and one of a family that is lost goes, as long as another is here. Returns whether that changed.
    ///
    /// # Errors
    /// Where the kernel cannot be asked.
    pub async fn localise(&mut self, desired: &Desired) -> Result<bool, DatapathError> {
        let mut away = Vec::new();
        for &address in &desired.own.node_ips {
            if !self.netlink.route_to(address).await?.is_some_and(|way| way.local) {
                away.push(address);
            }
        }
        let mut replaced = Vec::new();
        if !away.is_empty() {
            let state = NodeState { node_ips: Vec::new(), ..desired.state_with(&self.network, Vec::new()) };
            let uplink = node::find_uplink(&self.netlink, &state, Some(0)).await?;
            let is_one_here = away.len() < desired.own.node_ips.len();
            let with_uplink = away.into_iter().map(|address| (address, uplink.address_for(address)));
            replaced.extend(with_uplink.filter(|(_, replacement)| replacement.is_some() || is_one_here));
        }
        let is_changed = replaced != self.replaced;
        self.replaced = replaced;
        Ok(is_changed)
    }

    /// Families of which this node's Node names an address, and the node has neither that address nor a way out.
    async fn lost_families(&self, desired: &Desired) -> Result<Vec<Family>, KernelError> {
        let mut lost = Vec::new();
        for &address in &desired.own.node_ips {
            let has_address = self.netlink.route_to(address).await?.is_some_and(|way| way.local);
            if !has_address && !surroundings::has_way_out(&self.netlink, address.is_ipv4()).await? {
                lost.push(if address.is_ipv4() { Family::V4 } else { Family::V6 });
            }
        }
        Ok(lost)
    }

    /// The MTU that new pods must have, where it is not the uplink's: what VXLAN leaves of that.
    async fn pod_mtu(&self, state: &NodeState, ways: &Ways) -> Result<Option<u32>, DatapathError> {
        let Some(local) = local_end(state).filter(|_| self.routing != Routing::Direct) else {
            return Ok(None);
        };
        let uplink = node::find_uplink(&self.netlink, state, None).await?.mtu;
        let mtu = pod_mtu(uplink, local, state.ipv6, self.routing, ways.need_overlay());
        Ok((mtu != uplink).then_some(mtu))
    }

    /// Sets the nftables table to what records and Nodes ask for. With `whole`, each element is compared; else only
    /// whether the table exists and has the Nodes. `None` if nothing had to be changed.
    ///
    /// # Errors
    /// What kernel or store refuse.
    pub async fn table(&self, desired: &Desired, whole: bool) -> Result<Option<Rebuilt>, CniError> {
        let inside = desired.no_masquerade(&self.network, &self.exempt);
        let uplink = self.uplink(desired).await?;
        let own = find_node_addresses(&self.netlink, &uplink, &desired.own.node_ips).await?;
        // First on disk: an ADD that creates the table again reads it there.
        let tunnel = self.has_overlay().then(|| desired.tunnel(self.vxlan.port));
        self.remember(&inside, &own, tunnel.as_ref())?;
        let exists = nftables::has_network(&self.nft, std::slice::from_ref(&self.network)).await?;
        let mut is_changed = exists && nftables::ensure_no_masquerade(&self.nft, &inside).await?;
        is_changed |= exists && nftables::ensure_node_addresses(&self.nft, &self.network, &own).await?;
        is_changed |=
            exists && nftables::ensure_vxlan_peers(&self.nft, &self.network, tunnel.as_ref()).await?;
        let rebuilt = if whole || !exists {
            pod_rules::rebuild(&self.nft, &self.data_dir, &self.network, &self.boot).await?
        } else {
            Rebuilt::default()
        };
        Ok((is_changed || rebuilt != Rebuilt::default()).then_some(rebuilt))
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

    /// Writes the no-masquerade networks, the node's addresses and the ends of the overlay to the store, where an ADD reads them when it
    /// creates a flushed table again.
    fn remember(
        &self,
        inside: &NoMasquerade,
        own: &NodeAddresses,
        tunnel: Option<&VxlanPeers>,
    ) -> Result<(), CniError> {
        let store = Store::open(&self.data_dir, &self.network)?;
        let mut locked = store.lock(&self.boot, LOCK_DEADLINE)?;
        locked.remember_no_masquerade(&inside.networks)?;
        locked.remember_node_addresses(own)?;
        locked.remember_vxlan_peers(tunnel)?;
        Ok(())
    }
}

/// Leaves out the peers' pods of these families; returns how many podCIDRs that are.
fn leave_out(peers: &mut Vec<Peer>, families: &[Family]) -> usize {
    let count = |peers: &[Peer]| peers.iter().map(|peer| peer.pod_cidrs.len()).sum::<usize>();
    let before = count(peers);
    let is_kept = |is_ipv4| !families.contains(if is_ipv4 { &Family::V4 } else { &Family::V6 });
    peers.iter_mut().for_each(|peer| peer.pod_cidrs.retain(|cidr| is_kept(cidr.is_ipv4())));
    peers.retain(|peer| !peer.pod_cidrs.is_empty());
    before - count(peers)
}
