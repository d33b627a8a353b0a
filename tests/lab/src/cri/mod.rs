//! A client for the Container Runtime Interface: what kubelet does to a runtime, for tests and for the demo.
//!
//! The distribution has no `crictl`, and a test wants typed answers anyway. gRPC over the runtime's unix socket;
//! each method is one call of the interface, with the request's few interesting fields as arguments.

mod client;
pub mod messages;

pub use client::{Client, Output, PodStatus};
