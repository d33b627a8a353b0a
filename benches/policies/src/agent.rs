//! What a node's agent does about policies: hears, plans, writes.

use std::time::{Duration, Instant};

use ferrule::datapath::policy::{Attached, Mirror, Unknown, apply, read};
use ferrule::linux::nfnetlink::Nfnetlink;
use ferrule::policy::planner::Planner;
use kit::netns::{Namespace, inside};
use tokio::runtime::{Builder, Runtime};

use crate::Failure;
use crate::lab::Pod;
use crate::objects::{Events, full_name, uid};

/// How long a change took.
pub struct Took {
    /// All of it.
    pub whole: Duration,
    /// Of that, until the plan was made.
    pub planned: Duration,
}

/// One node's.
pub struct Agent {
    runtime: Runtime,
    nft: Nfnetlink,
    planner: Planner,
    mirror: Mirror,
    attached: Vec<Attached>,
}

impl Agent {
    /// On a node with these pods.
    pub fn start(node: &Namespace, own: &[&Pod]) -> Result<Self, Failure> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let nft = inside(node, || {
            let _entered = runtime.enter();
            Nfnetlink::open_here()
        })?;
        let mirror = runtime.block_on(read(&nft))?;
        let attached = own.iter().map(|pod| Attached {
            uid: uid(pod),
            name: full_name(pod),
            link: pod.link.clone(),
            addresses: vec![pod.address],
        });
        Ok(Self { runtime, nft, planner: Planner::new(), mirror, attached: attached.collect() })
    }

    /// Begins anew, with complete lists.
    pub fn list(&mut self, events: Events) -> Result<(), Failure> {
        self.planner = Planner::new();
        for one in &self.attached {
            self.planner.set_own_addresses(&one.uid, &one.addresses);
        }
        self.follow(events)?;
        if self.planner.is_complete() { Ok(()) } else { Err("the planner waits for something".into()) }
    }

    /// Takes in what the API server says, and makes the table so; how long that took.
    pub fn follow(&mut self, events: Events) -> Result<Took, Failure> {
        let start = Instant::now();
        for event in events {
            self.planner.hear(event);
        }
        let touched = self.planner.take_touched();
        let planned = start.elapsed();
        let work =
            apply(&self.nft, &mut self.mirror, self.planner.plan(), &touched, &self.attached, Unknown::Hold);
        self.runtime.block_on(work)?;
        Ok(Took { whole: start.elapsed(), planned })
    }
}
