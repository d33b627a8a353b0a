//! What becomes of packets that a rule has marked (`meta nftrace set 1`): each rule that matches them, each chain that ends.
//!
//! `nft monitor trace`
//!
//! The kernel tells everybody who listens of all packets that anybody has marked. Whose a message is shows by the `id`: a
//! rule that marks a packet is itself the first that is told of it. The id stays while the packet goes through the hooks of
//! one namespace, and is another after it went through `lo` or into a tunnel.

use std::collections::VecDeque;
use std::io;

use rtnetlink::packet_core::NetlinkBuffer;
use rtnetlink::sys::protocols::NETLINK_NETFILTER;
use rtnetlink::sys::{AsyncSocket, SocketAddr, TokioSocket};
use rustix::net::sockopt;

use super::super::attributes::Attributes;
use super::super::socket::next_told;

/// `NFNLGRP_NFTRACE` (include/uapi/linux/netfilter/nfnetlink.h).
const GROUP: u32 = 9;

/// `NFNL_SUBSYS_NFTABLES` with `NFT_MSG_TRACE`.
const MSG_TRACE: u16 = 10 << 8 | 17;

/// `NFTA_TRACE_*` (include/uapi/linux/netfilter/nf_tables.h).
const TABLE: u16 = 1;
const CHAIN: u16 = 2;
const RULE_HANDLE: u16 = 3;
const TYPE: u16 = 4;
const VERDICT: u16 = 5;
const ID: u16 = 6;
const IN_DEVICE: u16 = 10;
const OUT_DEVICE: u16 = 12;
const POLICY: u16 = 16;

/// `NFT_TRACETYPE_*`
const OF_POLICY: u32 = 1;
const OF_RETURN: u32 = 2;
const OF_RULE: u32 = 3;

/// `NFTA_VERDICT_CODE` and `NFTA_VERDICT_CHAIN`, and verdicts that [`Verdict`] has words for.
const VERDICT_CODE: u16 = 1;
const VERDICT_CHAIN: u16 = 2;
const NF_ACCEPT: i32 = 1;
const NFT_CONTINUE: i32 = -1;
const NFT_JUMP: i32 = -3;
const NFT_GOTO: i32 = -4;
const NFT_RETURN: i32 = -5;

/// `NF_VERDICT_MASK`: above it `NF_QUEUE` has the queue, `NF_DROP` an error number.
const VERDICT_MASK: i32 = 0xff;

/// Asked for, in bytes: somebody else may trace much more than we do.
const BUFFER: usize = 8 << 20;

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceEvent {
    /// Tells the packet from others.
    pub id: u32,
    /// `NFPROTO_*` of the table.
    pub family: u8,
    /// The table.
    pub table: String,
    /// The chain.
    pub chain: String,
    /// The rule that matched; `None`: the chain has ended.
    pub rule: Option<u64>,
    /// What was decided.
    pub verdict: Verdict,
    /// Index of the link that the packet came in by. Told with the first message of each base chain only.
    pub in_device: Option<u32>,
    /// Index of the link that it leaves by, likewise.
    pub out_device: Option<u32>,
}

/// What a rule or a chain decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The hook's next chain.
    Accept,
    /// It is gone.
    Drop,
    /// Somebody has taken it: sent it by another link, or keeps it.
    Stolen,
    /// Handed to a program that listens to a queue (`NFQUEUE`), which decides.
    Queue,
    /// The chain's next rule.
    Continue,
    /// Back to the chain before.
    Return,
    /// Into another chain, and back.
    Jump(String),
    /// Into another chain, and not back.
    Goto(String),
    /// A newer one.
    Other(i32),
}

/// Hears of marked packets.
pub struct TraceLog {
    socket: TokioSocket,
    pending: VecDeque<TraceEvent>,
    has_lost: bool,
}

impl TraceLog {
    /// Listens in the namespace of the calling thread.
    ///
    /// # Errors
    /// The kernel's: CAP_NET_ADMIN is missing (EPERM), or it has no nf_tables.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn open_here() -> io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_NETFILTER)?;
        // Without CAP_NET_ADMIN the group will be refused.
        let _ = sockopt::set_socket_recv_buffer_size_force(socket.socket_ref(), BUFFER);
        socket.socket_mut().bind(&SocketAddr::new(0, 0))?;
        socket.socket_mut().add_membership(GROUP)?;
        Ok(Self { socket, pending: VecDeque::new(), has_lost: false })
    }

    /// The next message; waits for it. Cancel safe.
    ///
    /// # Errors
    /// Where the socket fails. Nothing is heard any more then.
    pub async fn next(&mut self) -> io::Result<TraceEvent> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Ok(event);
            }
            match next_told(&mut self.socket).await? {
                Some(datagram) => read_trace(&datagram, &mut self.pending),
                None => self.has_lost = true,
            }
        }
    }

    /// Whether there were messages that nobody read in time.
    pub fn has_lost(&self) -> bool {
        self.has_lost
    }
}

