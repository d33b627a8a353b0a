//! The nftables table: what it is, and what it does to packets between hosts that are namespaces.

mod content;
mod flows;
mod rebuild;
mod transaction;
mod world;
