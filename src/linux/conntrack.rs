//! Flows that the kernel tracks: finding some, and having them forgotten.
//!
//! Whoever redirects a port must have the flows of that port forgotten: as long as a client goes on sending, a
//! UDP flow keeps to where its first packet went, which may be nowhere, or to a pod that is gone
//! (containernetworking/plugins#123, kubernetes#66651).

use std::net::IpAddr;

use netlink_packet_netfilter::conntrack::{
    ConntrackAttribute, ConntrackMessage, IPTuple, ProtoTuple, Protocol, Tuple,
};
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage, NetfilterProtoFamily};
use rtnetlink::packet_core::{DefaultNla, Emitable, NLA_F_NESTED, Nla, ParseableParametrized};

use super::error::KernelError;
use super::message::Object;
use super::nfnetlink::Nfnetlink;

/// Deletions that travel in one datagram.
const BATCH: usize = 64;

/// `IPCTNL_MSG_CT_GET`, `CTA_TUPLE_ORIG`, `CTA_TUPLE_REPLY`, `CTA_ID`, `CTA_ZONE`, `CTA_FILTER`,
/// `CTA_FILTER_ORIG_FLAGS` and `CTA_FILTER_REPLY_FLAGS` (include/uapi/linux/netfilter/nfnetlink_conntrack.h).
const GET: u8 = 1;
const ORIGINAL: u16 = 1;
const REPLY: u16 = 2;
const ID: u16 = 12;
const ZONE: u16 = 18;
const FILTER: u16 = 25;
const FILTER_ORIGINAL: u16 = 1;
const FILTER_REPLY: u16 = 2;

/// What of a tuple a filter looks at (net/netfilter/nf_internals.h).
const BY_SOURCE: u32 = 1 << 0;
const BY_DESTINATION: u32 = 1 << 1;
const BY_PROTOCOL: u32 = 1 << 3;
const BY_DESTINATION_PORT: u32 = 1 << 5;

/// A tracked flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flow {
    /// Number of its IP protocol.
    pub protocol: u8,
    /// Who began.
    pub source: IpAddr,
    /// Whom the first packet was for.
    pub destination: IpAddr,
    /// By which port, where the protocol has them.
    pub source_port: Option<u16>,
    /// And for which port, where the protocol has them.
    pub destination_port: Option<u16>,
    /// Who answers: another than `destination` if the flow was redirected.
    pub answerer: IpAddr,
    /// By which port, where the protocol has them.
    pub answering_port: Option<u16>,
    /// Everything that the kernel needs to find it again.
    identity: Vec<ConntrackAttribute>,
}

/// Which flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlowFilter {
    /// Those that an address began.
    From(IpAddr),
    /// Those that an address answers, redirected to it or not.
    AnsweredBy(IpAddr),
    /// All of a family.
    All {
        /// Of IPv4 or IPv6.
        ipv4: bool,
    },
    /// Those of a protocol.
    Of {
        /// Of IPv4 or IPv6.
        ipv4: bool,
        /// Number of the IP protocol.
        protocol: u8,
    },
    /// Those that were, before any redirection, for a port.
    ToPort {
        /// Of IPv4 or IPv6.
        ipv4: bool,
        /// Number of the IP protocol.
        protocol: u8,
        /// The port.
        port: u16,
        /// Of this address only.
        address: Option<IpAddr>,
    },
}

impl Nfnetlink {
    /// The flows that `filter` describes.
    ///
    /// The kernel filters as far as it can (Linux 5.8 or later; an older one lists all), and the rest is done here.
    ///
    /// `conntrack -L ...`
    ///
    /// # Errors
    /// The kernel's refusal: it has no ctnetlink (EOPNOTSUPP).
    pub async fn flows(&self, filter: FlowFilter) -> Result<Vec<Flow>, KernelError> {
        self.flows_where(filter, |_| true).await
    }

