//! The node agent: the built `ferruled` on a node in a namespace, with an API server of the test's own.

mod api;
mod follow;
mod life;
mod node;
mod repair;
mod scale;
mod uninstall;
