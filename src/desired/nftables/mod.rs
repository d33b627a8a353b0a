//! The nftables table of a node, described once, in the plain types of [`crate::linux::nft`].
//!
//! One table, `inet ferrule`, and nothing outside it. Its rules never change: pods, hostPorts and networks are
//! elements of its sets and maps, so that an ADD costs the same with one pod or a thousand, and a DEL removes
//! exactly what its ADD put there (amazon-vpc-cni-k8s#2948, plugins#512).
//!
//! ```text
//!   arrives ──> prerouting ──┬── by a pod's link ──> antispoof ── not the pod's address ──> (dropped)
//!  (raw: before               │                         │
//!   any flow is known)        └────────────┬────────────┘
//!                                          v
//!                                   dnat_prerouting ── for this node ──┐
//!                                                                      ├──> hostports ── of one hostIP: dnat to the pod
//!   made by the node ──────────────> dnat_output ───── for this node ──┘       │
//!                                                                    an address of the node's own
//!                                                                              v
//!                                                                        any_hostports ── dnat to the pod
//!
//!   leaves ───> postrouting ── masquerade: what comes from a local pod and stays neither in its network
//!                              (`no_masquerade4`, `no_masquerade6`) nor on this node; and what a pod or 127.0.0.1
//!                              sends to a hostPort, which the pod could not answer otherwise
//!
//!   for this node ──> input ── for its VXLAN port ──────────────> vxlan ── not from a node ──> (dropped)
//!   for others ────> forward ── from a pod, to a VXLAN port ─> pod_to_vxlan ── as its node ──> (dropped)
//! ```
//!
//! | file            | holds                                                              |
//! |-----------------|--------------------------------------------------------------------|
//! | [`table`]       | chains and sets                                                    |
//! | [`rules`]       | rules                                                              |
//! | [`expr`]        | what rules are made of, under the names that `nft` has for it      |
//! | [`element`]     | the elements of a pod, and where a network's pods keep their source |
//! | [`node_addresses`] | the elements that say which addresses are the node's            |
//! | [`reason`]      | why packets are dropped, and how that is counted                   |
//! | [`vxlan`]       | the elements of the node's VXLAN port                              |
//!
//! What cannot work: a hostPort from `::1`. The kernel has no `route_localnet` for IPv6: a pod drops what comes from
//! `::1`, and an answer to `::1` is taken from `lo` alone. So that traffic is left to the node's loopback. To `::1` from
//! another address of the node a hostPort works.

pub mod element;
pub mod expr;
pub mod node_addresses;
pub mod reason;
pub mod rules;
pub mod table;
pub mod vxlan;
