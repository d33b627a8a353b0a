//! Queueing disciplines: a token bucket, and what leads packets through another link first.
//!
//! The crate has no words for a token bucket: its attributes (include/uapi/linux/pkt_sched.h, `TCA_TBF_*`) are
//! written and read here.

use std::fmt;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{
    TcAction, TcActionAttribute, TcActionMirror, TcActionMirrorOption, TcActionOption, TcActionType,
    TcAttribute, TcFilterU32, TcFilterU32Option, TcHandle, TcMessage, TcMirror, TcMirrorActionType, TcOption,
    TcU32Key, TcU32Selector, TcU32SelectorFlags,
};
use rtnetlink::packet_core::{
    DefaultNla, NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, Nla, NlasIterator, parse_u32, parse_u64,
};

use super::error::KernelError;
use super::netlink::Netlink;
use super::packet::Request;

const TBF: &str = "tbf";
const TCA_TBF_PARMS: u16 = 1;
const TCA_TBF_RATE64: u16 = 4;
const TCA_TBF_BURST: u16 = 6;

/// `TC_LINKLAYER_ETHERNET`: spares the table that the kernel would else want for its old way of counting.
const LINKLAYER_ETHERNET: u8 = 1;

/// Length of `struct tc_ratespec`, of which `rate` is the last field.
const RATESPEC_LEN: usize = 12;

/// Handle of the one discipline that [`Change::AddQdisc`](super::change::Change::AddQdisc) puts in a place.
const ROOT_HANDLE: TcHandle = TcHandle { major: 1, minor: 0 };
const INGRESS_HANDLE: TcHandle = TcHandle { major: 0xffff, minor: 0 };

/// Priority 1 and `ETH_P_ALL`, which travels in network byte order (`TC_H_MAKE(prio << 16, protocol)`).
const EVERY_PACKET: u32 = 1 << 16 | 0x0003_u16.to_be() as u32;

/// A queueing discipline, in the one place where its kind can be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Qdisc {
    /// A token bucket at the root: what leaves by the link.
    Tbf(Tbf),
    /// Room for filters on what comes in by the link.
    Ingress,
}

/// A token bucket (tc-tbf(8)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tbf {
    /// Bytes per second.
    pub rate: u64,
    /// Size of the bucket in bytes. Not told by the kernel in a form that can be compared: `None` as found.
    pub burst: Option<u32>,
    /// How many bytes there may be, in the bucket and waiting.
    pub limit: u32,
}

/// Everything that comes in by one link leaves by another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Redirect {
    /// Index of the link by which it comes in.
    pub from: u32,
    /// Index of the link by which it leaves.
    pub to: u32,
}

impl fmt::Display for Qdisc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tbf(Tbf { rate, burst, limit }) => {
                write!(f, "root tbf rate {rate}bps")?;
                burst.iter().try_for_each(|burst| write!(f, " burst {burst}"))?;
                write!(f, " limit {limit}")
            }
            Self::Ingress => f.write_str("ingress"),
        }
    }
}

impl Netlink {
    /// The disciplines of the link `index` that are of a kind of [`Qdisc`], in their place.
    ///
    /// `tc qdisc show dev LINK`
    ///
    /// # Errors
    /// The kernel's refusal.
    pub async fn qdiscs(&self, index: u32) -> Result<Vec<Qdisc>, KernelError> {
        let question = RouteNetlinkMessage::GetQueueDiscipline(TcMessage::default());
        let answers = self.dump(question, "list qdiscs").await?;
        // The kernel lists those of all links, whatever the question says.
        let of_link = answers.into_iter().filter_map(|answer| match answer {
            RouteNetlinkMessage::NewQueueDiscipline(message) if index_of(&message) == Some(index) => {
                Qdisc::read(&message)
            }
            _ => None,
        });
        Ok(of_link.collect())
    }

    /// Where what comes in by the link `from` is redirected to.
    ///
    /// `tc filter show dev LINK ingress`
    ///
    /// # Errors
    /// The kernel's refusal.
    pub async fn redirects(&self, from: u32) -> Result<Vec<Redirect>, KernelError> {
        let mut question = message_to(from);
        question.header.parent = INGRESS_HANDLE;
        let question = RouteNetlinkMessage::GetTrafficFilter(question);
        let answers = match self.dump(question, "list filters").await {
            // Without a discipline for them there are none.
            Err(refusal) if refusal.is_invalid() || refusal.is_not_found() => return Ok(Vec::new()),
            answers => answers?,
        };
        let targets = answers.iter().filter_map(|answer| match answer {
            RouteNetlinkMessage::NewTrafficFilter(message) if index_of(message) == Some(from) => {
                redirect_target(message)
            }
            _ => None,
        });
        Ok(targets.map(|to| Redirect { from, to }).collect())
    }
}

impl Qdisc {
    pub(super) fn read(message: &TcMessage) -> Option<Self> {
        let kind = message.attributes.iter().find_map(|attribute| match attribute {
            TcAttribute::Kind(kind) => Some(kind.as_str()),
            _ => None,
        })?;
        match (kind, message.header.parent) {
            (TBF, TcHandle::ROOT) => message.attributes.iter().find_map(|attribute| match attribute {
                TcAttribute::Options(options) => options.iter().find_map(Tbf::read).map(Self::Tbf),
                _ => None,
            }),
            ("ingress", _) => Some(Self::Ingress),
            _ => None,
        }
    }
}

