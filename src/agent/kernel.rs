//! The agent's sockets to the kernel: those that change the node, and the one that hears of changes.

use std::io;

use ipnetwork::IpNetwork;
use tracing::{debug, warn};

use crate::agent::apply::Datapath;
use crate::agent::drift::{self, Ownership, Parts};
use crate::agent::settings::Settings;
use crate::cni::error::CniError;
use crate::datapath::error::DatapathError;
use crate::linux::monitor::{Event, Monitor};

/// The sockets.
pub struct Kernel {
    /// Applies what is desired.
    pub datapath: Datapath,
    /// Tells the agent's own changes from those of others.
    ownership: Ownership,
    monitor: Monitor,
}

impl Kernel {
    /// Opens the sockets in the namespace of the calling thread. Every change after this is heard.
    ///
    /// # Errors
    /// Where a socket cannot be opened.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn open(settings: &Settings) -> Result<Self, CniError> {
        let monitor =
            Monitor::open_here().map_err(|source| DatapathError::Socket { place: "node", source })?;
        let datapath = Datapath::open(settings)?;
        Ok(Self { ownership: datapath.ownership(&[]), datapath, monitor })
    }

    /// Waits for the next event. Cancel safe. A monitor that fails is opened again, and [`Event::Missed`] returned.
    ///
    /// # Errors
    /// Where no monitor can be opened any more.
    pub async fn next_event(&mut self) -> io::Result<Event> {
        match self.monitor.next().await {
            Ok(event) => Ok(event),
            Err(reason) => {
                warn!(%reason, "kernel monitor failed, reopening");
                self.monitor = Monitor::open_here()?;
                Ok(Event::Missed)
            }
        }
    }

    /// The parts of the node that an event calls to compare; none for the agent's own changes.
    pub fn drifted_parts(&self, event: &Event) -> Parts {
        let parts = drift::concerned(event, &self.ownership);
        if !parts.is_empty() {
            debug!(?event, %parts, "kernel event");
        }
        parts
    }

    /// The node's own subnets are these now.
    pub fn set_pod_cidrs(&mut self, pod_cidrs: &[IpNetwork]) {
        if self.ownership.pod_cidrs != pod_cidrs {
            self.ownership.pod_cidrs = pod_cidrs.to_vec();
        }
    }

    /// The overlay's device may have been created or removed: it belongs to what is the agent's own.
    pub fn refresh_ownership(&mut self) {
        self.ownership = self.datapath.ownership(&self.ownership.pod_cidrs);
    }
}
