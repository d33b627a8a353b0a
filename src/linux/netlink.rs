//! Route netlink: one socket per namespace.
//!
//! **Order.** What is awaited first reaches the kernel first, and has its answer before the next is sent
//! ([`exchange`](super::exchange)).
//!
//! **Batches.** The changes of one `submit` travel in few datagrams. The kernel works through a datagram's
//! messages one after another, whether or not one fails, and tells of each that does.
//!
//! **Dumps** are read whole or not at all: what the kernel changed while it was listing (NLM_F_DUMP_INTR) is
//! listed again. (That of links is the exception, see [`Netlink::links`].)
//!
//! Messages are built with rtnetlink, where it has a builder for them. Its `Handle` is not used: that sends each
//! change in a datagram of its own, and shows neither that a dump is torn nor the error that it ends with.

use std::fmt;
use std::io;
use std::sync::Arc;

use rtnetlink::packet_core::{Emitable, NLM_F_ACK, NLM_F_DUMP};
use rtnetlink::sys;
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rustix::io::Errno;

use super::answer::{Answers, List, Listed};
use super::change::Change;
use super::error::{KernelError, Reason};
use super::exchange::Connection;
use super::message::{Object, Request};
use super::netns::{Netns, NetnsError};
use super::socket;

/// Changes per datagram. The kernel tells of each that it refuses before the first of that is read, and drops what does
/// not fit: 64 take 50 to 80 KiB of a receive buffer of at least 208 KiB.
const BATCH: usize = 64;

/// Receive buffer asked for, in bytes. The kernel grants as much of it as `net.core.rmem_max` allows.
const RECEIVE_BUFFER: usize = 1 << 20;

/// How often a dump that changed under the reader is repeated before that is an error.
const DUMP_ATTEMPTS: usize = 8;

/// A route netlink socket. It belongs for ever to the namespace that it was opened in.
pub struct Socket(sys::Socket);

impl Socket {
    /// Opens a socket in the namespace of the calling thread. Call it inside [`Netns::run`] for another.
    ///
    /// # Errors
    /// The kernel's: no descriptors left, or a kernel older than 4.20 (strict checking).
    pub fn open_here() -> io::Result<Self> {
        let opened = sys::Socket::new(NETLINK_ROUTE)?;
        opened.set_non_blocking(true)?;
        socket::explain_refusals(&opened)?;
        // Without it the kernel ignores a dump's filter and lists everything.
        opened.set_netlink_get_strict_chk(true)?;
        opened.set_rx_buf_sz(RECEIVE_BUFFER)?;
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

/// Speaks to the kernel about one namespace. Clones share the socket.
#[derive(Clone)]
pub struct Netlink(Arc<Connection>);

impl fmt::Debug for Netlink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Netlink")
    }
}

impl Netlink {
    /// Speaks over `socket`.
    pub fn start(socket: Socket) -> Self {
        Self(Arc::new(Connection::over(socket.0)))
    }

    /// Speaks to the kernel about the namespace of the calling thread.
    ///
    /// # Errors
    /// As [`Socket::open_here`].
    pub fn open_here() -> io::Result<Self> {
        Socket::open_here().map(Self::start)
    }

    /// Speaks to the kernel about `netns`. To do more inside on the same visit, use [`Netns::run`] with
    /// [`Socket::open_here`].
    ///
    /// # Errors
    /// The namespace cannot be entered, or as [`Socket::open_here`].
    pub fn open_in(netns: &Netns) -> Result<Self, NetnsError> {
        let socket = netns.run(Socket::open_here)?;
        let socket = socket.map_err(|source| NetnsError::Enter { path: netns.path().to_owned(), source })?;
        Ok(Self::start(socket))
    }

    /// Asks for each of `changes`, in order, and returns the verdicts in the same order.
    ///
    /// A refused change does not stop those after it: what depends on it is refused by the kernel in turn.
    pub async fn submit<I: IntoIterator<Item = Change>>(&self, changes: I) -> Vec<Result<(), KernelError>> {
        let changes: Vec<Change> = changes.into_iter().collect();
        let mut verdicts = Vec::with_capacity(changes.len());
        for batch in changes.chunks(BATCH) {
            let requests: Vec<Request> = batch.iter().map(Change::to_request).collect();
            let answers = self.ask_all(requests).await;
            verdicts.extend(answers.into_iter().zip(batch).map(|(answer, change)| match answer {
                Ok(_) => Ok(()),
                Err(reason) => Err(reason.of(change.to_string())),
            }));
        }
        verdicts
    }

    /// Asks for one object. `None` if the kernel has no objection, but tells of none either.
    pub(super) async fn ask(
        &self,
        kind: u16,
        question: &impl Emitable,
        operation: impl Into<String>,
    ) -> Result<Option<Object>, KernelError> {
        let answers = self.ask_all(vec![Request::new(kind, question, 0)]).await;
        match answers.into_iter().next() {
            Some(answer) => answer.map_err(|reason| reason.of(operation)),
            None => Ok(None),
        }
    }

    async fn ask_all(&self, mut requests: Vec<Request>) -> Vec<Result<Option<Object>, Reason>> {
        // The last one's acknowledgement speaks for all before it.
        if let Some(last) = requests.last_mut() {
            last.flags |= NLM_F_ACK;
        }
        match self.0.exchange(&requests, |first| Answers::to(first, requests.len())).await {
            Ok(answers) => answers,
            Err(reason) => requests.iter().map(|_| Err(reason.clone())).collect(),
        }
    }

    /// Asks for all objects of a kind.
    pub(super) async fn dump(
        &self,
        kind: u16,
        question: &impl Emitable,
        operation: impl Into<String>,
    ) -> Result<Vec<Object>, KernelError> {
        match self.list(kind, question).await {
            Ok(Listed::Whole(objects)) => Ok(objects),
            Ok(_) => Err(restless().of(operation)),
            Err(reason) => Err(reason.of(operation)),
        }
    }

    /// The same, but where the kernel changes faster than it can be read, the last attempt counts as it is: what comes or
    /// goes meanwhile may be missing.
    pub(super) async fn dump_as_is(
        &self,
        kind: u16,
        question: &impl Emitable,
        operation: impl Into<String>,
    ) -> Result<Vec<Object>, KernelError> {
        match self.list(kind, question).await {
            Ok(Listed::Whole(objects) | Listed::Torn(objects)) => Ok(objects),
            Ok(Listed::Busy) => Err(restless().of(operation)),
            Err(reason) => Err(reason.of(operation)),
        }
    }

    async fn list(&self, kind: u16, question: &impl Emitable) -> Result<Listed, Reason> {
        let question = Request::new(kind, question, NLM_F_DUMP);
        repeat_until_whole(async || {
            self.0.exchange(std::slice::from_ref(&question), List::of).await.and_then(|listed| listed)
        })
        .await
    }
}

/// Runs `dump` until it is whole, but not for ever: then the last attempt is the answer.
async fn repeat_until_whole(mut dump: impl AsyncFnMut() -> Result<Listed, Reason>) -> Result<Listed, Reason> {
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
