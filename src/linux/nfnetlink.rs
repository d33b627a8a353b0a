//! Netfilter's netlink: one socket per namespace for nf_tables and conntrack.
//!
//! Beside [`Netlink`](super::netlink::Netlink) and not on it, because a transaction is answered unlike anything
//! else: any number of messages, of which only refused ones and the last are acknowledged, and a refusal of the
//! whole carries the number of its first message (net/netfilter/nfnetlink.c, `nfnetlink_rcv_batch`).
//!
//! What the two have in common is in [`exchange`](super::exchange).

use std::io;
use std::sync::Arc;

use netlink_packet_netfilter::none::ControlMessage;
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage, NetfilterProtoFamily};
use rtnetlink::packet_core::{DefaultNla, NLM_F_ACK, NLM_F_DUMP, NetlinkSerializable};
use rtnetlink::sys;
use rtnetlink::sys::protocols::NETLINK_NETFILTER;
use rustix::io::Errno;
use rustix::net::sockopt;

use super::answer::{Answers, List, Listed, Verdict};
pub(super) use super::answer::{Rejected, Verdicts};
use super::error::{KernelError, Reason};
use super::exchange::Connection;
use super::message::{Object, Request};
use super::netns::{Netns, NetnsError};
use super::socket;

/// Buffers asked for, in bytes. A transaction must fit into the one for sending: that is several thousand
/// elements.
const BUFFER: usize = 4 << 20;

/// Questions per datagram. All answers are queued before the first is read: 4,000 fit into the receive buffer asked for,
/// 6,000 do not, and without CAP_NET_ADMIN it is smaller.
const QUESTIONS: usize = 512;

/// How often a dump that changed under the reader is repeated before that is an error.
const DUMP_ATTEMPTS: usize = 8;

/// `NFNL_SUBSYS_NFTABLES`: whose transaction it is (include/uapi/linux/netfilter/nfnetlink.h).
const SUBSYSTEM_NFTABLES: u16 = 10;

/// `NFNL_MSG_BATCH_BEGIN` and its attribute `NFNL_BATCH_GENID`, of the same file.
const BATCH_BEGIN: u8 = 16;
const BATCH_GENERATION: u16 = 1;

/// A netfilter socket. It belongs for ever to the namespace that it was opened in.
pub struct Socket(sys::Socket);

impl Socket {
    /// Opens a socket in the namespace of the calling thread. Call it inside [`Netns::run`] for another.
    ///
    /// # Errors
    /// The kernel's: no descriptors left, or no netfilter in the kernel.
    pub fn open_here() -> io::Result<Self> {
        let opened = sys::Socket::new(NETLINK_NETFILTER)?;
        opened.set_non_blocking(true)?;
        socket::explain_refusals(&opened)?;
        // Beyond net.core.[rw]mem_max needs CAP_NET_ADMIN, which a transaction needs anyway; without it, what
        // the limits grant is enough to read.
        if sockopt::set_socket_send_buffer_size_force(&opened, BUFFER).is_err() {
            sockopt::set_socket_send_buffer_size(&opened, BUFFER)?;
        }
        if sockopt::set_socket_recv_buffer_size_force(&opened, BUFFER).is_err() {
            sockopt::set_socket_recv_buffer_size(&opened, BUFFER)?;
        }
        Ok(Self(opened))
    }

    /// The number by which the kernel names this socket, see [`socket::bind`].
    ///
    /// # Errors
    /// The kernel's: no number is left.
    pub fn bind(&mut self) -> io::Result<u32> {
        socket::bind(&mut self.0)
    }
}

/// Speaks to netfilter about one namespace. Clones share the socket.
#[derive(Clone)]
pub struct Nfnetlink(Arc<Connection>);

/// A message of netfilter, ready to be sent.
pub(super) fn request(message: &NetfilterMessage, flags: u16) -> Request {
    let mut body = vec![0; message.buffer_len()];
    message.serialize(&mut body);
    Request { kind: message.message_type(), flags, body, held: None }
}

impl Nfnetlink {
    /// Speaks over `socket`.
    pub fn start(socket: Socket) -> Self {
        Self(Arc::new(Connection::over(socket.0)))
    }

