//! Somebody means harm: what docs/security-model.md claims and no other test shows.

mod claims;
mod document;
mod files;
mod loopback;
mod packages;
#[cfg(feature = "agent")]
mod privileges;
mod spoofing;
mod words;
