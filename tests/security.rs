//! Somebody means harm: what docs/security-model.md claims and no other test shows.

mod capabilities;
mod claims;
mod document;
mod drops;
mod files;
mod fragments;
mod loopback;
mod metadata;
mod no_flow;
mod own_addresses;
mod packages;
#[cfg(feature = "agent")]
mod privileges;
mod spoofing;
mod user_namespace;
mod words;
