//! NetworkPolicy's table, without an API server: plans made by hand, on a node with pods.

pub mod binding;
mod content;
mod drift;
mod expire;
mod first_packets;
mod large;
mod midstream;
mod rebuilt;
pub mod scene;
mod sctp;
mod switch;
mod tiers;
mod traffic;
mod untold;
