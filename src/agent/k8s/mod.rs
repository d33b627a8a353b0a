//! What the API server says, and what is said to it. The only directory that names kube.

pub mod events;
pub mod node_info;
pub mod watch;
