//! Route netlink without a kernel: everything that ferrule reads from a datagram, whatever it was asked for.
//!
//! For `fuzz/`. That of netfilter is in [`nft::fuzzing`](super::nft::fuzzing).

use std::collections::VecDeque;

use futures_util::{FutureExt, stream};
use netlink_packet_route::RouteNetlinkMessage;
use rtnetlink::packet_core::{DoneMessage, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use rtnetlink::proto::{NetlinkCodec, NetlinkMessageCodec};

use super::addr::Address;
use super::change::Change;
use super::error::{KernelError, Reason};
use super::link::Link;
use super::monitor::{Event, read_route};
use super::neigh::Neighbour;
use super::netlink::{Listed, read_answer, read_dump};
use super::packet::Packet;
use super::qdisc::{self, Qdisc};
use super::route::{Resolved, Route};
use super::rule::Rule;
use super::vxlan::{ForwardingEntry, Tunnel};

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

        let mut messages = messages(datagram);
        let refuse = |reason: Reason| reason.of("ask for something");
        let answer = read_answer(&mut stream::iter(messages.clone())).now_or_never();
        told.refusals.extend(answer.and_then(Result::err).map(refuse));
        messages.push(NetlinkMessage::new(
            NetlinkHeader::default(),
            NetlinkPayload::Done(DoneMessage::default()),
        ));
        match read_dump(&mut stream::iter(messages)).now_or_never() {
            Some(Ok(Listed::Whole(objects) | Listed::Torn(objects))) => {
                objects.into_iter().for_each(|object| told.add(object));
            }
            Some(Err(reason)) => told.refusals.push(refuse(reason)),
            Some(Ok(Listed::Busy)) | None => {}
        }
        told
    }

    fn add(&mut self, object: RouteNetlinkMessage) {
        match object {
            RouteNetlinkMessage::NewLink(message) => {
                self.tunnels.extend(Tunnel::read(&message));
                self.links.push(Link::read(message));
            }
            RouteNetlinkMessage::NewAddress(message) => self.addresses.extend(Address::read(&message)),
            RouteNetlinkMessage::NewNeighbour(message) => {
                self.forwarding_entries.extend(ForwardingEntry::read(&message));
                self.neighbours.extend(Neighbour::read(message));
            }
            RouteNetlinkMessage::NewRoute(message) => {
                self.resolved.extend(Resolved::read(&message));
                self.routes.extend(Route::read(&message));
            }
            RouteNetlinkMessage::NewRule(message) => self.rules.extend(Rule::read(&message)),
            RouteNetlinkMessage::NewQueueDiscipline(message) => self.qdiscs.extend(Qdisc::read(&message)),
            RouteNetlinkMessage::NewTrafficFilter(message) => {
                let target = qdisc::redirect_target(&message);
                self.redirects.extend(target.map(|to| (qdisc::index_of(&message), to)));
            }
            _ => {}
        }
    }
}

/// As netlink-proto takes a datagram apart for [`Netlink`](super::netlink::Netlink).
fn messages(datagram: &[u8]) -> Vec<NetlinkMessage<Packet>> {
    let mut buffer = datagram.into();
    std::iter::from_fn(|| NetlinkCodec::decode::<Packet>(&mut buffer).ok().flatten()).collect()
}

/// The message that asks for a change. Of a kind of which there are lists, it has the form of what is listed.
pub fn message_of(change: &Change) -> Vec<u8> {
    let request = change.to_request();
    let mut header = NetlinkHeader::default();
    header.flags = request.flags;
    let payload = NetlinkPayload::InnerMessage(Packet::Request(request));
    let mut message = NetlinkMessage::new(header, payload);
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}
