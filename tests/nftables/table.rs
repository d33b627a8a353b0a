//! The nftables table without the plugin: its content, transactions, rebuilding, and the flows that it forgets.

mod content;
mod flows;
mod rebuild;
mod transaction;
pub mod world;