    /// Speaks to netfilter about the namespace of the calling thread.
    ///
    /// # Errors
    /// As [`Socket::open_here`].
    pub fn open_here() -> io::Result<Self> {
        Socket::open_here().map(Self::start)
    }

    /// Speaks to netfilter about `netns`.
    ///
    /// # Errors
    /// The namespace cannot be entered, or as [`Socket::open_here`].
    pub fn open_in(netns: &Netns) -> Result<Self, NetnsError> {
        let socket = netns.run(Socket::open_here)?;
        let socket = socket.map_err(|source| NetnsError::Enter { path: netns.path().to_owned(), source })?;
        Ok(Self::start(socket))
    }

    /// How many messages were sent so far. What an operation costs the kernel, in a number that a test can hold.
    pub fn messages_sent(&self) -> u32 {
        self.0.messages_sent()
    }

    /// Asks several questions, in few datagrams. Each answer is what came before its acknowledgement.
    pub(super) async fn ask(&self, questions: Vec<NetfilterMessage>) -> Verdicts {
        let mut answers = Vec::with_capacity(questions.len());
        for some in questions.chunks(QUESTIONS) {
            let flags = |place| if place + 1 == some.len() { NLM_F_ACK } else { 0 };
            let requests: Vec<Request> =
                some.iter().enumerate().map(|(place, message)| request(message, flags(place))).collect();
            match self.0.exchange(&requests, |first| Answers::to(first, requests.len())).await {
                Ok(verdicts) => answers.extend(verdicts),
                Err(reason) => answers.extend(some.iter().map(|_| Err(reason.clone()))),
            }
        }
        answers
    }

    /// Asks for all objects of a kind; repeated until it was not changed while it was read.
    pub(super) async fn dump(
        &self,
        question: &NetfilterMessage,
        operation: impl Into<String>,
    ) -> Result<Vec<Object>, KernelError> {
        self.dump_some(question, operation, &|_| true).await
    }

    /// The same for a list that may be long: what is not wanted is dropped as it comes.
    pub(super) async fn dump_some(
        &self,
        question: &NetfilterMessage,
        operation: impl Into<String>,
        is_wanted: &(dyn Fn(&Object) -> bool + Sync),
    ) -> Result<Vec<Object>, KernelError> {
        let question = request(question, NLM_F_DUMP);
        for _ in 0..DUMP_ATTEMPTS {
            let list = |first| List::of_some(first, is_wanted);
            match self.0.exchange(std::slice::from_ref(&question), list).await.and_then(|listed| listed) {
                Ok(Listed::Whole(objects)) => return Ok(objects),
                Ok(Listed::Torn(_) | Listed::Busy) => {}
                Err(reason) => return Err(reason.of(operation)),
            }
        }
        let torn = format!("it changed while it was read, {DUMP_ATTEMPTS} times in a row");
        Err(Reason::ours(Errno::INTR, torn).of(operation))
    }

    /// Has `changes` made, all of them or none.
    ///
    /// With a `generation`, only if nobody has changed any table of the namespace since: else the whole is
    /// refused with ERESTART.
    pub(super) async fn transact(
        &self,
        generation: Option<u32>,
        mut changes: Vec<Request>,
    ) -> Result<(), Rejected> {
        // Acknowledgements queue up until the first is read: one is enough to know that all went well, and
        // those to blame are named anyway.
        let Some(last) = changes.last_mut() else { return Ok(()) };
        last.flags |= NLM_F_ACK;
        let last = changes.len();
        changes.insert(0, batch_begin(generation));
        changes.push(request(&batch_message(ControlMessage::BatchEnd), 0));
        match self.0.exchange(&changes, |first| Verdict::on(first, last)).await {
            Ok(verdict) => verdict,
            Err(reason) => Err(Rejected::as_whole(reason)),
        }
    }
}

fn batch_begin(generation: Option<u32>) -> Request {
    let control = match generation {
        None => ControlMessage::BatchBegin,
        Some(generation) => ControlMessage::Other {
            message_type: BATCH_BEGIN,
            attributes: vec![DefaultNla::new(BATCH_GENERATION, generation.to_be_bytes().to_vec())],
        },
    };
    request(&batch_message(control), 0)
}

fn batch_message(control: ControlMessage) -> NetfilterMessage {
    let header = NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, SUBSYSTEM_NFTABLES);
    NetfilterMessage::new(header, control)
}
