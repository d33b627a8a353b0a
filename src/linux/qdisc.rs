//! Queueing disciplines: a token bucket, and what leads packets through another link first.
//!
//! The crate has no words for a token bucket: its attributes (include/uapi/linux/pkt_sched.h, `TCA_TBF_*`) are
//! written and read here.

use std::fmt;

use netlink_packet_route::tc::{
    TcAction, TcActionAttribute, TcActionMirror, TcActionMirrorOption, TcActionOption, TcActionType,
    TcAttribute, TcFilterU32, TcFilterU32Option, TcHandle, TcMessage, TcMirror, TcMirrorActionType, TcOption,
    TcU32Key, TcU32Selector, TcU32SelectorFlags,
};
use rtnetlink::packet_core::{DefaultNla, NLM_F_CREATE, NLM_F_EXCL};

use super::attributes::{Attributes, number};
use super::error::KernelError;
use super::message::{Object, Request, rtm, split, word};
use super::netlink::Netlink;

const TBF: &str = "tbf";

/// `TCA_*` (include/uapi/linux/rtnetlink.h), `TCA_U32_ACT`, `TCA_ACT_OPTIONS` (pkt_cls.h), `TCA_MIRRED_PARMS`,
/// `TCA_EGRESS_REDIR` (tc_act/tc_mirred.h).
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_U32_ACT: u16 = 7;
const TCA_ACT_OPTIONS: u16 = 2;
const TCA_MIRRED_PARMS: u16 = 2;
const EGRESS_REDIR: u32 = 1;

const TCA_TBF_PARMS: u16 = 1;
const TCA_TBF_RATE64: u16 = 4;
const TCA_TBF_BURST: u16 = 6;

/// `TC_LINKLAYER_ETHERNET`: spares the table that the kernel would else want for its old way of counting.
const LINKLAYER_ETHERNET: u8 = 1;

/// Length of `struct tcmsg` (include/uapi/linux/rtnetlink.h).
const TCMSG: usize = 20;

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
        let answers = self.dump(rtm::GET_QDISC, &TcMessage::default(), "list qdiscs").await?;
        // The kernel lists those of all links, whatever the question says.
        let of_link = answers.iter().filter(|answer| index_of(answer) == Some(index));
        Ok(of_link.filter_map(Qdisc::read).collect())
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
        let answers = match self.dump(rtm::GET_FILTER, &question, "list filters").await {
            // Without a discipline for them there are none.
            Err(refusal) if refusal.is_invalid() || refusal.is_not_found() => return Ok(Vec::new()),
            answers => answers?,
        };
        let of_link = answers.iter().filter(|answer| index_of(answer) == Some(from));
        Ok(of_link.filter_map(redirect_target).map(|to| Redirect { from, to }).collect())
    }
}

impl Qdisc {
    pub(super) fn read(object: &Object) -> Option<Self> {
        if object.kind != rtm::NEW_QDISC {
            return None;
        }
        let (header, found) = split::<TCMSG>(&object.payload)?;
        match found.text(TCA_KIND)?.as_str() {
            TBF if TcHandle::from(word(header, 12)) == TcHandle::ROOT => {
                Tbf::read(found.nested(TCA_OPTIONS)?).map(Self::Tbf)
            }
            "ingress" => Some(Self::Ingress),
            _ => None,
        }
    }
}

impl Tbf {
    fn read(options: Attributes<'_>) -> Option<Self> {
        let parameters = options.value(TCA_TBF_PARMS)?;
        let rate = parameters.get(RATESPEC_LEN - 4..).and_then(number)?;
        let limit = parameters.get(2 * RATESPEC_LEN..).and_then(number)?;
        let rate64 = options.value(TCA_TBF_RATE64).and_then(|it| it.try_into().ok()).map(u64::from_ne_bytes);
        Some(Self { rate: rate64.unwrap_or(rate.into()), burst: None, limit })
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
    Request::new(rtm::NEW_QDISC, &message, NEW)
}

/// `tc qdisc delete dev LINK {root|ingress}`
pub(super) fn delete_qdisc(index: u32, qdisc: &Qdisc) -> Request {
    let mut message = message_to(index);
    message.header.parent = match qdisc {
        Qdisc::Tbf(_) => TcHandle::ROOT,
        Qdisc::Ingress => TcHandle::INGRESS,
    };
    Request::new(rtm::DEL_QDISC, &message, 0)
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
    Request::new(rtm::NEW_FILTER, &message, NEW)
}

const NEW: u16 = NLM_F_CREATE | NLM_F_EXCL;

/// The link that a filter redirects to.
pub(super) fn redirect_target(object: &Object) -> Option<u32> {
    if object.kind != rtm::NEW_FILTER {
        return None;
    }
    let (_, found) = split::<TCMSG>(&object.payload)?;
    let actions = found.nested(TCA_OPTIONS)?.nested(TCA_U32_ACT)?;
    actions.iter().find_map(|(_, action)| {
        // struct tc_mirred: five numbers that every action has, what it does, with which link.
        let mirror = Attributes(action).nested(TCA_ACT_OPTIONS)?.value(TCA_MIRRED_PARMS)?;
        let (what, target) = (number(mirror.get(20..)?)?, number(mirror.get(24..)?)?);
        (what == EGRESS_REDIR).then_some(target)
    })
}

/// A message about the link `index`, with nothing said yet.
fn message_to(index: u32) -> TcMessage {
    // The kernel's indexes are positive numbers of 31 bits.
    TcMessage::with_index(index.cast_signed())
}

/// Of which link such a message tells.
pub(super) fn index_of(object: &Object) -> Option<u32> {
    split::<TCMSG>(&object.payload).map(|(header, _)| word(header, 4))
}
