//! The messages of the Container Runtime Interface that the lab uses, written by hand.
//!
//! The tag numbers are those of `runtime.v1` in `k8s.io/cri-api`, `pkg/apis/runtime/v1/api.proto`. Fields that
//! nobody here sets or reads are left out: protobuf skips what it does not know, in both directions. So there is
//! no protoc, no build script and no generated file.

mod container;
mod pod;
mod runtime;

pub use container::*;
pub use pod::*;
pub use runtime::*;
