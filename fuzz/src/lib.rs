//! What ferrule is told by others, and what must hold whatever they say.
//!
//! Each module is one mouth: it says in which form the bytes come, and what is promised of them. `check` panics where a
//! promise is broken. None of it touches the machine: no file, no socket, no environment of this process.
//!
//! | module          | who speaks                                    | form                                          |
//! |-----------------|-----------------------------------------------|-----------------------------------------------|
//! | [`request`]     | the runtime, with each command                | environment as in /proc/PID/environ, and stdin |
//! | [`annotations`] | whoever may annotate a pod                    | `key=value`, parted by NUL                    |
//! | [`prev_result`] | the plugin before us, or the IPAM plugin      | JSON                                          |
//! | [`record`]      | a file of the store                           | JSON                                          |
//! | [`rtnetlink`]   | the kernel: links, addresses, routes, events  | a datagram                                    |
//! | [`nfnetlink`]   | the kernel: tables, sets, rules, flows        | a datagram                                    |
//!
//! `corpus/` has for each what one of them really says, and what once broke a promise.

pub mod annotations;
pub mod nfnetlink;
pub mod prev_result;
mod promises;
pub mod record;
pub mod request;
pub mod rtnetlink;
