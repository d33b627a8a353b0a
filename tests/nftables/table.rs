//! The nftables table: what it is, and what it does to packets between hosts that are namespaces.

mod content;
mod flows;
mod host_ports;
mod masquerade;
mod rebuild;
mod source;
mod transaction;
mod world;