impl Tbf {
    fn read(option: &TcOption) -> Option<Self> {
        let TcOption::Other(options) = option else { return None };
        let mut nested = vec![0; options.value_len()];
        options.emit_value(&mut nested);
        let (mut rate, mut rate64, mut limit) = (None, None, None);
        for attribute in NlasIterator::new(nested.as_slice()).flatten() {
            let value = attribute.value();
            let number = |at: usize| value.get(at..at + 4).and_then(|bytes| parse_u32(bytes).ok());
            match attribute.kind() {
                TCA_TBF_PARMS => {
                    rate = number(RATESPEC_LEN - 4);
                    limit = number(2 * RATESPEC_LEN);
                }
                TCA_TBF_RATE64 => rate64 = parse_u64(value).ok(),
                _ => {}
            }
        }
        Some(Self { rate: rate64.or(rate.map(u64::from))?, burst: None, limit: limit? })
    }

    /// `struct tc_tbf_qopt` and what does not fit into it.
    fn options(&self) -> Vec<TcOption> {
        let mut parameters = vec![0, LINKLAYER_ETHERNET, 0, 0, 0, 0, 0, 0];
        parameters.extend(u32::try_from(self.rate).unwrap_or(u32::MAX).to_ne_bytes());
        parameters.extend([0; RATESPEC_LEN]); // no peak rate
        parameters.extend(self.limit.to_ne_bytes());
        // Bucket and MTU as times, in units of 64 ns: a large bucket at a low rate overflows. TCA_TBF_BURST says it
        // in bytes (since Linux 3.14).
        parameters.extend([0; 8]);
        let burst = self.burst.unwrap_or(self.limit);
        let attributes = [
            DefaultNla::new(TCA_TBF_PARMS, parameters),
            DefaultNla::new(TCA_TBF_BURST, burst.to_ne_bytes().to_vec()),
            DefaultNla::new(TCA_TBF_RATE64, self.rate.to_ne_bytes().to_vec()),
        ];
        attributes.into_iter().map(TcOption::Other).collect()
    }
}

/// `tc qdisc add dev LINK root tbf rate RATE burst BURST limit LIMIT`, or `tc qdisc add dev LINK ingress`
pub(super) fn add_qdisc(index: u32, qdisc: &Qdisc) -> Request {
    let mut message = message_to(index);
    match qdisc {
        Qdisc::Tbf(tbf) => {
            (message.header.parent, message.header.handle) = (TcHandle::ROOT, ROOT_HANDLE);
            message.attributes.push(TcAttribute::Kind(TBF.to_owned()));
            message.attributes.push(TcAttribute::Options(tbf.options()));
        }
        Qdisc::Ingress => {
            (message.header.parent, message.header.handle) = (TcHandle::INGRESS, INGRESS_HANDLE);
            message.attributes.push(TcAttribute::Kind("ingress".to_owned()));
        }
    }
    Request::new(RouteNetlinkMessage::NewQueueDiscipline(message), NEW)
}

/// `tc filter add dev LINK parent ffff: protocol all pref 1 u32 match u32 0 0 action mirred egress redirect dev LINK`
pub(super) fn add_redirect(redirect: &Redirect) -> Request {
    let mut selector = TcU32Selector::default();
    selector.flags = TcU32SelectorFlags::Terminal;
    selector.keys = vec![TcU32Key::default()];
    selector.nkeys = 1;
    let mut mirror = TcMirror::default();
    mirror.generic.action = TcActionType::Stolen;
    mirror.eaction = TcMirrorActionType::EgressRedir;
    mirror.ifindex = redirect.to;
    let mut action = TcAction::default();
    action.attributes = vec![
        TcActionAttribute::Kind(TcActionMirror::KIND.to_owned()),
        TcActionAttribute::Options(vec![TcActionOption::Mirror(TcActionMirrorOption::Parms(mirror))]),
    ];
    let mut message = message_to(redirect.from);
    message.header.parent = INGRESS_HANDLE;
    message.header.info = EVERY_PACKET;
    message.attributes = vec![
        TcAttribute::Kind(TcFilterU32::KIND.to_owned()),
        TcAttribute::Options(vec![
            TcOption::U32(TcFilterU32Option::Selector(selector)),
            TcOption::U32(TcFilterU32Option::Action(vec![action])),
        ]),
    ];
    Request::new(RouteNetlinkMessage::NewTrafficFilter(message), NEW)
}

const NEW: u16 = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;

/// The link that a filter redirects to.
pub(super) fn redirect_target(message: &TcMessage) -> Option<u32> {
    let options = message.attributes.iter().filter_map(|attribute| match attribute {
        TcAttribute::Options(options) => Some(options),
        _ => None,
    });
    let actions = options.flatten().filter_map(|option| match option {
        TcOption::U32(TcFilterU32Option::Action(actions)) => Some(actions),
        _ => None,
    });
    let mut attributes = actions.flatten().flat_map(|action| &action.attributes);
    attributes.find_map(|attribute| {
        let TcActionAttribute::Options(options) = attribute else { return None };
        options.iter().find_map(|option| match option {
            TcActionOption::Mirror(TcActionMirrorOption::Parms(mirror))
                if mirror.eaction == TcMirrorActionType::EgressRedir =>
            {
                Some(mirror.ifindex)
            }
            _ => None,
        })
    })
}

/// A message about the link `index`, with nothing said yet.
fn message_to(index: u32) -> TcMessage {
    // The kernel's indexes are positive numbers of 31 bits.
    TcMessage::with_index(index.cast_signed())
}

pub(super) fn index_of(message: &TcMessage) -> Option<u32> {
    u32::try_from(message.header.index).ok()
}
