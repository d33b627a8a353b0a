//! The node agent: the built `ferruled` on a node in a namespace, with an API server of the test's own.

#![expect(
    clippy::disallowed_methods,
    reason = "what the agent did shows in the kernel, and nothing there calls a test"
)]
#![expect(clippy::print_stdout, reason = "how long it took is told to whoever asks with --nocapture")]

pub mod access;
pub mod api;
mod chain;
mod checksums;
mod claims;
mod connection;
mod family;
mod firewall;
mod follow;
mod guard;
mod labels;
mod life;
mod loopback;
mod lost;
mod manifests;
mod many_pods;
mod nat;
pub mod node;
pub mod objects;
mod overruled;
mod own_node;
mod policy;
mod probes;
mod rejoin;
mod repair;
mod scale;
mod taint;
mod told;
mod uninstall;
