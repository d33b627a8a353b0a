//! The nftables table through the commands: what a pod's ADD puts into it, what that does to packets, and that nothing
//! of it outlives the pod. The table by itself is the subject of `nft`.

mod cost;
mod host_ports;
mod life;
mod masquerade;
mod source;
mod table;
