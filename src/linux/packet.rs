//! What travels over the socket: our requests as we build them, the kernel's answers as far as they can be read.
//!
//! A type of our own, between netlink-proto and netlink-packet-route, for two reasons. An answer that cannot
//! be decoded must be an error of the request that it answers (netlink-proto alone would drop it, and a list
//! would silently lack an entry). And a request that names a namespace by descriptor must keep that
//! descriptor open until it is sent, even if nobody waits for the answer any more.

use std::convert::Infallible;
use std::fmt::Debug;
use std::io;

use bytes::BytesMut;
use netlink_packet_route::RouteNetlinkMessage;
use rtnetlink::packet_core::{
    NetlinkBuffer, NetlinkDeserializable, NetlinkHeader, NetlinkMessage, NetlinkSerializable,
};
use rtnetlink::proto::{NetlinkCodec, NetlinkMessageCodec};
use rustix::io::Errno;

use super::error::Reason;
use super::netns::Netns;

/// A message to the kernel.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) message: RouteNetlinkMessage,
    /// NLM_F_*
    pub(super) flags: u16,
    /// The namespace that the message names by descriptor.
    #[expect(dead_code, reason = "kept open, not read")]
    pub(super) held: Option<Netns>,
}

impl Request {
    pub(super) fn new(message: RouteNetlinkMessage, flags: u16) -> Self {
        Self { message, flags, held: None }
    }
}

/// A message in either direction.
#[derive(Debug, Clone)]
pub(super) enum Packet {
    /// To the kernel.
    Request(Request),
    /// From the kernel.
    Answer(RouteNetlinkMessage),
    /// From the kernel, not understood, and why.
    Unreadable(String),
}

impl Packet {
    /// The kernel's answer.
    pub(super) fn into_answer(self) -> Result<RouteNetlinkMessage, Reason> {
        match self {
            Self::Answer(message) => Ok(message),
            Self::Request(request) => Ok(request.message),
            Self::Unreadable(why) => {
                Err(Reason::ours(Errno::BADMSG, format!("the kernel's answer cannot be read: {why}")))
            }
        }
    }
}

impl NetlinkSerializable for Packet {
    fn message_type(&self) -> u16 {
        match self {
            Self::Request(Request { message, .. }) | Self::Answer(message) => message.message_type(),
            Self::Unreadable(_) => 0,
        }
    }

    fn buffer_len(&self) -> usize {
        match self {
            Self::Request(Request { message, .. }) | Self::Answer(message) => message.buffer_len(),
            Self::Unreadable(_) => 0,
        }
    }

    fn serialize(&self, buffer: &mut [u8]) {
        match self {
            Self::Request(Request { message, .. }) | Self::Answer(message) => message.serialize(buffer),
            Self::Unreadable(_) => {}
        }
    }
}

impl NetlinkDeserializable for Packet {
    type Error = Infallible;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, Infallible> {
        Ok(match RouteNetlinkMessage::deserialize(header, payload) {
            Ok(message) => Self::Answer(message),
            Err(error) => Self::Unreadable(error.to_string()),
        })
    }
}

/// How a datagram is taken apart: as netlink-proto does it, but for one that cannot be. That skips it, and with it
/// somebody's answer, for which he would wait for ever; this ends the connection.
pub(super) struct Strict;

impl NetlinkMessageCodec for Strict {
    fn decode<T: NetlinkDeserializable + Debug>(
        datagram: &mut BytesMut,
    ) -> io::Result<Option<NetlinkMessage<T>>> {
        if datagram.is_empty() {
            return Ok(None);
        }
        let message = NetlinkBuffer::new_checked(datagram.as_ref()).map_err(io::Error::other)?;
        let length = (message.length() as usize).next_multiple_of(4).min(datagram.len());
        NetlinkMessage::deserialize(&datagram.split_to(length)).map(Some).map_err(io::Error::other)
    }

    fn encode<T: NetlinkSerializable + Debug>(
        message: NetlinkMessage<T>,
        datagram: &mut BytesMut,
    ) -> io::Result<()> {
        NetlinkCodec::encode(message, datagram)
    }
}