/// Takes a datagram apart.
pub(in crate::linux) fn read_trace(datagram: &[u8], events: &mut VecDeque<TraceEvent>) {
    let mut rest = datagram;
    while let Ok(message) = NetlinkBuffer::new_checked(rest) {
        if message.message_type() == MSG_TRACE {
            // struct nfgenmsg, of which the first byte is the family.
            let body = message.payload();
            let event =
                body.split_at_checked(4).and_then(|(head, rest)| read(*head.first()?, Attributes(rest)));
            events.extend(event);
        }
        let length = (message.length() as usize).max(1).next_multiple_of(4);
        rest = rest.get(length..).unwrap_or_default();
    }
}

fn read(family: u8, found: Attributes<'_>) -> Option<TraceEvent> {
    let verdict = match found.number(TYPE)? {
        OF_POLICY => Verdict::of(found.number(POLICY)?.cast_signed(), || None),
        OF_RULE | OF_RETURN => {
            let verdict = found.nested(VERDICT)?;
            Verdict::of(verdict.number(VERDICT_CODE)?.cast_signed(), || verdict.text(VERDICT_CHAIN))
        }
        _ => return None,
    };
    Some(TraceEvent {
        id: found.number(ID)?,
        family,
        table: found.text(TABLE)?,
        chain: found.text(CHAIN)?,
        rule: found.value(RULE_HANDLE).and_then(|it| it.first_chunk()).map(|it| u64::from_be_bytes(*it)),
        verdict,
        in_device: found.number(IN_DEVICE),
        out_device: found.number(OUT_DEVICE),
    })
}

impl Verdict {
    fn of(code: i32, chain: impl Fn() -> Option<String>) -> Self {
        match code {
            NF_ACCEPT => Self::Accept,
            NFT_CONTINUE => Self::Continue,
            NFT_RETURN => Self::Return,
            NFT_JUMP => Self::Jump(chain().unwrap_or_default()),
            NFT_GOTO => Self::Goto(chain().unwrap_or_default()),
            code if code < 0 => Self::Other(code),
            code => match code & VERDICT_MASK {
                0 => Self::Drop,
                2 => Self::Stolen,
                3 => Self::Queue,
                _ => Self::Other(code),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = u16::try_from(4 + value.len()).unwrap().to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn datagram(attributes: &[Vec<u8>]) -> Vec<u8> {
        let body: Vec<u8> = [1, 0, 0, 0].into_iter().chain(attributes.concat()).collect();
        let mut bytes = u32::try_from(16 + body.len()).unwrap().to_ne_bytes().to_vec();
        bytes.extend(MSG_TRACE.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend(body);
        bytes
    }

    fn common(kind: u32) -> Vec<Vec<u8>> {
        let number = |number: u32| number.to_be_bytes();
        vec![
            attribute(ID, &number(7)),
            attribute(TABLE, b"t\0"),
            attribute(CHAIN, b"c\0"),
            attribute(TYPE, &number(kind)),
        ]
    }

    fn read_all(datagram: &[u8]) -> Vec<TraceEvent> {
        let mut events = VecDeque::new();
        read_trace(datagram, &mut events);
        events.into()
    }

    #[test]
    fn a_rule_and_a_policy_are_read() {
        let mut rule = common(OF_RULE);
        rule.push(attribute(RULE_HANDLE, &9_u64.to_be_bytes()));
        let code = [attribute(VERDICT_CODE, &NFT_JUMP.to_be_bytes()), attribute(VERDICT_CHAIN, b"other\0")];
        rule.push(attribute(VERDICT, &code.concat()));
        rule.push(attribute(IN_DEVICE, &3_u32.to_be_bytes()));
        let event = &read_all(&datagram(&rule))[0];
        assert_eq!((event.id, event.family, event.rule), (7, 1, Some(9)));
        assert_eq!(event.verdict, Verdict::Jump("other".into()));
        assert_eq!((event.in_device, event.out_device), (Some(3), None));
        let mut policy = common(OF_POLICY);
        policy.push(attribute(POLICY, &0_u32.to_be_bytes()));
        let two = [datagram(&rule), datagram(&policy)].concat();
        let events = read_all(&two);
        assert_eq!((events.len(), &events[1].verdict, events[1].rule), (2, &Verdict::Drop, None));
    }

    #[test]
    fn torn_messages_and_other_kinds_are_nothing() {
        let whole = datagram(&common(OF_POLICY));
        assert!(read_all(&whole).is_empty(), "a policy that is not told");
        for length in 0..whole.len() {
            assert!(read_all(&whole[..length]).is_empty(), "{length}");
        }
        assert!(read_all(&datagram(&common(99))).is_empty());
    }

    #[test]
    fn a_queue_or_an_error_beside_the_verdict_does_not_hide_it() {
        assert_eq!(Verdict::of(5 << 16 | 3, || None), Verdict::Queue);
        assert_eq!(Verdict::of(-77, || None), Verdict::Other(-77));
        assert_eq!(Verdict::of(13 << 16, || None), Verdict::Drop);
    }
}
