//! Integration tests.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod add;
mod admission;
#[cfg(feature = "agent")]
mod agent;
mod annotations;
mod bandwidth;
mod chaining;
mod check;
mod conf_files;
mod containerd;
mod del;
mod delegation;
mod exhaustion;
mod faults;
mod firewall;
mod gc;
mod harness;
mod ipam_role;
mod kernel;
mod layers;
mod model;
mod nft;
mod operator;
mod overlay;
mod peers;
mod protocol;
mod requested;
mod reuse;
mod rot;
mod security;
mod status;
mod store_role;
mod storm;
mod sysctl;
