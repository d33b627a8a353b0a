//! NetworkPolicy, without a kernel and without an API server: what policies, namespaces and pods say, what the table
//! `inet ferrule-policy` of this node must be for it, and why a connection is allowed or denied. Pure.
//!
//! | file       | what it is                                                                  |
//! |------------|-----------------------------------------------------------------------------|
//! | [`object`] | policies, namespaces and pods as far as they matter, as the API writes them |
//! | [`plan`]   | what the table must be, as data                                             |
//! | [`names`]  | names of the table's chains and sets                                        |

pub mod names;
pub mod object;
pub mod plan;
