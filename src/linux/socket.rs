//! What the two kinds of netlink socket have in common: their options, and the number that the kernel gives them.

use std::io;

use rtnetlink::sys::{Socket, SocketAddr};

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
