//! ferrule below a real containerd, on nodes that are namespaces: see the crate `lab`.
//!
//! What is looked at is what somebody on the node sees: answers over TCP, `ip -j`, and the files below
//! `/var/lib/cni/ferrule`. Each test has a lab of its own, which takes some seconds to come up; so a test goes
//! through several things that happen to a node in turn, as a node's life does.

mod crio;
mod life;
mod migrating;
mod node;
mod reboot;
mod services;
mod takeover;
mod three_nodes;