    /// The same, of which only those are kept for which `is_wanted`: a node may track hundreds of thousands.
    ///
    /// # Errors
    /// As [`Nfnetlink::flows`].
    pub async fn flows_where(
        &self,
        filter: FlowFilter,
        is_wanted: impl Fn(&Flow) -> bool + Sync,
    ) -> Result<Vec<Flow>, KernelError> {
        let question = message(filter.is_ipv4(), filter.to_message());
        let read = |object: &Object| {
            let message =
                ConntrackMessage::parse_with_param(object.netfilter_body(), object.netfilter_kind()).ok()?;
            let ConntrackMessage::New(attributes) = message else { return None };
            Flow::read(&attributes).filter(|flow| filter.fits(flow) && is_wanted(flow))
        };
        let is_wanted = |object: &Object| read(object).is_some();
        let found = self.dump_some(&question, "list tracked flows", &is_wanted).await?;
        Ok(found.iter().filter_map(read).collect())
    }

    /// Has `flows` forgotten; their next packets are looked at afresh. Those that are gone already are a
    /// success. Returns how many there were.
    ///
    /// `conntrack -D ...`
    ///
    /// # Errors
    /// The kernel's refusal.
    pub async fn forget_flows(&self, flows: &[Flow]) -> Result<usize, KernelError> {
        let mut forgotten = 0;
        for some in flows.chunks(BATCH) {
            let delete =
                |flow: &Flow| message(flow.source.is_ipv4(), ConntrackMessage::Delete(flow.identity.clone()));
            for answer in self.ask(some.iter().map(delete).collect()).await {
                match answer {
                    Ok(_) => forgotten += 1,
                    Err(reason) if reason.is_not_found() => {}
                    Err(reason) => return Err(reason.of("forget a tracked flow")),
                }
            }
        }
        Ok(forgotten)
    }
}

impl FlowFilter {
    fn is_ipv4(&self) -> bool {
        match self {
            Self::From(address) | Self::AnsweredBy(address) => address.is_ipv4(),
            Self::All { ipv4 } | Self::Of { ipv4, .. } | Self::ToPort { ipv4, .. } => *ipv4,
        }
    }

    fn fits(&self, flow: &Flow) -> bool {
        match *self {
            Self::From(address) => flow.source == address,
            Self::AnsweredBy(address) => flow.answerer == address,
            Self::All { ipv4 } => flow.source.is_ipv4() == ipv4,
            Self::Of { ipv4, protocol } => flow.source.is_ipv4() == ipv4 && flow.protocol == protocol,
            Self::ToPort { ipv4, protocol, port, address } => {
                flow.source.is_ipv4() == ipv4
                    && flow.protocol == protocol
                    && flow.destination_port == Some(port)
                    && address.is_none_or(|address| flow.destination == address)
            }
        }
    }

    fn to_message(self) -> ConntrackMessage {
        // To the kernel (6.18, ctnetlink_filter_match_tuple) two IPv6 addresses are the same if they are not. So
        // it is not asked to filter by them.
        let by_address = self.is_ipv4();
        let source = |address| vec![Tuple::Ip(vec![IPTuple::SourceAddress(address)])];
        let (which, tuple, flags, fields) = match self {
            Self::From(_) | Self::AnsweredBy(_) if !by_address => {
                return ConntrackMessage::Get(Vec::new());
            }
            Self::All { .. } => return ConntrackMessage::Get(Vec::new()),
            Self::From(address) => (ORIGINAL, source(address), FILTER_ORIGINAL, BY_SOURCE),
            Self::AnsweredBy(address) => (REPLY, source(address), FILTER_REPLY, BY_SOURCE),
            Self::Of { protocol, .. } => {
                let tuple = vec![Tuple::Proto(vec![ProtoTuple::Protocol(Protocol::from(protocol))])];
                (ORIGINAL, tuple, FILTER_ORIGINAL, BY_PROTOCOL)
            }
            Self::ToPort { protocol, port, address, .. } => {
                let mut tuple = vec![Tuple::Proto(vec![
                    ProtoTuple::Protocol(Protocol::from(protocol)),
                    ProtoTuple::DestinationPort(port),
                ])];
                let mut fields = BY_PROTOCOL | BY_DESTINATION_PORT;
                if let Some(address) = address.filter(|_| by_address) {
                    tuple.push(Tuple::Ip(vec![IPTuple::DestinationAddress(address)]));
                    fields |= BY_DESTINATION;
                }
                (ORIGINAL, tuple, FILTER_ORIGINAL, fields)
            }
        };
        // Which fields of the tuple count: a number in the host's order, unlike all else in this protocol.
        let fields = DefaultNla::new(flags, fields.to_ne_bytes().to_vec());
        // As plain attributes: netlink-packet-netfilter 0.4 drops the nested flag of those that it has no words
        // for, and the kernel insists on that of the filter.
        let attributes = vec![nested(which, &tuple), nested(FILTER, &[fields])];
        ConntrackMessage::Other { message_type: GET, attributes }
    }
}

