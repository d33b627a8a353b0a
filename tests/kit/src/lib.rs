//! What the tests stand on: throwaway namespaces, a way to run a plugin, and readers that are not the code under test.
//!
//! | to                                              | there is                                                |
//! |-------------------------------------------------|---------------------------------------------------------|
//! | run a command of a plugin, and judge its answer | [`call::Call`], [`answer::Answer`]                      |
//! | have somewhere to run it                        | [`node::Node`], or several in an [`underlay::Underlay`] |
//! | have something to attach                        | [`pod::Pod`]                                            |
//! | vary one conf or one variable of a call         | [`network::Network`]                                    |
//! | see whether packets arrive                      | [`packets`]                                             |
//! | send what no socket would send                  | [`frames`]                                              |
//! | see what the kernel has                         | [`ip`]                                                  |
//! | see how fast packets may go                     | [`tc`]                                                  |
//! | ask servers who the client is to them           | [`traffic`]                                             |
//! | see the nftables                                | [`nft`]                                                 |
//! | see what the store and other files hold         | [`store::Store`], [`files`]                             |
//! | mount what nobody else sees                     | [`mounts::Mounts`]                                      |
//! | build something else                            | [`netns::Namespace`], [`files::Scratch`]                |
//!
//! Nothing here touches the namespace that the tests run in, and all of it is gone with its guard, also when a test
//! panics. Names are unique per process and test, so tests run in parallel and beside another run of themselves.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::new_without_default, reason = "a node or a namespace is nothing that one gets by default")]

pub mod answer;
mod at_once;
pub mod binaries;
pub mod call;
pub mod files;
pub mod frames;
pub mod ip;
pub mod mounts;
pub mod netns;
pub mod network;
pub mod nft;
pub mod node;
pub mod packets;
pub mod pod;
pub mod process;
pub mod store;
pub mod tc;
pub mod traffic;
pub mod underlay;
pub mod wired;

use std::future::Future;

pub use at_once::at_once;

/// Runs `future` to its end on a runtime like ferrule's own.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}
