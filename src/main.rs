//! `ferrule`: the CNI plugin. Its layers come first; nothing is wired yet.

#![forbid(unsafe_code)]

fn main() {}
