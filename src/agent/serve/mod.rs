//! What the agent says of itself: /metrics, /healthz, /readyz and its log.

pub mod http;
pub mod log;
pub mod metrics;
pub mod plugin_log;
