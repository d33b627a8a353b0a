//! Packets that a rule tells of (`log group N`): who sent what to whom.
//!
//! A group has one listener in a namespace. The kernel copies as many bytes of a packet as are asked for here and by the
//! rule. Only the headers are read; the bytes are handed on.

mod packet;

use std::collections::VecDeque;
use std::io;

use rtnetlink::packet_core::NLM_F_ACK;
use rtnetlink::sys::protocols::NETLINK_NETFILTER;
use rtnetlink::sys::{AsyncSocket, SocketAddr, TokioSocket};
use rustix::net::sockopt;

use super::exchange::write;
use super::message::Request;
use super::socket::next_told;
pub use packet::LoggedPacket;
pub(super) use packet::read_packets;

/// `NFNL_SUBSYS_ULOG` and its messages (include/uapi/linux/netfilter/nfnetlink.h, nfnetlink_log.h).
const SUBSYSTEM: u16 = 4;
const MSG_PACKET: u16 = SUBSYSTEM << 8;
const MSG_CONFIG: u16 = SUBSYSTEM << 8 | 1;

/// `NFULA_CFG_CMD` with `NFULNL_CFG_CMD_BIND`, `NFULA_CFG_MODE` with `NFULNL_COPY_PACKET`, `NFULA_CFG_QTHRESH`.
const CFG_COMMAND: u16 = 1;
const COMMAND_BIND: u8 = 1;
const CFG_MODE: u16 = 2;
const COPY_PACKET: u8 = 2;
const CFG_THRESHOLD: u16 = 5;

/// `NFULA_CFG_FLAGS` with `NFULNL_CFG_F_SEQ`: each packet has a number.
const CFG_FLAGS: u16 = 6;
const NUMBERED: u16 = 1;

/// `NLMSG_ERROR`, which is an acknowledgement as well.
const ERROR: u16 = 2;

/// Bytes of a packet that are copied: an IPv6 header with some of what may stand before the ports.
pub const COPIED: u32 = 128;

/// For packets as a whole: as much as the kernel copies (`NFULNL_COPY_RANGE_MAX`).
pub const WHOLE: u32 = 0xffff - 4;

/// Asked for, in bytes: what arrives while nobody reads. The kernel's default holds some hundred packets.
const BUFFER: usize = 4 << 20;

/// Hears of the packets of one group.
pub struct PacketLog {
    socket: TokioSocket,
    pending: VecDeque<LoggedPacket>,
    /// The number that the next packet should have.
    expected: Option<u32>,
    lost: u64,
}

impl PacketLog {
    /// Listens to `group`, in the namespace of the calling thread.
    ///
    /// # Errors
    /// The kernel's: somebody else listens to that group, or CAP_NET_ADMIN is missing (both EPERM); it has no nfnetlink_log.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn open_here(group: u16) -> io::Result<Self> {
        Self::open_copying_here(group, COPIED)
    }

    /// The same, and of each packet so many bytes are copied at most.
    ///
    /// # Errors
    /// As [`PacketLog::open_here`].
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn open_copying_here(group: u16, copied: u32) -> io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_NETFILTER)?;
        // Without CAP_NET_ADMIN the group will be refused, with words.
        let _ = sockopt::set_socket_recv_buffer_size_force(socket.socket_ref(), BUFFER);
        socket.socket_mut().bind(&SocketAddr::new(0, 0))?;
        let mut request = Vec::new();
        write(&mut request, &bind(group, copied), 0);
        socket.socket_ref().send_to(&request, &SocketAddr::new(0, 0), 0)?;
        let mut pending = VecDeque::new();
        loop {
            // The kernel has answered when it has taken the request.
            let (datagram, _) = socket.socket_ref().recv_from_full()?;
            match acknowledged(&datagram) {
                Some(0) => return Ok(Self { socket, pending, expected: None, lost: 0 }),
                Some(errno) => return Err(io::Error::from_raw_os_error(-errno)),
                None => read_packets(&datagram, &mut pending),
            }
        }
    }

    /// The next packet; waits for it. Cancel safe. Packets that nobody read in time are not told of.
    ///
    /// # Errors
    /// Where the socket fails. Nothing is heard any more then.
    pub async fn next(&mut self) -> io::Result<LoggedPacket> {
        loop {
            if let Some(packet) = self.pending.pop_front() {
                if let Some(number) = packet.sequence {
                    let missing = self.expected.map_or(0, |expected| number.wrapping_sub(expected));
                    self.lost += u64::from(missing);
                    self.expected = Some(number.wrapping_add(1));
                }
                return Ok(packet);
            }
            if let Some(datagram) = next_told(&mut self.socket).await? {
                read_packets(&datagram, &mut self.pending);
            }
        }
    }

    /// How many packets before the last one nobody read in time.
    pub fn lost(&self) -> u64 {
        self.lost
    }
}

/// Binds the group, and has each packet told at once.
fn bind(group: u16, copied: u32) -> Request {
    // struct nfgenmsg: no family, version 0, the group.
    let mut body = vec![0, 0];
    body.extend(group.to_be_bytes());
    attribute(&mut body, CFG_COMMAND, &[COMMAND_BIND]);
    // struct nfulnl_msg_config_mode
    let [a, b, c, d] = copied.to_be_bytes();
    attribute(&mut body, CFG_MODE, &[a, b, c, d, COPY_PACKET, 0]);
    attribute(&mut body, CFG_THRESHOLD, &1_u32.to_be_bytes());
    attribute(&mut body, CFG_FLAGS, &NUMBERED.to_be_bytes());
    Request { kind: MSG_CONFIG, flags: NLM_F_ACK, body, held: None }
}

fn attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    body.extend(length.to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
    body.resize(body.len().next_multiple_of(4), 0);
}

/// The error number of an acknowledgement, 0 for none; `None` for anything else.
fn acknowledged(datagram: &[u8]) -> Option<i32> {
    let kind = datagram.get(4..)?.first_chunk::<2>().map(|bytes| u16::from_ne_bytes(*bytes))?;
    let number = datagram.get(16..)?.first_chunk::<4>().map(|bytes| i32::from_ne_bytes(*bytes))?;
    (kind == ERROR).then_some(number)
}
