//! Somebody means harm: what docs/SECURITY.md claims and no other test shows.

mod files;
#[cfg(feature = "agent")]
mod privileges;
