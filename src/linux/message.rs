//! Messages as they travel over a netlink socket: our requests, ready to be sent, and the kernel's objects, not taken
//! apart yet.
//!
//! The netlink crates build what ferrule sends. What the kernel sends is read here attribute by attribute, and only
//! those that ferrule knows: the crates read every attribute of a message, and refuse the whole where one of them is longer
//! than they know, as a newer kernel makes it. Reading all of them cost an ADD a tenth of its time and the plugin a
//! tenth of its size.

use rtnetlink::packet_core::Emitable;

use super::attributes::Attributes;
use super::netns::Netns;

/// `RTM_*` (include/uapi/linux/rtnetlink.h).
pub(super) mod rtm {
    pub(in crate::linux) const NEW_LINK: u16 = 16;
    pub(in crate::linux) const DEL_LINK: u16 = 17;
    pub(in crate::linux) const GET_LINK: u16 = 18;
    pub(in crate::linux) const SET_LINK: u16 = 19;
    pub(in crate::linux) const NEW_ADDRESS: u16 = 20;
    pub(in crate::linux) const DEL_ADDRESS: u16 = 21;
    pub(in crate::linux) const GET_ADDRESS: u16 = 22;
    pub(in crate::linux) const NEW_ROUTE: u16 = 24;
    pub(in crate::linux) const DEL_ROUTE: u16 = 25;
    pub(in crate::linux) const GET_ROUTE: u16 = 26;
    pub(in crate::linux) const NEW_NEIGHBOUR: u16 = 28;
    pub(in crate::linux) const DEL_NEIGHBOUR: u16 = 29;
    pub(in crate::linux) const GET_NEIGHBOUR: u16 = 30;
    pub(in crate::linux) const NEW_RULE: u16 = 32;
    pub(in crate::linux) const DEL_RULE: u16 = 33;
    pub(in crate::linux) const GET_RULE: u16 = 34;
    pub(in crate::linux) const NEW_QDISC: u16 = 36;
    pub(in crate::linux) const DEL_QDISC: u16 = 37;
    pub(in crate::linux) const GET_QDISC: u16 = 38;
    pub(in crate::linux) const NEW_FILTER: u16 = 44;
    pub(in crate::linux) const GET_FILTER: u16 = 46;
    pub(in crate::linux) const NEW_NETCONF: u16 = 80;
    pub(in crate::linux) const GET_NSID: u16 = 90;
}

/// A message to the kernel.
#[derive(Debug, Clone)]
pub(super) struct Request {
    /// What it asks for: of route netlink one of [`rtm`], of netfilter subsystem and message.
    pub(super) kind: u16,
    /// NLM_F_*
    pub(super) flags: u16,
    /// All that follows `struct nlmsghdr`.
    pub(super) body: Vec<u8>,
    /// The namespace that the message names by descriptor.
    #[expect(dead_code, reason = "kept open until the message is sent, not read")]
    pub(super) held: Option<Netns>,
}

impl Request {
    pub(super) fn new(kind: u16, message: &impl Emitable, flags: u16) -> Self {
        let mut body = vec![0; message.buffer_len()];
        message.emit(&mut body);
        Self { kind, flags, body, held: None }
    }
}

/// What the kernel tells of one thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Object {
    /// As [`Request::kind`].
    pub(super) kind: u16,
    /// All that follows `struct nlmsghdr`.
    pub(super) payload: Vec<u8>,
}

impl Object {
    /// Of netfilter: the message within its subsystem.
    pub(super) fn netfilter_kind(&self) -> u8 {
        let [kind, _subsystem] = self.kind.to_le_bytes();
        kind
    }

    /// Of netfilter: all that follows `struct nfgenmsg`.
    ///
    /// netlink-packet-netfilter 0.4 reads rules and elements as well, but for each attribute it prints the whole buffer
    /// around it, for an error that is hardly ever there: a millisecond for the few rules that an ADD looks at.
    pub(super) fn netfilter_body(&self) -> &[u8] {
        self.payload.get(4..).unwrap_or_default()
    }
}

/// Takes the header, of fixed length, from a message's attributes. `None` if it is cut short.
pub(super) fn split<const N: usize>(payload: &[u8]) -> Option<(&[u8; N], Attributes<'_>)> {
    payload.split_first_chunk::<N>().map(|(header, rest)| (header, Attributes(rest)))
}

/// The 32 bits at a place of such a header, in the host's order.
pub(super) fn word<const N: usize>(header: &[u8; N], at: usize) -> u32 {
    header.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u32::from_ne_bytes(*bytes))
}
