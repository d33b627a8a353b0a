//! What a conf means, as values that cannot hold anything invalid.
//!
//! `cni` reads what was written; here it is judged. Pure: no file is opened, no system call is made.

mod annotations;
pub mod bandwidth;
pub mod host_port;
pub mod log;
pub mod loopback;
pub mod masquerade;
pub mod network;
pub mod peer;
pub mod policy;
pub mod range;
pub mod removal;
pub mod role;
mod sets;
pub mod sysctl;
mod valid_attachments;
mod values;

pub use network::{AddressManagement, Network};
pub use removal::Removal;
pub use role::Role;
pub use values::MTU_MIN_IPV6;
