//! Reads from and writes to the API server. The only directory that names kube.

pub mod api_server;
pub mod events;
pub mod node_info;
pub mod watch;
