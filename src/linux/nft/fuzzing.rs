//! Netfilter without a kernel: everything that ferrule reads from a datagram, whatever it was asked for.
//!
//! For `fuzz/`.

use std::collections::VecDeque;

use netlink_packet_netfilter::conntrack::ConntrackMessage;
use netlink_packet_netfilter::nftables::ChainMessage;
use rtnetlink::packet_core::{Parseable, ParseableParametrized};

use super::super::attributes::Attributes;
use super::change::Change;
use super::element::Element;
use super::query::generation_of;
use super::rule::{PlacedRule, Rule};
use super::table::Chain;
use super::trace::{TraceEvent, read_trace};
use crate::linux::answer::{Answers, Exchange, List, Listed, Verdict};
use crate::linux::conntrack::Flow;
use crate::linux::error::{KernelError, Reason};
use crate::linux::exchange::write;
use crate::linux::message::{Object, Request};
use crate::linux::monitor::{Event, read_nftables};
use crate::linux::nflog::{LoggedPacket, read_packets};

/// How many questions the datagram is taken to answer, and of how many messages it ends a transaction.
const QUESTIONS: usize = 3;

/// `NLMSG_DONE` (include/uapi/linux/netlink.h).
const DONE: u16 = 3;

/// What a datagram tells.
#[derive(Debug, Default)]
pub struct Told {
    /// Chains.
    pub chains: Vec<Chain>,
    /// Rules, by a list of one chain.
    pub placed_rules: Vec<PlacedRule>,
    /// Rules, by a list of all; each with the table that it says it is of.
    pub rules: Vec<(Option<String>, Rule)>,
    /// Elements, of a set of ours.
    pub elements: Vec<Element>,
    /// Flows.
    pub flows: Vec<Flow>,
    /// Numbers of generations.
    pub generations: Vec<u32>,
    /// What was refused.
    pub refusals: Vec<KernelError>,
    /// What a monitor tells of the same bytes.
    pub events: Vec<Event>,
    /// And what a log of packets does.
    pub packets: Vec<LoggedPacket>,
    /// And what a trace does.
    pub traced: Vec<TraceEvent>,
}

impl Told {
    /// Takes a datagram for answers to questions, for a list, for what becomes of a transaction and for events. It
    /// answers whatever has its first sequence number, and a list ends behind it.
    pub fn by(datagram: &[u8]) -> Self {
        let mut told = Self::default();
        let mut events = VecDeque::new();
        read_nftables(datagram, &mut events);
        told.events.extend(events);
        let mut packets = VecDeque::new();
        read_packets(datagram, &mut packets);
        told.packets.extend(packets);
        let mut traced = VecDeque::new();
        read_trace(datagram, &mut traced);
        told.traced.extend(traced);

        let first = datagram.get(8..).and_then(|rest| rest.first_chunk::<4>()).copied();
        let first = u32::from_ne_bytes(first.unwrap_or_default());
        let answers = Answers::to(first, QUESTIONS).take(datagram);
        for answer in answers.into_iter().flatten() {
            told.add(answer.map(|object| object.into_iter().collect()));
        }
        let mut list = List::of(first);
        let outcome = list.take(datagram).or_else(|| list.take(&end_of_list(first)));
        told.add(outcome.unwrap_or(Ok(Listed::Busy)).map(|listed| match listed {
            Listed::Whole(objects) | Listed::Torn(objects) => objects,
            Listed::Busy => Vec::new(),
        }));
        if let Some(Err(rejected)) = Verdict::on(first, QUESTIONS).take(datagram) {
            told.refusals.extend(rejected.reasons.into_iter().map(|(_, reason)| refuse(reason)));
        }
        told
    }

    fn add(&mut self, objects: Result<Vec<Object>, Reason>) {
        match objects {
            Ok(objects) => objects.iter().for_each(|object| self.read(object)),
            Err(reason) => self.refusals.push(refuse(reason)),
        }
    }

    /// Nobody says which kind of object it is but the question: it is read as every kind.
    fn read(&mut self, object: &Object) {
        let attributes = Attributes(object.netfilter_body());
        self.chains.extend(ChainMessage::parse(object.netfilter_body()).ok().and_then(|it| Chain::read(&it)));
        self.placed_rules.extend(PlacedRule::read(attributes));
        self.rules.push(Rule::read(attributes));
        self.elements.extend(Element::read_all(attributes));
        match generation_of(object) {
            Ok(generation) => self.generations.push(generation),
            Err(reason) => self.refusals.push(refuse(reason)),
        }
        if let Ok(ConntrackMessage::New(flow)) =
            ConntrackMessage::parse_with_param(object.netfilter_body(), object.netfilter_kind())
        {
            self.flows.extend(Flow::read(&flow));
        }
    }
}

fn refuse(reason: Reason) -> KernelError {
    reason.of("ask for something")
}

fn end_of_list(sequence: u32) -> Vec<u8> {
    bytes_of(&Request { kind: DONE, flags: 0, body: vec![0; 4], held: None }, sequence)
}

/// The messages that ask for a change, each for itself. Those that make something have the form of what is listed.
pub fn messages_of(change: &Change) -> Vec<Vec<u8>> {
    change.to_requests(0).iter().map(|request| bytes_of(request, 0)).collect()
}

fn bytes_of(request: &Request, sequence: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    write(&mut bytes, request, sequence);
    bytes
}
