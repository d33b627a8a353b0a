//! The files for the container runtime, and whether it has loaded them.

pub mod chain;
pub mod conflist;
pub mod drop_ins;
pub mod files;
pub mod hold;
pub mod loopback;
pub mod runtime;
