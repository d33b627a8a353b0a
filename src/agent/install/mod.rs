//! What the container runtime reads, and whether it did.

pub mod conflist;
pub mod drop_ins;
pub mod files;
pub mod runtime;
