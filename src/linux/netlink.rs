//! Route netlink: one socket per namespace, many requests in flight, their answers in order.
//!
//! **Order.** What is sent over one [`Netlink`] reaches the kernel in the order of the *calls*, not of the
//! awaits: each call hands its requests over before it returns, and the future only collects the answers. So
//! `join(netlink.submit([create]), netlink.link(name))` looks at the link after it was made, without a wait
//! between the two. (Lists are the exception: one at a time, each sent when its turn comes.)
//!
//! **Batches.** The changes of one `submit` travel in few datagrams. The kernel works through a datagram's
//! messages one after another, whether or not one fails, and acknowledges each.
//!
//! **Dumps** are read whole or not at all: what the kernel changed while it was listing (NLM_F_DUMP_INTR) is
//! listed again. (That of links is the exception, see [`Netlink::links`].)
//!
//! **Lost answers** end the connection, and with it every wait: the kernel had no room for them (ENOBUFS), or what it
//! sent cannot be read, or answers nothing that was asked. Whose answer is missing then is not to be told, and
//! whoever waited for it would wait for ever. What has to go on opens another socket.
//!
//! Messages are built with rtnetlink, where it has a builder for them. Its `Handle` is not used: that sends each
//! change in a datagram of its own and not before it is awaited, and shows neither that a dump is torn nor the
//! error that it ends with.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::select;
use futures_util::{Stream, StreamExt};
use netlink_packet_route::RouteNetlinkMessage;
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use rtnetlink::proto::{self, ConnectionHandle};
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{AsyncSocket, SocketAddr, TokioSocket};
use rustix::io::Errno;
use tokio::runtime::Handle;
use tokio::sync::{Mutex, oneshot};

use super::change::Change;
use super::error::{KernelError, Reason};
use super::netns::{Netns, NetnsError};
use super::packet::{Packet, Request, Strict};
use super::socket;

/// Changes per datagram. All acknowledgements of a datagram are queued before the first is read, and the
/// kernel drops what does not fit: 64 take 50 to 80 KiB of a receive buffer of at least 208 KiB.
const BATCH: usize = 64;

/// Receive buffer asked for, in bytes. The kernel grants as much of it as `net.core.rmem_max` allows.
const RECEIVE_BUFFER: i32 = 1 << 20;

/// How often a dump that changed under the reader is repeated before that is an error.
const DUMP_ATTEMPTS: usize = 8;

/// A route netlink socket. It belongs for ever to the namespace that it was opened in.
pub struct Socket(TokioSocket);

impl Socket {
    /// Opens a socket in the namespace of the calling thread, to be driven by `runtime` (which must have its
    /// I/O driver on). The thread itself needs no runtime: call it inside [`Netns::run`].
    ///
    /// # Errors
    /// The kernel's: no descriptors left, or a kernel older than 4.20 (strict checking).
    pub fn open_here(runtime: &Handle) -> io::Result<Self> {
        let _entered = runtime.enter();
        let opened = TokioSocket::new(NETLINK_ROUTE)?;
        let options = opened.socket_ref();
        socket::explain_refusals(options)?;
        // Without it the kernel ignores a dump's filter and lists everything.
        options.set_netlink_get_strict_chk(true)?;
        options.set_rx_buf_sz(RECEIVE_BUFFER)?;
        Ok(Self(opened))
    }

    /// The number by which the kernel names this socket, see [`socket::bind`].
    ///
    /// # Errors
    /// The kernel's: no number is left.
    pub fn bind(&mut self) -> io::Result<u32> {
        socket::bind(self.0.socket_mut())
    }
}

/// Speaks to the kernel about one namespace. Clones share the socket.
///
/// The connection ends when the last clone and the last unfinished future are gone.
#[derive(Debug, Clone)]
pub struct Netlink {
    connection: ConnectionHandle<Packet>,
    in_use: InUse,
    has_ended: Arc<AtomicBool>,
    /// Held by the dump that is under way.
    dumping: Arc<Mutex<()>>,
}

/// A connection ends when nobody has this of it any more.
type InUse = Arc<oneshot::Sender<Infallible>>;

