//! What the tests stand on: nodes and pods in throwaway namespaces, one way to run a plugin, real traffic, and readers of
//! the kernel's state that are not the code under test.
//!
//! # What is where
//!
//! | to                                              | there is                                                    |
//! |-------------------------------------------------|-------------------------------------------------------------|
//! | have a node, with an uplink and a host outside  | [`node::Node::new`], [`node::Node::bare`] without           |
//! | have several nodes on one switch                | [`underlay::Underlay`]                                      |
//! | have a pod's sandbox                            | [`pod::Pod`]                                                |
//! | ADD, DEL, CHECK, GC, STATUS                     | `node.add(&pod, &conf)`, `node.del(..)`, and so on          |
//! | the same, with a wrong environment or stdin     | [`call::Call`], [`network::Network`]                        |
//! | run a verb of the command line                  | [`call::Call::ferrulectl`]                                  |
//! | judge what a program answered                   | [`answer::Answer`]: `result()`, `failure(code)`             |
//! | run many at once                                | [`at_once()`]                                               |
//! | run another program, in a namespace or not      | [`process`], [`netns::Namespace::sh`]                       |
//! | know where the programs under test are          | [`binaries`]                                                |
//! | read links, addresses, routes, neighbours       | [`ip`] (`ip -j`)                                            |
//! | read and load nftables                          | [`nft`] (`nft -j`)                                          |
//! | read queues and filters, measure a rate         | [`tc`] (`tc -j`, iperf3)                                    |
//! | read the store, count files                     | [`store::Store`], [`files`]                                 |
//! | see whether packets arrive                      | [`packets`]: ping, TCP, who came first                      |
//! | ask a server who the client is to it            | [`traffic`]: TCP and UDP servers and clients                |
//! | send what no socket would send                  | [`frames`]                                                  |
//! | be in a namespace with a thread                 | [`netns::inside`]                                           |
//! | mount what nobody else sees                     | [`mounts::Mounts`]                                          |
//! | wire a pod without the plugin                   | [`wired::WiredPod`]                                         |
//! | read what the documents tell people to type      | [`documents`]                                               |
//!
//! # Rules
//!
//! - Nothing touches the namespace that the tests run in. Names are unique for each process and test, so tests run in
//!   parallel, and beside another run of themselves. Everything goes with its guard, also when a test panics.
//! - Nothing waits for ever ([`process::PATIENCE`]), and no test asserts how long something took.
//! - What is expected is read by `ip`, `nft`, `tc`, `conntrack` or by traffic, never by ferrule's own code.
//! - A test must be able to fail: where it expects that nothing happens, it also shows a case in which something does.
//!
//! # To add a case
//!
//! Take the module in `tests/` that bears the subject's name, and write a function with at most 60 characters. Run it by
//! `cargo test --features agent --test integration -- add::reach`.
//!
//! ADD (`tests/add/`): attach a pod, look at it.
//!
//! ```text
//! #[test]
//! fn a_pod_has_a_default_route() {
//!     let (node, pod) = (Node::new(), Pod::new("pod"));
//!     let result = node.add(&pod, &node.conf());
//!     assert!(ip::routes(pod.namespace(), "-4").iter().any(|route| route["dst"] == "default"));
//!     assert!(answers_ping(node.namespace(), &addresses_of(&result)[0]));
//! }
//! ```
//!
//! DEL (`tests/del.rs`): break something in between, and nothing may be left.
//!
//! ```text
//!     node.add(&pod, &conf);
//!     fs::write(node.record_path(&pod), "damaged").unwrap();
//!     node.del(&pod, &conf);
//!     node.expect_nothing_left();
//! ```
//!
//! nftables (`tests/nftables/`): ask who is seen as whom. `tests/nftables/table/` has the table without the plugin.
//!
//! ```text
//!     conf["ipMasq"] = json!(true);
//!     node.add(&pod, &conf);
//!     let _server = Server::tcp(node.outside(), 9000, "outside");
//!     assert_eq!(tcp(pod.namespace(), OUTSIDE_V4, 9000), reply(NODE_V4, "outside"));
//! ```
//!
//! Overlay (`tests/overlay/`): `world.rs` there has three nodes behind a router that knows nothing of pods.
//!
//! ```text
//!     let world = World::new();
//!     world.settle(Routing::Auto);
//!     assert!(answers_ping(&world.node(1).pod, &world.node(2).pod_addresses()[0]));
//! ```
//!
//! A conf that must be refused: `node.try_add(&pod, &conf).complaint(7)` is the text of the error, which has code 7.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::new_without_default, reason = "a node or a namespace is nothing that one gets by default")]

pub mod answer;
mod at_once;
pub mod binaries;
pub mod call;
pub mod documents;
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
