//! What netlink sockets have in common: their options, the number that the kernel gives them, and how they are listened to.

use std::future::poll_fn;
use std::io;
use std::task::Poll;

use rtnetlink::sys::{AsyncSocket, Socket, SocketAddr, TokioSocket};
use rustix::io::Errno;

/// Has the kernel answer with its own words beside errno, and without the request repeated before them.
///
/// # Errors
/// The kernel's: it is older than 4.12.
pub(super) fn explain_refusals(socket: &Socket) -> io::Result<()> {
    socket.set_ext_ack(true)?;
    socket.set_cap_ack(true)
}

/// The number by which the kernel names this socket when it tells others what was changed over it
/// (the `port` of a [`monitor::Event`](super::monitor::Event)). It is the same for the life of the socket.
///
/// # Errors
/// The kernel's: no number is left.
pub(super) fn bind(socket: &mut Socket) -> io::Result<u32> {
    let mut address = SocketAddr::new(0, 0);
    socket.get_address(&mut address)?;
    match address.port_number() {
        0 => Ok(socket.bind_auto()?.port_number()),
        port => Ok(port),
    }
}

/// The next datagram that the kernel tells of by itself; waits for it. `None`: the kernel had some that nobody read in time.
/// Cancel safe.
///
/// # Errors
/// Where the socket fails. Nothing is heard any more then.
pub(super) async fn next_told(socket: &mut TokioSocket) -> io::Result<Option<Vec<u8>>> {
    poll_fn(|context| match socket.poll_recv_from_full(context) {
        Poll::Ready(Ok((datagram, _))) => Poll::Ready(Ok(Some(datagram))),
        Poll::Ready(Err(error)) if error.raw_os_error() == Some(Errno::NOBUFS.raw_os_error()) => {
            Poll::Ready(Ok(None))
        }
        Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
        Poll::Pending => Poll::Pending,
    })
    .await
}
