//! The table `inet ferrule-policy`: makes it what [`crate::policy::plan`] says, and tells where it differs.
//!
//! | verb            | what it does                                                                                |
//! |-----------------|---------------------------------------------------------------------------------------------|
//! | [`read`]        | reads the whole table                                                                       |
//! | [`apply`]       | makes the table what the plan says, as far as something was touched                         |
//! | [`restore`]     | makes a table that is not there from what is on disk                                        |
//! | [`chains_of`]   | tells which chains are there for a new pod                                                  |
//! | [`elements`]    | what leads a pod's packets to them                                                          |
//! | [`bind`]        | adds that, in a transaction of its own                                                      |
//! | [`corrections`] | tells what of a pod's elements is missing or wrong                                          |
//! | [`sweep`]       | removes elements of links that are gone                                                     |
//! | [`bound`]       | tells where packets of pods are led now                                                     |
//! | [`own`]         | tells which addresses are taken for pods' own now                                           |
//! | [`counted`]     | tells what the rules of a chain have counted                                                |
//! | [`denied`]      | tells how many packets were denied                                                          |
//! | [`remove`]      | removes all of it                                                                           |
//!
//! | file          | holds                                                                                         |
//! |---------------|-----------------------------------------------------------------------------------------------|
//! | `skeleton.rs` | what the table has whatever the policies are                                                  |
//! | `layout.rs`   | what a plan is in the kernel                                                                  |
//! | `bindings.rs` | the elements of pods                                                                          |
//! | `mirror.rs`   | what is in the kernel                                                                         |
//! | `compare.rs`  | what of a plan that is not                                                                    |
//! | `apply.rs`    | the order in which it is made so                                                              |
//! | `remove.rs`   | what goes last                                                                                |
//! | `lead.rs`     | the same for the elements of pods                                                             |
//! | `strays.rs`   | elements that should not be as they are                                                       |
//! | `trace.rs`    | a packet's way through the table as it is                                                     |
//! | `write.rs`    | changes, in transactions that are not too large                                               |

mod apply;
mod bindings;
mod compare;
mod counted;
mod layout;
mod lead;
mod mirror;
mod remove;
mod skeleton;
mod strays;
mod trace;
mod write;

pub use apply::{Applied, apply, remove, restore};
pub use bindings::{
    Attached, Bindings, Bound, Unknown, bind, bound, chains_now, chains_of, elements, own, places,
};
pub use counted::{CountedRule, counted, denied};
pub use layout::table;
pub use mirror::{Mirror, read};
pub use skeleton::{LOG_GROUP, log_prefix};
pub use strays::{corrections, remove_link, show, sweep};
pub use trace::{End, Packet, Step, Traced, Tracer};
