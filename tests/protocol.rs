//! The protocol, spoken to the built binary: what goes in, what comes out, and that nothing in between hangs,
//! panics or is left behind.

mod args;
mod by_hand;
mod deadline;
mod environment;
mod log;
mod netns;
mod stdin;
mod stdout;
mod version;
