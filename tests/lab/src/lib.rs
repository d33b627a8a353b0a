//! A lab: several Kubernetes nodes without Kubernetes, on one machine, in namespaces.
//!
//! ```text
//! this machine          nothing is made here: no namespace by name, no link, no mount, no file
//! └─ lab                pid, mount and network namespace: bridge `underlay`, 192.168.77.1, fd00:77::1;
//!    │                  a tmpfs with the nodes' disks
//!    ├─ node-a          pid, mount and network namespace: eth0 192.168.77.11, fd00:77::11; own /run, /etc, /opt, /var
//!    │  ├─ containerd   the distribution's, everything at its usual path; its CNI plugins are those under test
//!    │  └─ pods         made through the CRI
//!    ├─ node-b          the same, .12
//!    └─ ...
//! ```
//!
//! All processes of a lab live below one pid namespace whose first process ends when its owner does, even by
//! SIGKILL: the kernel then removes everything. So labs may run side by side, and none leaves anything behind.
//!
//! A node's files are at [`Node::path`], its programs run through [`Node::command`], and its containerd answers
//! [`Node::cri`].

pub mod cri;
mod error;
mod namespaces;
mod node;
mod plan;
mod process;
mod world;

pub use error::{Error, Result};
pub use node::{IMAGE, Node, Reboot};
pub use plan::NodePlan;
pub use process::{run, run_with_input};
pub use world::Lab;

use std::time::Duration;

/// Runs one future to its end on this thread, with timers and sockets: for tests, which are plain functions.
pub fn block_on<F: Future>(future: F) -> std::io::Result<F::Output> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(future))
}

/// Asks again and again until `probe` gives a value, and says what it saw last if it never does.
///
/// Some things in a runtime announce themselves to nobody; the pause between two probes is 20 ms.
pub async fn eventually<T>(
    what: &str,
    limit: Duration,
    mut probe: impl AsyncFnMut() -> std::result::Result<T, String>,
) -> Result<T> {
    let start = tokio::time::Instant::now();
    loop {
        match probe().await {
            Ok(value) => return Ok(value),
            Err(last) if start.elapsed() > limit => {
                return Err(Error::Late { what: what.to_owned(), seconds: limit.as_secs(), last });
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}
