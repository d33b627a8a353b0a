//! ADD: what a pod has afterwards, read back with `ip -j`, and what becomes of an ADD that cannot succeed.

mod annotations;
mod bandwidth;
mod burst;
mod conf_files;
mod exhaustion;
mod failure;
mod interfaces;
mod policy_routing;
mod reach;
mod requested_address;
mod reuse;
mod same_container;
mod settings;
mod small_mtu;
mod sysctl;
mod uplink;
mod wire;