fn nested<T: Nla>(kind: u16, inner: &[T]) -> DefaultNla {
    let mut value = vec![0; inner.buffer_len()];
    inner.emit(&mut value);
    DefaultNla::new(kind | NLA_F_NESTED, value)
}

impl Flow {
    pub(super) fn read(attributes: &[ConntrackAttribute]) -> Option<Self> {
        let tuple =
            |wanted: fn(&ConntrackAttribute) -> Option<&Vec<Tuple>>| attributes.iter().find_map(wanted);
        let original = tuple(|attribute| match attribute {
            ConntrackAttribute::CtaTupleOrig(tuple) => Some(tuple),
            _ => None,
        })?;
        let reply = tuple(|attribute| match attribute {
            ConntrackAttribute::CtaTupleReply(tuple) => Some(tuple),
            _ => None,
        })?;
        let is_identity = |attribute: &&ConntrackAttribute| match attribute {
            ConntrackAttribute::CtaTupleOrig(_) => true,
            ConntrackAttribute::Other(other) => [ID, ZONE].contains(&other.kind()),
            _ => false,
        };
        let (source, destination) = ends(original)?;
        let (protocol, destination_port) = service(original)?;
        Some(Self {
            protocol,
            source,
            destination,
            source_port: source_port(original),
            destination_port,
            answerer: ends(reply)?.0,
            answering_port: source_port(reply),
            identity: attributes.iter().filter(is_identity).cloned().collect(),
        })
    }
}

/// Source and destination of a tuple.
fn ends(tuple: &[Tuple]) -> Option<(IpAddr, IpAddr)> {
    let (mut source, mut destination) = (None, None);
    for part in tuple {
        let Tuple::Ip(addresses) = part else { continue };
        for address in addresses {
            match address {
                IPTuple::SourceAddress(it) => source = Some(*it),
                IPTuple::DestinationAddress(it) => destination = Some(*it),
                _ => {}
            }
        }
    }
    source.zip(destination)
}

/// Protocol and destination port of a tuple.
fn service(tuple: &[Tuple]) -> Option<(u8, Option<u16>)> {
    let mut parts = parts(tuple);
    let protocol = parts.find_map(|part| match part {
        ProtoTuple::Protocol(it) => Some(u8::from(*it)),
        _ => None,
    });
    let port = port_of(tuple, |part| match part {
        ProtoTuple::DestinationPort(port) => Some(*port),
        _ => None,
    });
    Some((protocol?, port))
}

fn source_port(tuple: &[Tuple]) -> Option<u16> {
    port_of(tuple, |part| match part {
        ProtoTuple::SourcePort(port) => Some(*port),
        _ => None,
    })
}

fn port_of(tuple: &[Tuple], is_it: impl Fn(&ProtoTuple) -> Option<u16>) -> Option<u16> {
    parts(tuple).find_map(is_it)
}

fn parts(tuple: &[Tuple]) -> impl Iterator<Item = &ProtoTuple> {
    tuple.iter().flat_map(|part| match part {
        Tuple::Proto(parts) => parts.as_slice(),
        _ => &[],
    })
}

fn message(ipv4: bool, inner: ConntrackMessage) -> NetfilterMessage {
    let family = if ipv4 { NetfilterProtoFamily::IPv4 } else { NetfilterProtoFamily::IPv6 };
    NetfilterMessage::new(NetfilterHeader::new(family, 0, 0), inner)
}
