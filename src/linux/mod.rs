//! Linux, as ferrule needs it: network namespaces, route netlink, sysctls, nf_tables, conntrack.
//!
//! Knows nothing of pods, networks or stores: what to make comes in as data ([`change::Change`]), what is
//! there goes out as data ([`link::Link`], [`addr::Address`], [`neigh::Neighbour`], [`route::Route`]). No type
//! of the netlink crates leaves this directory, because their API breaks with most of their releases.
//!
//! The ways in:
//!
//! ```text
//! Netns::open(path) --run(|| ...)--> sysctl::write_if_different(...)    a thread inside, thrown away
//!                   --run(|| ...)--> Socket::open_here(...)             a socket keeps its namespace
//!                                         |
//!                                  Netlink::start(socket)               used from outside
//!                                    |               |
//!                              submit(changes)   link(..) links() addresses(..) routes(..) route_to(..)
//! ```
//!
//! [`nfnetlink::Nfnetlink`] is made in the same two steps, for [`nft`] and [`conntrack`]. [`monitor::Monitor`] hears what
//! others change, [`nflog::PacketLog`] of packets, [`nft::trace::TraceLog`] of their way. [`raw`] sends packets made by hand.

pub mod addr;
mod answer;
mod attributes;
pub mod change;
pub mod conntrack;
pub mod error;
pub mod ethtool;
mod exchange;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
pub mod limits;
pub mod link;
pub mod listeners;
mod message;
pub mod monitor;
pub mod neigh;
pub mod netlink;
pub mod netns;
pub mod nflog;
pub mod nfnetlink;
pub mod nft;
pub mod path_probe;
pub mod qdisc;
pub mod raw;
pub mod route;
pub mod rule;
pub mod snmp;
mod socket;
pub mod sysctl;
pub mod vxlan;
pub mod xtables;
