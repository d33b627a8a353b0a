//! Nodes that are not on-link: what is kept for them, and what packets do.

mod answers;
mod forgery;
mod keep;
mod paths;
mod reach;
mod size;
mod trouble;
mod uninstall;
pub mod world;
