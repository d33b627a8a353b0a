//! The nftables table of a node, described once as data.
//!
//! One table, `inet ferrule`, and nothing outside it. Its rules never change: pods, hostPorts and networks are
//! elements of its sets and maps, so that an ADD costs the same with one pod or a thousand, and a DEL removes
//! exactly what its ADD put there (amazon-vpc-cni-k8s#2948, plugins#512).
//!
//! ```text
//!   arrives ──> arriving ──┬── by a pod's link ──> from_pod ── not the pod's address ──> (dropped)
//!  (raw: before             │                        │
//!   any flow is known)      └────────────┬───────────┘
//!                                       v
//!                               redirect_arriving ── for this node ──┐
//!                                                                    ├──> hostports ── dnat to the pod
//!   made by the node ─────────> redirect_own ─────── for this node ──┘
//!
//!   leaves ───> leaving ──── masquerade: what comes from a local pod and stays neither in its network
//!                            (`inside4`, `inside6`) nor on this node; and what a pod or 127.0.0.1 sends to a
//!                            hostPort, which the pod could not answer otherwise
//!
//!   for this node ──> for_node ── for its end of a tunnel ──> tunnel ── not from a node ──> (dropped)
//!   for others ────> through ─── from a pod, to such a port ─> pod_to_tunnel ── as its node ──> (dropped)
//! ```
//!
//! | file          | holds                                                      |
//! |---------------|------------------------------------------------------------|
//! | [`rule`]      | the words that rules are written in; they print as `nft`'s |
//! | [`table`]     | chains, sets and rules                                     |
//! | [`element`]   | what a set has, and the elements of a pod and of a network  |
//! | [`vxlan`]    | rules and elements of this node's end of a tunnel              |
//!
//! What cannot work: a hostPort by `[::1]`. The kernel has no `route_localnet` for IPv6: a packet from `::1` never
//! leaves the node, not even to its own pod.

pub mod element;
pub mod rule;
pub mod table;
pub mod vxlan;
