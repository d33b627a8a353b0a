//! Firewalls of others in the way of what a node forwards for its pods.
//!
//! docker, ufw and firewalld have the forward hook of their tables drop what they do not know, and an `accept` in
//! another table does not override that (kubernetes#39823). So their chains are read and judged, in whatever table
//! they are; and where the conf says so, the one chain that is everybody's, FORWARD of iptables, gets a rule for the
//! network's own pods.
//!
//! | verb                 | what it does                                                                       |
//! |----------------------|------------------------------------------------------------------------------------|
//! | [`obstacles`]        | reads the chains that end in a drop, in tables of nf_tables, and judges them       |
//! | [`save::read`]       | the same from what `iptables-save` prints, for tables that only it can read        |
//! | [`Filter::judge`]    | says what such a chain does with [`Traffic`]                                         |
//! | [`accept`]           | has iptables' chains let a network's pods pass                                     |
//! | [`remove`]           | takes that back; [`standing`] says what there is to take back                      |
//!
//! Reading costs one list of chains for each family, and rules only of chains that may drop: kube-proxy's thousands
//! are passed over.

mod accept;
mod bits;
mod filter;
pub mod legacy;
pub mod save;
mod traffic;
mod walk;

pub use accept::{Accepted, accept, comment, remove, standing};
pub use filter::{Filter, Judgement, among, find, obstacles};
pub use traffic::Traffic;
