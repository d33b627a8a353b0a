//! One thing that must exist in the kernel.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::names::ROUTE_PROTOCOL;
use crate::linux;
use crate::linux::link::{Ifb, LinkEnd};
use crate::mac::MacAddr;

/// Which network namespace an object belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place {
    /// The node's: the namespace that the plugin was started in.
    Node,
    /// The pod's: the namespace that `CNI_NETNS` names.
    Sandbox,
}

/// One thing that must exist, with all that tells it from a wrong one.
///
/// Equivalent commands stand beside the code that makes them, in `linux`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Object {
    /// Two links, each in its namespace from the first moment.
    Pair(Pair),
    /// A setting under /proc/sys.
    Sysctl(Sysctl),
    /// A link that is up, and what it is called.
    Link(Link),
    /// An address on a link, usable at once (no duplicate address detection).
    Address(Place, Address),
    /// A neighbour that never needs to be asked for (`NUD_PERMANENT`).
    Neighbour(Neighbour),
    /// A route, of protocol [`ROUTE_PROTOCOL`].
    Route(Place, Route),
    /// A link that leads back what is sent through it (drivers/net/ifb.c). Always on the node.
    Ifb(Ifb),
    /// A token bucket, through which everything goes that leaves by a link. Always on the node.
    Shaper(Shaper),
    /// All that comes in by one link goes through another first. Always on the node.
    Redirect(Redirect),
}

/// A veth pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The node's end.
    pub host: LinkEnd,
    /// The pod's end.
    pub pod: LinkEnd,
    /// Of both ends, in bytes.
    pub mtu: u32,
    /// Link group of the node's end: the mark of ownership ([`crate::desired::names::link_group`]).
    pub group: u32,
}

/// A value under /proc/sys, in the namespace of its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sysctl {
    /// Where.
    pub place: Place,
    /// Path below /proc/sys, one part an element: a link's name may hold dots.
    pub path: Vec<String>,
    /// The text it must have.
    pub value: Cow<'static, str>,
}

/// A link that exists and is up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Where.
    pub place: Place,
    /// Interface name.
    pub name: String,
    /// Its alias, where it must have one.
    pub alias: Option<String>,
}

/// Which hardware address an IP address is reached at, over a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbour {
    /// Where.
    pub place: Place,
    /// The link's name.
    pub link: String,
    /// Who.
    pub address: IpAddr,
    /// Reached there.
    pub mac: MacAddr,
}

/// A route as it is described: its link is named, since it may not be there yet.
pub type Route = linux::route::Route<String>;

/// An address as it is described: its link is named, since it may not be there yet.
pub type Address = linux::addr::Address<String>;

/// A route of ours with nothing but its destination.
pub fn route_to(destination: IpNetwork) -> Route {
    Route::to(destination, ROUTE_PROTOCOL)
}

/// A token bucket (tc-tbf(8)) as the root of a link's queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shaper {
    /// The link's name.
    pub link: String,
    /// Bytes per second.
    pub rate: u64,
    /// Size of the bucket, in bytes.
    pub burst: u32,
    /// How much may wait, with what the bucket holds, in bytes.
    pub queue: u32,
}

/// From the ingress of one link to the egress of another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    /// Name of the link by which packets come in.
    pub from: String,
    /// Name of the link that they go through.
    pub to: String,
}

impl Object {
    /// The namespace that the object is made in. A pair is made from the node.
    pub fn place(&self) -> Place {
        match self {
            Self::Pair(_) | Self::Ifb(_) | Self::Shaper(_) | Self::Redirect(_) => Place::Node,
            Self::Sysctl(it) => it.place,
            Self::Link(it) => it.place,
            Self::Address(place, _) | Self::Route(place, _) => *place,
            Self::Neighbour(it) => it.place,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Node => "node",
            Self::Sandbox => "pod",
        })
    }
}

/// In the words of iproute2 and sysctl, so that a difference that CHECK reports can be looked at by hand.
impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pair(it) => {
                write!(
                    f,
                    "node: veth {} {} and pod: {} {}",
                    it.host.name, it.host.mac, it.pod.name, it.pod.mac
                )?;
                write!(f, ", mtu {}", it.mtu)
            }
            Self::Sysctl(it) => write!(f, "{}: sysctl {} = {}", it.place, it.path.join("/"), it.value),
            Self::Link(it) => {
                write!(f, "{}: link {} up", it.place, it.name)?;
                it.alias.iter().try_for_each(|alias| write!(f, " alias {alias:?}"))
            }
            Self::Address(place, it) => write!(f, "{place}: address {it}"),
            Self::Neighbour(it) => {
                write!(f, "{}: neighbour {} lladdr {} dev {}", it.place, it.address, it.mac, it.link)?;
                f.write_str(" permanent")
            }
            Self::Route(place, it) => write!(f, "{place}: route {it}"),
            Self::Ifb(it) => write!(f, "node: ifb {} mtu {}", it.name, it.mtu),
            Self::Shaper(Shaper { link, rate, burst, queue }) => {
                write!(f, "node: qdisc tbf dev {link} rate {rate}bps burst {burst} limit {queue}")
            }
            Self::Redirect(it) => {
                write!(f, "node: filter dev {} ingress, redirect to dev {}", it.from, it.to)
            }
        }
    }
}
