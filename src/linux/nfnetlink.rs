//! Netfilter's netlink: one socket per namespace for nf_tables and conntrack.
//!
//! Beside [`Netlink`](super::netlink::Netlink) and not on it, because a transaction is answered unlike anything
//! else: any number of messages, of which only refused ones and the last are acknowledged, and a refusal of the
//! whole carries the number of its first message (net/netfilter/nfnetlink.c, `nfnetlink_rcv_batch`).
//!
//! **One exchange at a time** on a socket; whoever comes meanwhile waits. Answers to an exchange that nobody
//! waits for any more bear old sequence numbers and are skipped.
//!
//! **Nobody waits for an answer.** The kernel works through a datagram before sendmsg(2) returns, and continues a list
//! before recvmsg(2) does (`netlink_unicast_kernel`, `netlink_recvmsg`, net/netlink/af_netlink.c). So what cannot be read
//! at once will never come: either the answer is lost, or one refusal answered the whole datagram. Without
//! CAP_NET_ADMIN that is so: only the first message is refused (`nfnetlink_rcv`). Hence the socket never blocks, and
//! needs no event loop.

pub(super) mod answer;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use netlink_packet_netfilter::none::ControlMessage;
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage, NetfilterProtoFamily};
use rtnetlink::packet_core::{
    DefaultNla, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use rtnetlink::sys::protocols::NETLINK_NETFILTER;
use rtnetlink::sys::{self, SocketAddr};
use rustix::io::Errno;
use rustix::net::sockopt;
use tokio::sync::Mutex;

use super::error::{KernelError, Reason};
use super::netns::{Netns, NetnsError};
use super::socket;
use answer::{Answers, List, Verdict, check};
pub(super) use answer::{Object, Rejected};

/// Buffers asked for, in bytes. A transaction must fit into the one for sending: that is several thousand
/// elements.
const BUFFER: usize = 4 << 20;

/// Largest datagram that the kernel sends, in bytes: part of a dump, for which it takes at most 32 KiB
/// (netlink_recvmsg, net/netlink/af_netlink.c).
const DATAGRAM: usize = 64 << 10;

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

struct Connection {
    socket: sys::Socket,
    exchanging: Mutex<()>,
    sequence: AtomicU32,
    sent: AtomicU32,
}

/// A message to the kernel, and its NLM_F_*.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) message: NetfilterMessage,
    pub(super) flags: u16,
}

impl Nfnetlink {
    /// Speaks over `socket`.
    pub fn start(socket: Socket) -> Self {
        Self(Arc::new(Connection {
            socket: socket.0,
            exchanging: Mutex::default(),
            sequence: AtomicU32::new(0),
            sent: AtomicU32::new(0),
        }))
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
        self.0.sent.load(Ordering::Relaxed)
    }

    /// Asks several questions, in few datagrams. Each answer is what came before its acknowledgement.
    pub(super) async fn ask(
        &self,
        mut questions: Vec<NetfilterMessage>,
    ) -> Vec<Result<Option<Object>, Reason>> {
        let _turn = self.0.exchanging.lock().await;
        let mut answers = Vec::with_capacity(questions.len());
        while !questions.is_empty() {
            let rest = questions.split_off(questions.len().min(QUESTIONS));
            answers.extend(self.ask_at_once(std::mem::replace(&mut questions, rest)));
        }
        answers
    }

    fn ask_at_once(&self, questions: Vec<NetfilterMessage>) -> Vec<Result<Option<Object>, Reason>> {
        let count = questions.len();
        let connection = &*self.0;
        let requests = questions.into_iter().map(|message| Request { message, flags: NLM_F_ACK });
        let first = match connection.send(requests.collect()) {
            Ok(first) => first,
            Err(reason) => return vec![Err(reason); count],
        };
        let mut answers = Answers::to(first, count);
        loop {
            match connection.receive() {
                Ok(Some(datagram)) => {
                    if let Some(objects) = answers.take(&datagram) {
                        return objects;
                    }
                }
                Ok(None) => return answers.without_the_missing(),
                Err(reason) => return vec![Err(reason); count],
            }
        }
    }

    /// Asks for all objects of a kind; repeated until it was not changed while it was read.
    pub(super) async fn dump(
        &self,
        question: NetfilterMessage,
        operation: impl Into<String>,
    ) -> Result<Vec<Object>, KernelError> {
        let connection = &*self.0;
        let _turn = connection.exchanging.lock().await;
        for _ in 0..DUMP_ATTEMPTS {
            match connection.dump_once(question.clone()) {
                Ok(Some(whole)) => return Ok(whole),
                Ok(None) => {}
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
        changes.push(Request { message: batch_message(ControlMessage::BatchEnd), flags: 0 });

        let connection = &*self.0;
        let _turn = connection.exchanging.lock().await;
        let first = connection.send(changes).map_err(Rejected::as_whole)?;
        let mut verdict = Verdict::on(first, last);
        loop {
            let datagram = connection.receive().map_err(Rejected::as_whole)?;
            let Some(datagram) = datagram else { return Err(verdict.without_the_missing()) };
            if let Some(verdict) = verdict.take(&datagram) {
                return verdict;
            }
        }
    }
}

impl Connection {
    /// Sends `requests` as one datagram and returns the sequence number of the first; the others count on.
    fn send(&self, requests: Vec<Request>) -> Result<u32, Reason> {
        let count = u32::try_from(requests.len()).unwrap_or(u32::MAX);
        let first = self.sequence.fetch_add(count, Ordering::Relaxed);
        let mut datagram = Vec::new();
        for (request, sequence) in requests.into_iter().zip(0..) {
            let mut header = NetlinkHeader::default();
            header.flags = NLM_F_REQUEST | request.flags;
            header.sequence_number = first.wrapping_add(sequence);
            let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(request.message));
            message.finalize();
            let start = datagram.len();
            datagram.resize(start + message.buffer_len().next_multiple_of(4), 0);
            if let Some(space) = datagram.get_mut(start..) {
                message.serialize(space);
            }
        }
        self.sent.fetch_add(count, Ordering::Relaxed);
        uninterrupted(|| self.socket.send_to(&datagram, &SocketAddr::new(0, 0), 0)).map_err(socket_failed)?;
        Ok(first)
    }

    /// The next datagram; `None` if the kernel has said all that it will say.
    fn receive(&self) -> Result<Option<Vec<u8>>, Reason> {
        // Not by looking at its length first, which makes two system calls of each.
        let mut datagram = Vec::with_capacity(DATAGRAM);
        match uninterrupted(|| self.socket.recv(&mut datagram, 0)) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(socket_failed(error)),
        }
        check(&datagram, self.sequence.load(Ordering::Relaxed))?;
        Ok(Some(datagram))
    }

    /// Reads a dump to its end; `None` if it is to be repeated.
    fn dump_once(&self, message: NetfilterMessage) -> Result<Option<Vec<Object>>, Reason> {
        let mut list = List::of(self.send(vec![Request { message, flags: NLM_F_DUMP }])?);
        loop {
            let datagram = self.receive()?.ok_or_else(Reason::lost)?;
            if let Some(outcome) = list.take(&datagram) {
                return outcome;
            }
        }
    }
}

/// Once more where a signal came in between.
fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            outcome => return outcome,
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
    Request { message: batch_message(control), flags: 0 }
}

fn batch_message(control: ControlMessage) -> NetfilterMessage {
    let header = NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, SUBSYSTEM_NFTABLES);
    NetfilterMessage::new(header, control)
}

fn socket_failed(error: io::Error) -> Reason {
    let errno = error.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error);
    Reason::ours(errno, "the netfilter socket failed")
}
