//! What can be asked of the kernel, as data.
//!
//! [`Display`](fmt::Display) says it in a few words, for logs and for [`KernelError`](super::error::KernelError)s.
//! The message that each becomes, and the `ip` command that does the same, are in the file of its noun.

use std::fmt;
use std::net::IpAddr;

use super::addr::{self, Address};
use super::link::{self, Ifb, LinkRef, LinkSettings, VethPair};
use super::message::Request;
use super::neigh;

use super::qdisc::{self, Qdisc, Redirect};
use super::route::{self, AddMode, Route};
use super::rule::{self, Rule};
use super::vxlan::{self, ForwardingEntry, Vxlan};
use crate::mac::MacAddr;

/// One change of a namespace's network. One netlink message each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Makes a pair of links, each end in its final namespace. Refused (EEXIST) if either name is taken.
    CreateVeth(VethPair),
    /// Makes an ifb link. Refused (EEXIST) if the name is taken.
    CreateIfb(Ifb),
    /// Makes a VXLAN link. Refused (EEXIST) if the name is taken, or if another link has the same identifier and port.
    CreateVxlan(Vxlan),
    /// Changes the given settings of a link and leaves the others. Idempotent.
    SetLink {
        /// Which.
        link: LinkRef,
        /// What to change.
        settings: LinkSettings,
    },
    /// Removes a link, and the other end if it is one of a pair.
    DeleteLink(LinkRef),
    /// Removes all links of a group. Many cost hardly more than one: the kernel waits once for all of them.
    /// Refused as not found (ENODEV) if the group is empty, and (EPERM) for group 0, everybody's.
    DeleteLinkGroup(u32),
    /// Adds an address to a link. Refused (EEXIST) if the link has it already.
    AddAddress(Address),
    /// Removes an address from a link.
    DeleteAddress(Address),
    /// Sets a permanent neighbour entry, in place of whatever is known of that address. Idempotent.
    AddNeighbour {
        /// The link behind which the neighbour is.
        index: u32,
        /// Its address.
        address: IpAddr,
        /// Where frames to it go.
        mac: MacAddr,
    },
    /// Has the kernel ask for a neighbour's hardware address, as it does before it sends a packet there. One that is known
    /// is not asked for.
    AskNeighbour {
        /// The link behind which the neighbour is.
        index: u32,
        /// Its address.
        address: IpAddr,
    },
    /// Removes a neighbour entry.
    DeleteNeighbour {
        /// The link behind which the neighbour is.
        index: u32,
        /// Its address.
        address: IpAddr,
    },
    /// Has a VXLAN link send frames to an address to one other end, in place of any other. Idempotent.
    SetForwardingEntry(ForwardingEntry),
    /// Removes a forwarding entry.
    DeleteForwardingEntry(ForwardingEntry),
    /// Adds a route.
    AddRoute {
        /// The route.
        route: Route,
        /// What to do if there is one to that destination.
        mode: AddMode,
    },
    /// Removes the route that agrees with this one in everything that is given here; in particular none of
    /// another protocol.
    DeleteRoute(Route),
    /// Adds a rule. Refused (EEXIST) if there is the same already.
    AddRule(Rule),
    /// Removes the rule that is the same.
    DeleteRule(Rule),
    /// Gives a link a queueing discipline. Refused (EEXIST) if there is one in that place already, other than the
    /// kernel's default.
    AddQdisc {
        /// The link.
        index: u32,
        /// What it gets.
        qdisc: Qdisc,
    },
    /// Removes the queueing discipline in that place, whatever it is, with all that hangs on it.
    DeleteQdisc {
        /// The link.
        index: u32,
        /// Which place.
        qdisc: Qdisc,
    },
    /// Leads all that comes in by a link through another. The first needs [`Qdisc::Ingress`].
    AddRedirect(Redirect),
}

impl Change {
    /// The message to the kernel.
    pub(super) fn to_request(&self) -> Request {
        match self {
            Self::CreateVeth(pair) => link::create_veth(pair),
            Self::CreateIfb(ifb) => link::create_ifb(ifb),
            Self::CreateVxlan(vxlan) => vxlan::create_vxlan(vxlan),
            Self::SetLink { link, settings } => link::set_link(link, settings),
            Self::DeleteLink(link) => link::delete_link(link),
            Self::DeleteLinkGroup(group) => link::delete_link_group(*group),
            Self::AddAddress(address) => addr::add_address(address),
            Self::DeleteAddress(address) => addr::delete_address(address),
            Self::AddNeighbour { index, address, mac } => neigh::add_neighbour(*index, *address, *mac),
            Self::AskNeighbour { index, address } => neigh::ask_neighbour(*index, *address),
            Self::DeleteNeighbour { index, address } => neigh::delete_neighbour(*index, *address),
            Self::SetForwardingEntry(entry) => vxlan::set_forwarding_entry(entry),
            Self::DeleteForwardingEntry(entry) => vxlan::delete_forwarding_entry(entry),
            Self::AddRoute { route, mode } => route::add_route(route, *mode),
            Self::DeleteRoute(route) => route::delete_route(route),
            Self::AddRule(rule) => rule::add_rule(rule),
            Self::DeleteRule(rule) => rule::delete_rule(rule),
            Self::AddQdisc { index, qdisc } => qdisc::add_qdisc(*index, qdisc),
            Self::DeleteQdisc { index, qdisc } => qdisc::delete_qdisc(*index, qdisc),
            Self::AddRedirect(redirect) => qdisc::add_redirect(redirect),
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CreateVeth(VethPair { host, peer, peer_netns, .. }) => {
                let netns = peer_netns.path().display();
                write!(f, "add link {} type veth peer {} netns {netns}", host.name, peer.name)
            }
            Self::CreateIfb(ifb) => write!(f, "add link {} type ifb", ifb.name),
            Self::CreateVxlan(vxlan) => write!(f, "add link {} type {}", vxlan.name, vxlan.tunnel),
            Self::SetLink { link, settings } => write!(f, "set link {link}{settings}"),
            Self::DeleteLink(link) => write!(f, "delete link {link}"),
            Self::DeleteLinkGroup(group) => write!(f, "delete links of group {group}"),
            Self::AddAddress(address) => write!(f, "add address {address}"),
            Self::DeleteAddress(address) => write!(f, "delete address {address}"),
            Self::AddNeighbour { index, address, mac } => {
                write!(f, "set neighbour {address} lladdr {mac} dev {index}")
            }
            Self::AskNeighbour { index, address } => write!(f, "ask for neighbour {address} dev {index}"),
            Self::DeleteNeighbour { index, address } => write!(f, "delete neighbour {address} dev {index}"),
            Self::SetForwardingEntry(entry) => write!(f, "set forwarding entry {entry}"),
            Self::DeleteForwardingEntry(entry) => write!(f, "delete forwarding entry {entry}"),
            Self::AddRoute { route, mode } => write!(f, "{mode} route {route}"),
            Self::DeleteRoute(route) => write!(f, "delete route {route}"),
            Self::AddRule(rule) => write!(f, "add rule {rule}"),
            Self::DeleteRule(rule) => write!(f, "delete rule {rule}"),
            Self::AddQdisc { index, qdisc } => write!(f, "add qdisc dev {index} {qdisc}"),
            Self::DeleteQdisc { index, qdisc } => write!(f, "delete qdisc dev {index} {qdisc}"),
            Self::AddRedirect(Redirect { from, to }) => {
                write!(f, "add filter dev {from} ingress redirect dev {to}")
            }
        }
    }
}
