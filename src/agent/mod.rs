//! The node agent, `ferruled`: makes ferrule the network of a Kubernetes cluster on one node, and keeps it so.
//!
//! | file                              | what it is                                                                |
//! |-----------------------------------|---------------------------------------------------------------------------|
//! | [`settings`]                      | flags and environment                                                     |
//! | [`watch`], [`herald`]             | from the API server, and to it: the only ones that name kube               |
//! | [`facts`], [`index`], [`plan`]    | what of a Node matters, all nodes, what follows for this one. Plain code    |
//! | [`persisted`]                     | the same from disk, for when the API server is away                         |
//! | [`datapath`]                      | the verbs: node, routes, table, pods                                      |
//! | [`drift`]                         | which of them an event of the kernel calls for                            |
//! | [`run`], `act`, `report`, [`due`] | the loop, what it does, what it says, and when                            |
//! | [`runtime`], [`conflist`], [`install`] | what the container runtime reads, and whether it did                 |
//! | [`drop_ins`]                      | what keeps systemd-networkd and NetworkManager off                         |
//! | [`clean`]                         | `--uninstall`                                                             |
//! | [`admin`], [`metrics`], [`tail`]  | /metrics, /healthz, /readyz                                               |
//! | [`log`]                           | lines of `key=value`                                                      |

mod act;
pub mod admin;
pub mod backoff;
pub mod clean;
pub mod conflist;
pub mod datapath;
pub mod drift;
pub mod drop_ins;
pub mod due;
pub mod facts;
pub mod herald;
pub mod index;
pub mod install;
pub mod log;
pub mod metrics;
pub mod persisted;
pub mod plan;
mod report;
pub mod run;
pub mod runtime;
pub mod settings;
pub mod tail;
pub mod watch;
