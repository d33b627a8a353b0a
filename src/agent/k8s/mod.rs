//! Reads from and writes to the API server. The only directory that names kube.

pub mod api_server;
pub mod client;
pub mod credentials;
pub mod events;
mod metadata;
pub mod node_info;
pub mod policy_objects;
pub mod policy_watches;
mod source;
pub mod watch;
pub mod watched_node;
