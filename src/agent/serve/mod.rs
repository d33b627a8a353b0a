//! /metrics, /healthz, /readyz, and the agent's log.

pub mod http;
pub mod log;
pub mod metrics;
mod places;
pub mod plugin_log;
pub mod policy_metrics;
mod process;
