//! NetworkPolicy on this node: from what the API server says to the table `inet ferrule-policy`, and back to people.
//!
//! ```text
//! API server ──▶ k8s::policy_watches ──▶ Planner ──┐
//! records ─────▶ AttachedPods ─────────────────────┼─ 5 ms ─▶ datapath::policy ──▶ existing flows, <dataDir>/<network>/policy
//! kernel ──────▶ Signal (drift) ───────────────────┘
//! nflog ───────▶ Denials ──▶ log, metrics
//! ```
//!
//! A task of its own beside the agent's loop, with sockets of its own: neither waits for the other's work.
//!
//! | file        | what it is                                                                       |
//! |-------------|----------------------------------------------------------------------------------|
//! | [`driver`]  | the task: hears what happens, and does what is due                               |
//! | `due`       | what is to be done, gathered until it is                                         |
//! | `apply`     | doing it                                                                         |
//! | [`drift`]   | what an event of the kernel calls to look at                                     |
//! | [`cut`]     | existing flows that are denied now                                               |
//! | [`denials`] | packets that no rule allows, with names                                          |
//! | `keep`      | what is known, on disk for people who ask why                                    |
//! | [`pace`]    | how often something that costs time is done                                      |
//! | [`report`]  | what is said of policies, once each                                              |

mod apply;
pub mod cut;
pub mod denials;
pub mod drift;
pub mod driver;
mod due;
mod keep;
pub mod pace;
pub mod report;
