//! NetworkPolicy's table, without an API server: plans made by hand, on a node with pods.

mod content;
mod drift;
mod expire;
mod large;
mod scene;
mod switch;
mod traffic;