impl Netlink {
    /// Starts to drive `socket`, as a task of the runtime that the caller is in.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(socket: Socket) -> Self {
        let (mut connection, handle, mut unsolicited) =
            proto::from_socket_with_codec::<_, _, Strict>(socket.0);
        connection.set_forward_ack(true);
        connection.set_forward_done(true);
        let (in_use, unused) = oneshot::channel();
        let has_ended = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&has_ended);
        tokio::spawn(async move {
            // Nothing is subscribed to: what nobody asked for is word of answers that are lost.
            let lost = pin!(async { unsolicited.next().await });
            select(connection, select(lost, unused)).await;
            ended.store(true, Ordering::Relaxed);
        });
        Self { connection: handle, in_use: Arc::new(in_use), has_ended, dumping: Arc::default() }
    }

    /// Whether the connection has ended, because the socket failed or answers were lost: every further question fails,
    /// and no refusal since then is the kernel's.
    pub fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::Relaxed)
    }

    /// Speaks to the kernel about the namespace of the calling thread.
    ///
    /// # Errors
    /// As [`Socket::open_here`].
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn open_here() -> io::Result<Self> {
        Socket::open_here(&Handle::current()).map(Self::start)
    }

    /// Speaks to the kernel about `netns`. To do more inside on the same visit, use [`Netns::run`] with
    /// [`Socket::open_here`].
    ///
    /// # Errors
    /// The namespace cannot be entered, or as [`Socket::open_here`].
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn open_in(netns: &Netns) -> Result<Self, NetnsError> {
        let runtime = Handle::current();
        let socket = netns.run(|| Socket::open_here(&runtime))?;
        let socket = socket.map_err(|source| NetnsError::Enter { path: netns.path().to_owned(), source })?;
        Ok(Self::start(socket))
    }

    /// Asks for each of `changes`, in order, and returns the verdicts in the same order.
    ///
    /// Everything is handed over before this returns. A refused change does not stop those after it: what
    /// depends on it is refused by the kernel in turn. Dropping the future takes nothing back that was sent.
    pub fn submit<I: IntoIterator<Item = Change>>(
        &self,
        changes: I,
    ) -> impl Future<Output = Vec<Result<(), KernelError>>> + use<I> {
        let changes: Vec<Change> = changes.into_iter().collect();
        let batches: Vec<_> = changes
            .chunks(BATCH)
            .map(|batch| self.send(batch.iter().map(Change::to_request).collect()))
            .collect();
        async move {
            let mut verdicts = Vec::with_capacity(changes.len());
            for (batch, mut answers) in changes.chunks(BATCH).zip(batches) {
                for change in batch {
                    let verdict = match &mut answers {
                        Some(answers) => read_answer(&mut answers.messages).await.map(|_| ()),
                        None => Err(Reason::lost()),
                    };
                    verdicts.push(verdict.map_err(|reason| reason.of(change.to_string())));
                }
            }
            verdicts
        }
    }

    /// Asks for one object. Sent before this returns.
    ///
    /// The acknowledgement is asked for as well: it ends the wait even if the object cannot be read.
    pub(super) fn ask(
        &self,
        question: RouteNetlinkMessage,
        operation: String,
    ) -> impl Future<Output = Result<RouteNetlinkMessage, KernelError>> + use<> {
        let answers = self.send(vec![Request::new(question, NLM_F_REQUEST | NLM_F_ACK)]);
        async move {
            let answer = match answers {
                // Of what is not there it says so: an acknowledgement alone is not the answer.
                Some(mut answers) => {
                    read_answer(&mut answers.messages).await.and_then(|it| it.ok_or(Reason::lost()))
                }
                None => Err(Reason::lost()),
            };
            answer.map_err(|reason| reason.of(operation))
        }
    }

    /// Asks for all objects of a kind. Sent when it is this dump's turn: the kernel runs one dump per socket at
    /// a time and refuses a second (EBUSY).
    pub(super) async fn dump(
        &self,
        question: RouteNetlinkMessage,
        operation: impl Into<String>,
    ) -> Result<Vec<RouteNetlinkMessage>, KernelError> {
        match self.list(question).await {
            Ok(Listed::Whole(objects)) => Ok(objects),
            Ok(_) => Err(restless().of(operation)),
            Err(reason) => Err(reason.of(operation)),
        }
    }

    /// The same, but where the kernel changes faster than it can be read, the last attempt counts as it is: what comes or
    /// goes meanwhile may be missing.
    pub(super) async fn dump_as_is(
        &self,
        question: RouteNetlinkMessage,
        operation: impl Into<String>,
    ) -> Result<Vec<RouteNetlinkMessage>, KernelError> {
        match self.list(question).await {
            Ok(Listed::Whole(objects) | Listed::Torn(objects)) => Ok(objects),
            Ok(Listed::Busy) => Err(restless().of(operation)),
            Err(reason) => Err(reason.of(operation)),
        }
    }

    async fn list(&self, question: RouteNetlinkMessage) -> Result<Listed<Vec<RouteNetlinkMessage>>, Reason> {
        let _turn = self.dumping.lock().await;
        repeat_until_whole(async || {
            let request = Request::new(question.clone(), NLM_F_REQUEST | NLM_F_DUMP);
            match self.send(vec![request]) {
                Some(mut answers) => match read_dump(&mut answers.messages).await {
                    // What is lost may be a part of it.
                    Ok(_) if self.has_ended() => Err(Reason::lost()),
                    listed => listed,
                },
                None => Err(Reason::lost()),
            }
        })
        .await
    }

    /// Hands `requests` over as one datagram; `None` if the connection has ended.
    fn send(&self, requests: Vec<Request>) -> Option<Answers> {
        let messages: Vec<_> = requests
            .into_iter()
            .map(|request| {
                let mut header = NetlinkHeader::default();
                header.flags = request.flags;
                NetlinkMessage::new(header, NetlinkPayload::InnerMessage(Packet::Request(request)))
            })
            .collect();
        let messages = self.connection.request_batch(messages, SocketAddr::new(0, 0)).ok()?;
        Some(Answers { messages: Box::pin(messages), _in_use: Arc::clone(&self.in_use) })
    }
}

