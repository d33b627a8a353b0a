//! Whether the pods' largest packets reach the other nodes: tried now and then, since somebody may change what lies between.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::agent::event_loop::Agent;
use crate::agent::serve::metrics::Metrics;
use crate::cni::ids::NetworkName;
use crate::datapath::path_mtu::{Passage, Path, paths, try_some};
use crate::linux::netlink::Netlink;

/// How often. The first time a while after the start, when the other nodes are there as well.
const PAUSE: Duration = Duration::from_secs(600);
const FIRST: Duration = Duration::from_secs(60);

/// How many nodes at once.
const MOST: usize = 16;

/// When it was tried last, and who was not reached.
pub struct PathChecks {
    next: Instant,
    turn: usize,
    known: Rc<RefCell<BTreeMap<IpAddr, Passage>>>,
}

impl Default for PathChecks {
    fn default() -> Self {
        Self { next: Instant::now() + FIRST, turn: 0, known: Rc::default() }
    }
}

impl PathChecks {
    /// Whether it is time to try again; if so, the next time is set.
    pub fn take_due(&mut self, now: Instant) -> bool {
        let is_due = self.next <= now;
        if is_due {
            self.next = now + PAUSE;
            self.turn = self.turn.wrapping_add(1);
        }
        is_due
    }

    /// Tries some of the ways in a task of its own, which waits for answers.
    ///
    /// # Panics
    /// Outside a [`tokio::task::LocalSet`].
    pub fn start(&self, netlink: Netlink, network: NetworkName, pod_mtu: u32, metrics: Arc<Metrics>) {
        let (known, turn) = (Rc::clone(&self.known), self.turn);
        tokio::task::spawn_local(async move {
            let all = match paths(&netlink, &network).await {
                Ok(all) => all,
                Err(reason) => return debug!(%reason, "ways to other nodes not tried"),
            };
            let tried = try_some(&all, pod_mtu, MOST, turn).await;
            let mut known = known.borrow_mut();
            known.retain(|node, _| all.iter().any(|path| path.node == *node));
            for (path, passage) in tried {
                tell(&mut known, path, passage, pod_mtu);
            }
            metrics.paths_too_small.set(known.len().try_into().unwrap_or(i64::MAX));
        });
    }
}

impl Agent {
    /// Sends packets as large as the pods' to other nodes, now and then.
    ///
    /// # Panics
    /// As [`PathChecks::start`].
    pub(super) async fn try_paths(&mut self) {
        let Some(desired) = self.cluster.desired.as_ref() else { return };
        if self.path_checks.take_due(Instant::now()) {
            let pod_mtu = self.runtime.pod_mtu(&self.settings);
            let step = self.kernel.datapath.ways_to_try(desired, pod_mtu);
            if let Some((netlink, network, mtu)) = self.reported.step("paths", step).await {
                self.path_checks.start(netlink, network, mtu, Arc::clone(&self.reported.metrics));
            }
        }
    }
}

/// Tells of what is new.
fn tell(known: &mut BTreeMap<IpAddr, Passage>, path: Path, passage: Passage, pod_mtu: u32) {
    let (node, length) = (path.node, path.length(pod_mtu));
    match passage {
        // One that does not answer is as it was.
        Passage::Unknown => {}
        Passage::Free => {
            if known.remove(&node).is_some() {
                info!(%node, length, "packets as large as the pods' reach the node again");
            }
        }
        Passage::Narrow { .. } | Passage::Lost => {
            if known.insert(node, passage) != Some(passage) {
                let at_most = if let Passage::Narrow { mtu } = passage { mtu } else { 0 };
                let remedy = "set FERRULE_MTU to what the way carries";
                warn!(%node, length, at_most, remedy, "packets as large as the pods' do not reach the node");
            }
        }
    }
}
