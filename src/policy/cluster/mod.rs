//! ClusterNetworkPolicy (`policy.networking.k8s.io/v1beta1`): what the administrators of a cluster say before the authors
//! of NetworkPolicies, in the tier Admin, and after them, in the tier Baseline.
//!
//! ```text
//! Admin, by priority    Accept, Deny: final · Pass: the next tier · no rule: the next tier
//! NetworkPolicies       of a pod that one isolates: final
//! Baseline, by priority Accept, Deny: final · Pass, no rule: allowed
//! ```
//!
//! | file        | what it is                                               |
//! |-------------|----------------------------------------------------------|
//! | [`object`]  | a policy, as the API writes it                           |
//! | [`compile`] | a policy, checked and compiled                           |
//! | [`build`]   | from the policies of a tier that select a pod to a chain |

pub mod build;
pub mod compile;
pub mod object;