/// The answers to one datagram.
struct Answers {
    messages: Pin<Box<dyn Stream<Item = NetlinkMessage<Packet>> + Send>>,
    _in_use: InUse,
}

/// Reads up to the acknowledgement of one request; returns the object that came before it, if any.
pub(super) async fn read_answer(
    answers: &mut (impl Stream<Item = NetlinkMessage<Packet>> + Unpin),
) -> Result<Option<RouteNetlinkMessage>, Reason> {
    let mut object = Ok(None);
    while let Some(message) = answers.next().await {
        match message.payload {
            NetlinkPayload::InnerMessage(packet) => object = packet.into_answer().map(Some),
            NetlinkPayload::Error(error) => {
                return match Reason::from_error(&error, message.header.flags) {
                    Some(reason) => Err(reason),
                    None => object,
                };
            }
            _ => {}
        }
    }
    Err(Reason::lost())
}

/// What came of a dump.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Listed<T> {
    /// All of it, as it was at one moment.
    Whole(T),
    /// The kernel says that it changed while it was read.
    Torn(T),
    /// Nothing: one that nobody waits for any more is not over yet.
    Busy,
}

/// Reads a dump to its end.
///
/// Torn or broken, it is read to the end: the next dump of the socket must find this one over.
pub(super) async fn read_dump(
    answers: &mut (impl Stream<Item = NetlinkMessage<Packet>> + Unpin),
) -> Result<Listed<Vec<RouteNetlinkMessage>>, Reason> {
    let mut torn = false;
    let mut objects = Ok(Vec::new());
    while let Some(message) = answers.next().await {
        torn |= message.header.flags & NLM_F_DUMP_INTR != 0;
        match message.payload {
            NetlinkPayload::InnerMessage(packet) => match (&mut objects, packet.into_answer()) {
                (Ok(objects), Ok(object)) => objects.push(object),
                (Ok(_), Err(reason)) => objects = Err(reason),
                (Err(_), _) => {}
            },
            NetlinkPayload::Done(done) => {
                return match Reason::from_done(&done) {
                    Some(reason) => Err(reason),
                    None if torn => objects.map(Listed::Torn),
                    None => objects.map(Listed::Whole),
                };
            }
            NetlinkPayload::Error(error) => {
                return match Reason::from_error(&error, message.header.flags) {
                    Some(reason) if reason.is_busy() => Ok(Listed::Busy),
                    Some(reason) => Err(reason),
                    None => Err(Reason::lost()),
                };
            }
            _ => {}
        }
    }
    Err(Reason::lost())
}

/// Runs `dump` until it is whole, but not for ever: then the last attempt is the answer.
async fn repeat_until_whole<T>(
    mut dump: impl AsyncFnMut() -> Result<Listed<T>, Reason>,
) -> Result<Listed<T>, Reason> {
    let mut listed = Listed::Busy;
    for _ in 0..DUMP_ATTEMPTS {
        listed = dump().await?;
        if matches!(listed, Listed::Whole(_)) {
            break;
        }
    }
    Ok(listed)
}

/// On a node whose routes never rest that is an error too.
fn restless() -> Reason {
    Reason::ours(Errno::INTR, format!("it changed while it was read, {DUMP_ATTEMPTS} times in a row"))
}

#[cfg(test)]
mod tests;
