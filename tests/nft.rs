//! The nftables table: what it is, and what it does to packets between hosts that are namespaces.

mod flows;
mod hostport;
mod masquerade;
mod rebuild;
mod source;
mod table;

mod transaction;
mod world;
