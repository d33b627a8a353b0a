//! ferrule plumbs Kubernetes pods into one flat, routed network.
//!
//! The crate is built in layers; each may use only those above it in this list, and a test
//! (`tests/layers.rs`) holds the list against the imports:
//!
//! | layer        | owns                                                              | may use                  |
//! |--------------|-------------------------------------------------------------------|--------------------------|
//! | [`cni`]      | the protocol: environment, conf, result, versions, errors, ids    | nothing of ours          |
//! | [`config`]   | what a conf means: ranges, networks, problems                     | cni                      |
//! | [`desired`]  | what must exist in the kernel, as data                            | cni, config              |
//! | [`ipam`]     | which address, and remembering it                                 | cni, config, desired     |
//! | [`kernel`]   | Linux: netns, netlink, nf_tables, sysctl. Knows nothing of ferrule | nothing of ours         |
//! | [`datapath`] | makes the kernel what `desired` says, and compares the two        | all of the above but ipam |
//! | [`log`]      | lines of `key=value`, to stderr or a file of bounded size         | config                   |
//! | [`commands`] | ADD DEL CHECK GC STATUS VERSION                                   | all of the above         |
//! | [`operator`] | what people run by hand: inspect, doctor, reclaim, import ...     | all of the above         |
//! | `agent`      | the node agent; the only place that names Kubernetes (feature `agent`) | all of the above    |
//!
//! One value's way through an ADD, in one direction: `CNI_CONTAINERID` -> [`cni::ids::ContainerId`]
//! (checked once, at the edge) -> [`cni::ids::AttachmentKey`] -> file name, host link name, alias, each
//! a pure function of it. An address goes conf -> [`config::range::Range`] -> store -> attachment ->
//! kernel objects and result; it never comes back from the kernel.

#![forbid(unsafe_code)]

#[cfg(feature = "agent")]
pub mod agent;
pub mod cni;
pub mod commands;
pub mod config;
pub mod datapath;
pub mod desired;
pub mod ipam;
pub mod kernel;
pub mod log;
pub mod operator;
