//! The layer `linux` against the kernel: what is asked for is there, as `ip` sees it.

mod link;
mod monitor;
mod netlink;
mod netns;
mod nflog;
mod route;
