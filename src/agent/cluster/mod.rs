//! All nodes, and what follows from them for this one: plain code, no I/O but one file.

pub mod desired_state;
pub mod index;
pub mod state_file;
