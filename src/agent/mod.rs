//! The node agent, `ferruled`: makes ferrule the network of a Kubernetes cluster on one node, and keeps it so.
//!
//! | file                              | what it is                                                                 |
//! |-----------------------------------|----------------------------------------------------------------------------|
//! | [`settings`]                      | flags and environment                                                      |
//! | [`k8s`]                           | what the API server says, and what is said to it; alone in naming kube     |
//! | [`cluster`]                       | what of a Node matters, all nodes, what follows for this one; its state file |
//! | [`apply`]                         | makes node, routes, table, pods what follows                               |
//! | [`drift`]                         | which of them an event of the kernel calls for                             |
//! | [`run`], `reconcile`, `report`, [`pending`] | the loop, what it does, what it says, and when                   |
//! | [`install`]                       | what the container runtime reads, and whether it did                       |
//! | [`uninstall`]                     | `--uninstall`                                                              |
//! | [`serve`]                         | /metrics, /healthz, /readyz, the log                                       |

pub mod apply;
pub mod backoff;
pub mod cluster;
pub mod drift;
pub mod install;
pub mod k8s;
pub mod pending;
mod reconcile;
mod report;
pub mod run;
pub mod serve;
pub mod settings;
pub mod uninstall;
