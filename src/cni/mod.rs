//! The CNI protocol, and nothing else: what a runtime says to a plugin and what a plugin answers.
//!
//! Pure: no file is opened, no system call is made. Whatever the runtime sends is checked here, once;
//! past this layer an id, a name or a path cannot hold a value that is dangerous to use.
//!
//! Source: the CNI specification, versions 0.1.0 to 1.1.0
//! (<https://github.com/containernetworking/cni/blob/main/SPEC.md>).

pub mod args;
pub mod conf;
pub mod dns;
pub mod env;
pub mod error;
pub mod ids;
pub mod json;
pub mod problem;
pub mod request;
pub mod result;
pub mod route;
pub mod version;
