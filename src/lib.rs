//! ferrule plumbs Kubernetes pods into one flat, routed network.
//!
//! The crate is built in layers; each may use only those above it in this list, and a test
//! (`tests/layers.rs`) holds the list against the imports:
//!
//! | layer                | owns                                                                | may use              |
//! |----------------------|---------------------------------------------------------------------|----------------------|
//! | [`mac`]              | hardware addresses, for all layers                                  | nothing of ours      |
//! | `text_table`         | tables on a terminal, for all layers                                | nothing of ours      |
//! | [`cni`]              | the protocol: environment, conf, result, versions, errors, ids      | nothing of ours      |
//! | [`config`]           | what a conf means: ranges, networks, problems                       | cni                  |
//! | [`linux`]            | netns, netlink, nf_tables, sysctl. Knows nothing of ferrule         | nothing of ours      |
//! | [`desired`]          | what must exist in the kernel, as data; in linux's plain types      | cni, config, linux   |
//! | [`store`]            | which address, and remembering it                                   | cni, config, desired, policy |
//! | [`datapath`]         | makes the kernel what `desired` says, and compares the two          | all above but store  |
//! | [`connectivity`]     | why a connection works or not: question, halves, answer. Pure       | policy               |
//! | [`log`]              | lines of `key=value`, to stderr or a file of bounded size           | config               |
//! | [`foreign_firewall`] | the only place that knows of docker, ufw, firewalld                 | all above but store  |
//! | [`attachments`]      | the engine: all that is known of pods on this node                  | all above            |
//! | [`plugin`]           | a door: ADD DEL CHECK GC STATUS VERSION, for the runtime            | all above            |
//! | `command_line`       | what the command lines of `cli` and `kubectl` have in common        | cni, policy          |
//! | `cli`                | a door: ferrulectl, for people (feature `cli`)                      | all above but plugin |
//! | `agent`              | a door: ferruled, for the cluster (feature `agent`)                 | the same but command_line |
//! | `kubectl`            | kubectl-ferrule: asks `cli` on nodes (feature `kubectl`)            | cni, connectivity, command_line |
//!
//! The doors never use each other, so that each is built without the others' dependencies.
//!
//! One value's way through an ADD, in one direction: `CNI_CONTAINERID` -> [`cni::ids::ContainerId`]
//! (checked once, at the edge) -> [`cni::ids::AttachmentKey`] -> file name, host link name, alias, each
//! a pure function of it. An address goes conf -> [`config::range::Range`] -> store -> attachment ->
//! kernel objects and result; it never comes back from the kernel.

#![forbid(unsafe_code)]

#[cfg(feature = "agent")]
pub mod agent;
pub mod attachments;
#[cfg(feature = "cli")]
pub mod cli;
pub mod cni;
#[cfg(any(feature = "cli", feature = "kubectl"))]
pub mod command_line;
pub mod config;
pub mod connectivity;
pub mod datapath;
pub mod desired;
pub mod foreign_firewall;
#[cfg(feature = "kubectl")]
pub mod kubectl;
pub mod linux;
pub mod log;
pub mod mac;
pub mod plugin;
pub mod policy;
pub mod store;
#[cfg(any(feature = "cli", feature = "kubectl"))]
pub mod text_table;
