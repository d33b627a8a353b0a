//! Makes the kernel what `desired` says, and tells where it is not.
//!
//! | verb                        | over an attachment's objects                                  |
//! |-----------------------------|---------------------------------------------------------------|
//! | [`attach::make_links`]      | makes the links                                               |
//! | [`attach::bring_up`]        | makes the rest, one batch for each namespace                  |
//! | [`detach::detach`]          | removes them; what is not there is a success                  |
//! | [`observe::observe`]        | reads what there is                                           |
//! | [`compare::differences`]    | says what is missing or wrong                                 |
//!
//! [`node`] and [`peers`] do the same for what a node needs besides its pods, [`overlay`] for the way to nodes that are not
//! on-link, and [`nft`] for the nftables table. [`forward`] is about the firewalls of others.

pub mod attach;
mod changes;
pub mod compare;
pub mod detach;
pub mod drops;
pub mod error;
mod interfaces;
pub mod nftables;
pub mod node;
pub mod node_addresses;
pub mod observe;
pub mod overlay;
pub mod overruled;
pub mod path_mtu;
pub mod peers;
pub mod pods;
pub mod policy;
