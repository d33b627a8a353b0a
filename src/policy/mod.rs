//! NetworkPolicy, without a kernel and without an API server: what policies, namespaces and pods say, what the table
//! `inet ferrule-policy` of this node must be for it, and why a connection is allowed or denied. Pure.
//!
//! ```text
//! Event -> planner -> index: namespaces, pods        -> Plan -> the table, by src/datapath/policy
//!                     compile: policies, once each      |
//!                     build: a pod's rules -> a chain   walk: what the kernel would do
//!                     live: chains and sets in use
//!                     judge: what policies say, and why
//! ```
//!
//! | file         | what it is                                                                  |
//! |--------------|-----------------------------------------------------------------------------|
//! | [`object`]   | policies, namespaces and pods as far as they matter, as the API writes them |
//! | [`objects`]  | all of them as a document                                                   |
//! | [`planner`]  | from what the API server says to the plan, event by event; why a flow passes |
//! | [`selector`] | selectors of labels, compiled                                               |
//! | [`blocks`]   | ipBlocks with exceptions, as disjoint intervals                             |
//! | [`compile`]  | a policy, checked and compiled                                              |
//! | [`index`]    | namespaces and pods in little room; [`pool`]: contents that many share      |
//! | [`set_spec`] | what is to be in a set, and the set's name                                  |
//! | [`build`]    | from the policies that select a pod to its chain of rules                   |
//! | [`content`]  | what one port allows, and what names it; many ports, cut into groups        |
//! | [`live`]     | chains and sets that something refers to, and who is in them                |
//! | [`plan`]     | what the table must be, as data                                             |
//! | [`walk`]     | a plan, walked as the kernel walks the table                                |
//! | [`evaluate`] | a flow, and what is said of it                                              |
//! | [`cluster`]  | ClusterNetworkPolicies                                                      |
//! | [`names`]    | names of the table's chains and sets; [`digest`]: those of content          |
//!
//! ClusterNetworkPolicies ([`cluster`]) come in front of a pod's chain of rules and behind it, as chains of their own.

pub mod blocks;
pub mod build;
pub mod cluster;
pub mod compile;
pub mod content;
pub mod digest;
pub mod evaluate;
pub mod index;
pub mod live;
pub mod names;
pub mod object;
pub mod objects;
pub mod plan;
pub mod planner;
pub mod pool;
pub mod selector;
pub mod set_spec;
pub mod walk;

#[cfg(test)]
mod tests;
