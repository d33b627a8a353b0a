//! The node agent, `ferruled`: makes ferrule the network of a Kubernetes cluster on one node, and keeps it so.
//!
//! | file                          | what it is                                                                  |
//! |-------------------------------|-----------------------------------------------------------------------------|
//! | [`settings`]                  | flags and environment                                                       |
//! | [`event_loop`], `reconcile`   | the loop, and what it does                                                  |
//! | [`pending`], [`backoff`]      | what is due, and when                                                       |
//! | [`surroundings`]              | what this node needs and no pods elsewhere may have                         |
//! | [`probation`]                 | whether the API server is heard after a change of routes                    |
//! | [`report`]                    | log, metrics, events of the Node                                            |
//! | `own_node`                    | what this node's Node lacks                                                 |
//! | [`k8s`]                       | the API server; the only directory that names kube                          |
//! | [`cluster`]                   | all Nodes, what this node has to be, the state file                         |
//! | [`kernel`], [`apply`]         | the sockets; node, routes, table, pods, firewalls                           |
//! | [`mounts`]                    | whether the agent's directories are still the node's                        |
//! | [`drift`]                     | which of them an event of the kernel calls to compare                       |
//! | `drops`                       | dropped packets, for /metrics                                               |
//! | `paths`                       | whether the pods' largest packets reach other nodes                         |
//! | [`policy`]                    | NetworkPolicy: a task beside the loop                                       |
//! | [`install`]                   | the plugin, the conf, drop-ins, and whether the runtime has loaded the conf |
//! | [`serve`]                     | /metrics, /healthz, /readyz; the log; the plugin's log                      |
//! | [`uninstall`]                 | `--uninstall`                                                               |

pub mod apply;
pub mod backoff;
pub mod cluster;
pub mod drift;
mod drops;
pub mod event_loop;
pub mod install;
pub mod k8s;
pub mod kernel;
pub mod mounts;
mod own_node;
mod paths;
pub mod pending;
pub mod policy;
pub mod probation;
mod reconcile;
pub mod report;
pub mod serve;
pub mod settings;
pub mod surroundings;
pub mod uninstall;
