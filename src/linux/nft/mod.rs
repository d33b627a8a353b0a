//! nf_tables: tables, chains, sets and rules as data; transactions in, dumps out.
//!
//! What `nft` does, without the program: its versions disagree with each other about what they print and accept
//! (netavark#1303), and a node need not have it. Every file says the `nft` command that does the same.
//!
//! | file          | holds                                                                            |
//! |---------------|----------------------------------------------------------------------------------|
//! | [`table`]     | [`table::Table`], [`table::Chain`]                                               |
//! | [`set`]       | [`set::Set`] (with data: a map), its types                                       |
//! | [`element`]   | [`element::Element`], and [`element::Bytes`] that keys and data are built from    |
//! | [`expr`]      | [`expr::Expr`]: what a rule is made of, to the kernel's message and back         |
//! | [`rule`]      | [`rule::Rule`]                                                                   |
//! | [`change`]    | [`change::Change`], and how several are made at once or not at all               |
//! | [`query`]     | what there is                                                                    |
//! | [`listing`]   | all that there is in a table                                                     |
//! | [`trace`]     | what becomes of packets, chain by chain                                          |

pub mod change;
pub mod element;
pub mod expr;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
pub mod listing;
pub mod query;
pub mod rule;
pub mod set;
pub mod table;
pub mod trace;
mod userdata;

use netlink_packet_netfilter::nftables::NfTablesMessage;
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage};

use table::Family;

/// A message about tables of a family.
fn message(family: Family, inner: NfTablesMessage) -> NetfilterMessage {
    NetfilterMessage::new(NetfilterHeader::new(family.to_netlink(), 0, 0), inner)
}
