//! What the kernel tells by itself: who watches need not ask, and repairs at once what somebody else took away.
//!
//! Two sockets, of route netlink and of nf_tables, that are subscribed and never send. Two things to know:
//!
//! - **Not every loss is told.** IPv4 routes that go because their link went down, or because the address that is
//!   their source was removed, go without a word (`fib_sync_down_dev`, `fib_sync_down_addr`, net/ipv4/fib_semantics.c):
//!   the [`Event::Link`] or [`Event::Address`] is all there is. A route that is replaced is told as the one that came.
//! - **What nobody reads in time is lost**, and the kernel says so (ENOBUFS): [`Event::Missed`]. The receive buffers
//!   are large, so that it takes thousands of events at once.

mod event;

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::task::Poll;

use rtnetlink::sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use rtnetlink::sys::{AsyncSocket, SocketAddr, TokioSocket};
use rustix::io::Errno;
use rustix::net::sockopt;
use tokio::runtime::Handle;

use super::netns::{Netns, NetnsError};
pub use event::{Event, NetconfOf, SetEvent};
#[cfg(feature = "fuzzing")]
pub(super) use event::{read_nftables, read_route};

/// Receive buffer asked for, in bytes, of each socket: some ten thousand events.
const RECEIVE_BUFFER: usize = 8 << 20;

/// RTNLGRP_* (include/uapi/linux/rtnetlink.h): links, neighbours, then of IPv4 and of IPv6 addresses, routes, rules and
/// netconf.
const ROUTE_GROUPS: [u32; 10] = [1, 3, 5, 7, 8, 24, 9, 11, 19, 25];

/// `NFNLGRP_NFTABLES` (include/uapi/linux/netfilter/nfnetlink.h).
const NFTABLES_GROUPS: [u32; 1] = [7];

/// Hears what changes in one network namespace, by whomever.
pub struct Monitor {
    route: TokioSocket,
    nftables: TokioSocket,
    /// Read and not handed out yet.
    pending: VecDeque<Event>,
}

/// What a datagram is taken apart with.
type Read = fn(&[u8], &mut VecDeque<Event>);

impl Monitor {
    /// Subscribes in the namespace of the calling thread. Whatever changes after this has returned is heard: subscribe
    /// first, then look.
    ///
    /// # Errors
    /// The kernel's: no descriptors left, or no nf_tables in it.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn open_here() -> io::Result<Self> {
        let route = subscribe(NETLINK_ROUTE, &ROUTE_GROUPS)?;
        let nftables = subscribe(NETLINK_NETFILTER, &NFTABLES_GROUPS)?;
        Ok(Self { route, nftables, pending: VecDeque::new() })
    }

    /// Subscribes in `netns`.
    ///
    /// # Errors
    /// The namespace cannot be entered, or as [`Monitor::open_here`].
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn open_in(netns: &Netns) -> Result<Self, NetnsError> {
        let runtime = Handle::current();
        let monitor = netns.run(|| {
            let _entered = runtime.enter();
            Self::open_here()
        })?;
        monitor.map_err(|source| NetnsError::Enter { path: netns.path().to_owned(), source })
    }

    /// The next event; waits for it. Cancel safe: what was read and not returned is returned by the next call.
    ///
    /// Equal events that follow each other are one.
    ///
    /// # Errors
    /// Where a socket fails for another reason than that events were lost. Nothing is heard any more then: open
    /// another.
    pub async fn next(&mut self) -> io::Result<Event> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Ok(event);
            }
            self.receive().await?;
        }
    }

    /// Waits for either socket, and reads a datagram of each that has one.
    async fn receive(&mut self) -> io::Result<()> {
        let Self { route, nftables, pending } = self;
        let sockets: [(&TokioSocket, Read); 2] =
            [(route, event::read_route), (nftables, event::read_nftables)];
        poll_fn(|context| {
            let mut has_read = false;
            for (socket, read) in sockets {
                match socket.poll_recv_from_full(context) {
                    Poll::Ready(Ok((datagram, _))) => {
                        read(&datagram, pending);
                        has_read = true;
                    }
                    Poll::Ready(Err(error)) if is_overrun(&error) => {
                        drain(socket)?;
                        event::push(pending, Event::Missed);
                        has_read = true;
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => {}
                }
            }
            if has_read { Poll::Ready(Ok(())) } else { Poll::Pending }
        })
        .await
    }
}

fn subscribe(protocol: isize, groups: &[u32]) -> io::Result<TokioSocket> {
    let mut socket = TokioSocket::new(protocol)?;
    let options = socket.socket_ref();
    // Beyond net.core.rmem_max needs CAP_NET_ADMIN; without it, what the limit grants has to do.
    if sockopt::set_socket_recv_buffer_size_force(options, RECEIVE_BUFFER).is_err() {
        sockopt::set_socket_recv_buffer_size(options, RECEIVE_BUFFER)?;
    }
    socket.socket_mut().bind(&SocketAddr::new(0, 0))?;
    for group in groups {
        socket.socket_mut().add_membership(*group)?;
    }
    Ok(socket)
}

/// Throws away what is queued. After it has said that events were lost, the kernel goes on losing them in silence until
/// its queue is empty (NETLINK_S_CONGESTED, net/netlink/af_netlink.c): who looked at everything before that would not
/// hear what changes meanwhile. It takes less to read an event than to cause it, so this ends.
fn drain(socket: &TokioSocket) -> io::Result<()> {
    let mut scrap = [0; 16];
    loop {
        match socket.socket_ref().recv(&mut scrap.as_mut_slice(), 0) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) if is_overrun(&error) => {}
            Err(error) => return Err(error),
        }
    }
}

fn is_overrun(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::NOBUFS.raw_os_error())
}
