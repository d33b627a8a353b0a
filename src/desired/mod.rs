//! What must exist in the kernel, as plain data.
//!
//! An [`attachment::Attachment`] describes one pod's network, a [`node::NodeState`] what a node needs
//! besides; both unfold into a list of [`object::Object`]s. Every command is a verb over such a list:
//! ADD applies it, CHECK compares it, DEL and GC remove it. So nothing that ADD makes can be forgotten
//! by the others (docs/design.md).
//!
//! Nodes that are not on-link are reached by an [`overlay::Overlay`].
//!
//! The nftables table is described in its own words, in [`nft`].
//!
//! Pure: nothing here asks the kernel anything.

pub mod attachment;
pub mod names;
pub mod nftables;
pub mod node;
pub mod object;
pub mod overlay;
pub mod shaping;
