//! Both kinds of netlink socket, of routes and of netfilter: requests go out in one datagram, and the kernel's answers to
//! them are read before anything else is asked.
//!
//! **Nobody waits for an answer.** The kernel works through a datagram before sendmsg(2) returns, and continues a list
//! before recvmsg(2) does (`netlink_unicast_kernel`, `netlink_recvmsg`, net/netlink/af_netlink.c). So what cannot be read
//! at once will never come: either the answer is lost, or one refusal answered the whole datagram. Without
//! CAP_NET_ADMIN that is so for netfilter: only the first message is refused (`nfnetlink_rcv`). Hence a socket never
//! blocks and needs no event loop; what can block is sendmsg itself, while others hold the kernel's lock.
//!
//! **Old answers are skipped.** Each request has a number of its own. What is still queued of an exchange that failed bears
//! old numbers, so the socket stays usable.

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rtnetlink::packet_core::NLM_F_REQUEST;
use rtnetlink::sys::{Socket, SocketAddr};
use rustix::io::Errno;

use super::answer::{Exchange, check};
use super::error::Reason;
use super::message::Request;

/// Largest datagram that the kernel sends, in bytes: part of a dump, for which it takes at most 32 KiB
/// (netlink_recvmsg, net/netlink/af_netlink.c).
const DATAGRAM: usize = 64 << 10;

/// Length of `struct nlmsghdr`.
const HEADER: usize = 16;

/// After an exchange that took this long, the runtime gets its turn: a deadline is looked at only then.
const LONG: Duration = Duration::from_millis(10);

/// A socket and the exchange that is under way on it.
pub(super) struct Connection {
    socket: Socket,
    /// Held for the length of an exchange.
    state: Mutex<State>,
    sent: AtomicU32,
}

#[derive(Default)]
struct State {
    /// Number of the next request.
    sequence: u32,
    /// The datagram in hand, in either direction.
    datagram: Vec<u8>,
}

impl Connection {
    /// Speaks over `socket`, which must not block.
    pub(super) fn over(socket: Socket) -> Self {
        Self { socket, state: Mutex::default(), sent: AtomicU32::new(0) }
    }

    /// How many messages were sent so far.
    pub(super) fn messages_sent(&self) -> u32 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Sends `requests` as one datagram, and reads what `begin`, given the number of the first, makes of the answers. The
    /// others count on.
    ///
    /// # Errors
    /// The socket failed, or an answer cannot be read.
    pub(super) async fn exchange<E: Exchange>(
        &self,
        requests: &[Request],
        begin: impl FnOnce(u32) -> E,
    ) -> Result<E::Outcome, Reason> {
        let began = Instant::now();
        let outcome = self.exchange_now(requests, begin);
        if began.elapsed() > LONG {
            tokio::task::yield_now().await;
        }
        outcome
    }

    fn exchange_now<E: Exchange>(
        &self,
        requests: &[Request],
        begin: impl FnOnce(u32) -> E,
    ) -> Result<E::Outcome, Reason> {
        let state = &mut *self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let first = self.send(state, requests)?;
        let mut exchange = begin(first);
        while self.receive(state)? {
            if let Some(outcome) = exchange.take(&state.datagram) {
                return Ok(outcome);
            }
        }
        Ok(exchange.without_the_missing())
    }

    fn send(&self, state: &mut State, requests: &[Request]) -> Result<u32, Reason> {
        let first = state.sequence;
        state.datagram.clear();
        for request in requests {
            write(&mut state.datagram, request, state.sequence);
            state.sequence = state.sequence.wrapping_add(1);
        }
        self.sent.fetch_add(state.sequence.wrapping_sub(first), Ordering::Relaxed);
        uninterrupted(|| self.socket.send_to(&state.datagram, &SocketAddr::new(0, 0), 0)).map_err(failed)?;
        Ok(first)
    }

    /// Reads the next datagram. `false` if the kernel has said all that it will say.
    fn receive(&self, state: &mut State) -> Result<bool, Reason> {
        // Not by looking at its length first, which makes two system calls of each.
        state.datagram.clear();
        state.datagram.reserve(DATAGRAM);
        match uninterrupted(|| self.socket.recv(&mut state.datagram, 0)) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(failed(error)),
        }
        check(&state.datagram, state.sequence)?;
        Ok(true)
    }
}

/// Appends a message: `struct nlmsghdr`, and what it is about. Both are padded to four bytes.
pub(super) fn write(datagram: &mut Vec<u8>, request: &Request, sequence: u32) {
    let length = u32::try_from(HEADER + request.body.len()).unwrap_or(u32::MAX);
    datagram.extend(length.to_ne_bytes());
    datagram.extend(request.kind.to_ne_bytes());
    datagram.extend((NLM_F_REQUEST | request.flags).to_ne_bytes());
    datagram.extend(sequence.to_ne_bytes());
    // To the kernel, from whatever number it gave this socket.
    datagram.extend(0_u32.to_ne_bytes());
    datagram.extend(&request.body);
    datagram.resize(datagram.len().next_multiple_of(4), 0);
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

fn failed(error: io::Error) -> Reason {
    Reason::ours(Errno::CONNABORTED, format!("the netlink socket failed: {error}"))
}
