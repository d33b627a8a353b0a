//! NetworkPolicy, without a kernel and without an API server: what policies, namespaces and pods say, what the table
//! `inet ferrule-policy` of this node must be for it, and why a connection is allowed or denied. Pure.
//!
//! | file         | what it is                                                                  |
//! |--------------|-----------------------------------------------------------------------------|
//! | [`object`]   | policies, namespaces and pods as far as they matter, as the API writes them |
//! | [`planner`]  | from what the API server says to the plan, event by event                   |
//! | [`plan`]     | what the table must be, as data                                             |
//! | [`names`]    | names of the table's chains and sets                                        |
//! | [`evaluate`] | why a connection is allowed or denied                                       |
//! | [`walk`]     | a plan, walked as the kernel walks the table                                |

pub mod evaluate;
pub mod names;
pub mod object;
pub mod plan;
pub mod planner;
pub mod walk;
