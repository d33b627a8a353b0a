//! Route netlink without a kernel: everything that ferrule reads from a datagram, whatever it was asked for.
//!
//! For `fuzz/`. That of netfilter is in [`nft::fuzzing`](super::nft::fuzzing).

use std::collections::VecDeque;

use super::addr::Address;
use super::answer::{Answers, Exchange, List, Listed};
use super::change::Change;
use super::error::{KernelError, Reason};
use super::exchange;
use super::link::Link;
use super::message::{Object, Request};
use super::monitor::{Event, read_route};
use super::neigh::Neighbour;
use super::qdisc::{self, Qdisc};
use super::route::{Resolved, Route};
use super::rule::Rule;
use super::vxlan::{ForwardingEntry, Tunnel};

/// How many questions the datagram is taken to answer.
const QUESTIONS: usize = 3;

/// `NLMSG_DONE` (include/uapi/linux/netlink.h).
const DONE: u16 = 3;

/// What a datagram tells.
#[derive(Debug, Default)]
pub struct Told {
    /// Links.
    pub links: Vec<Link>,
    /// What of the links is a tunnel.
    pub tunnels: Vec<Tunnel>,
    /// Addresses.
    pub addresses: Vec<Address>,
    /// Neighbours.
    pub neighbours: Vec<Neighbour>,
    /// Forwarding entries.
    pub forwarding_entries: Vec<ForwardingEntry>,
    /// Routes.
    pub routes: Vec<Route>,
    /// Answers to where a packet would go.
    pub resolved: Vec<Resolved>,
    /// Rules.
    pub rules: Vec<Rule>,
    /// Queueing disciplines.
    pub qdiscs: Vec<Qdisc>,
    /// By index: where a filter leads from, and where to.
    pub redirects: Vec<(Option<u32>, u32)>,
    /// What was refused.
    pub refusals: Vec<KernelError>,
    /// What a monitor tells of the same bytes.
    pub events: Vec<Event>,
}

impl Told {
    /// Takes a datagram for the answer to a question, for a list and for events.
    pub fn by(datagram: &[u8]) -> Self {
        let mut told = Self::default();
        let mut events = VecDeque::new();
        read_route(datagram, &mut events);
        told.events.extend(events);

        let first = datagram.get(8..).and_then(|rest| rest.first_chunk::<4>()).copied();
        let first = u32::from_ne_bytes(first.unwrap_or_default());
        let mut answers = Answers::to(first, QUESTIONS);
        let verdicts = answers.take(datagram).unwrap_or_else(|| answers.without_the_missing());
        told.refusals.extend(verdicts.into_iter().filter_map(|verdict| verdict.err().map(refuse)));
        let mut list = List::of(first);
        match list.take(datagram).or_else(|| list.take(&end_of_list(first))) {
            Some(Ok(Listed::Whole(objects) | Listed::Torn(objects))) => {
                objects.iter().for_each(|object| told.add(object));
            }
            Some(Err(reason)) => told.refusals.push(refuse(reason)),
            Some(Ok(Listed::Busy)) | None => {}
        }
        told
    }

    /// Each reader takes what is its own.
    fn add(&mut self, object: &Object) {
        self.links.extend(Link::read(object));
        self.tunnels.extend(Tunnel::read(object));
        self.addresses.extend(Address::read(object));
        self.neighbours.extend(Neighbour::read(object));
        self.forwarding_entries.extend(ForwardingEntry::read(object));
        self.resolved.extend(Resolved::read(object));
        self.routes.extend(Route::read(object));
        self.rules.extend(Rule::read(object));
        self.qdiscs.extend(Qdisc::read(object));
        self.redirects.extend(qdisc::redirect_target(object).map(|to| (qdisc::index_of(object), to)));
    }
}

fn refuse(reason: Reason) -> KernelError {
    reason.of("ask for something")
}

fn end_of_list(sequence: u32) -> Vec<u8> {
    let done = Request { kind: DONE, flags: 0, body: vec![0; 4], held: None };
    let mut bytes = Vec::new();
    exchange::write(&mut bytes, &done, sequence);
    bytes
}

/// The message that asks for a change. Of a kind of which there are lists, it has the form of what is listed.
pub fn message_of(change: &Change) -> Vec<u8> {
    let mut bytes = Vec::new();
    exchange::write(&mut bytes, &change.to_request(), 0);
    bytes
}
