//! nftables: what a pod's ADD puts into ferrule's table, what that does to packets, and that nothing of it outlives the
//! pod. `table` has the table by itself, without the plugin.

mod cost;
mod host_ports;
mod life;
mod masquerade;
mod node_addresses;
mod source;
pub mod table;
