//! Integration tests.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod delegation;
mod exhaustion;
mod harness;
mod ipam_role;
mod kernel;
mod layers;
mod protocol;
mod requested;
mod store_role;
