//! What the kernel answers: from the bytes of datagrams to the outcome of an exchange, without a socket.
//!
//! Each kind of exchange is given one datagram after another until it is over.

use std::convert::Infallible;

use rtnetlink::packet_core::{
    NLM_F_DUMP_INTR, NetlinkBuffer, NetlinkDeserializable, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use rustix::io::Errno;

use crate::linux::error::Reason;

/// An object that the kernel lists, not taken apart yet: whoever asked knows what it is.
///
/// netlink-packet-netfilter 0.4 reads rules and elements as well, but for each attribute it prints the whole buffer
/// around it, for an error that is hardly ever there: a millisecond for the few rules that an ADD looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::linux) struct Object {
    /// Type of the message within its subsystem.
    pub(in crate::linux) kind: u8,
    /// Its attributes.
    pub(in crate::linux) body: Vec<u8>,
}

impl NetlinkDeserializable for Object {
    type Error = Infallible;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, Infallible> {
        let [kind, _] = header.message_type.to_le_bytes();
        // After `struct nfgenmsg`.
        Ok(Self { kind, body: payload.get(4..).unwrap_or_default().to_vec() })
    }
}

/// The answers to questions that went out in one datagram.
pub(in crate::linux) struct Answers {
    /// Sequence number of the first question; the others count on.
    first: u32,
    /// Whether the acknowledgement of each has come.
    is_acknowledged: Vec<bool>,
    objects: Vec<Result<Option<Object>, Reason>>,
}

impl Answers {
    pub(in crate::linux) fn to(first: u32, count: usize) -> Self {
        Self { first, is_acknowledged: vec![false; count], objects: vec![Ok(None); count] }
    }

    /// Once every question has its acknowledgement: what came before each.
    pub(in crate::linux) fn take(&mut self, datagram: &[u8]) -> Option<Vec<Result<Option<Object>, Reason>>> {
        for message in messages(datagram) {
            let place = message.place_after(self.first);
            let Some(object) = self.objects.get_mut(place) else { continue };
            match message.content {
                Content::Object(found) => *object = found.map(Some),
                Content::Verdict(verdict) => {
                    if let Some(is_acknowledged) = self.is_acknowledged.get_mut(place) {
                        *is_acknowledged = true;
                    }
                    if let Err(reason) = verdict {
                        *object = Err(reason);
                    }
                }
                Content::Done(_) => {}
            }
        }
        let is_over = self.is_acknowledged.iter().all(|it| *it);
        is_over.then(|| std::mem::take(&mut self.objects))
    }

    /// When no more will come: the questions without an acknowledgement were answered together with the first, if that
    /// one was refused; else their answers are lost.
    pub(in crate::linux) fn without_the_missing(mut self) -> Vec<Result<Option<Object>, Reason>> {
        let reason = match self.objects.first() {
            Some(Err(reason)) => reason.clone(),
            _ => Reason::lost(),
        };
        for (object, is_acknowledged) in self.objects.iter_mut().zip(self.is_acknowledged) {
            if !is_acknowledged {
                *object = Err(reason.clone());
            }
        }
        self.objects
    }
}

/// A dump on its way.
pub(in crate::linux) struct List {
    sequence: u32,
    is_torn: bool,
    objects: Result<Vec<Object>, Reason>,
}

impl List {
    /// The answer to the question with that sequence number.
    pub(in crate::linux) fn of(sequence: u32) -> Self {
        Self { sequence, is_torn: false, objects: Ok(Vec::new()) }
    }

    /// Once it is over: all objects, or `None` if it is to be repeated.
    ///
    /// Torn or broken, it is read to the end: the next dump of the socket must find this one over.
    pub(in crate::linux) fn take(&mut self, datagram: &[u8]) -> Option<Result<Option<Vec<Object>>, Reason>> {
        for message in messages(datagram).filter(|message| message.sequence == self.sequence) {
            self.is_torn |= message.flags & NLM_F_DUMP_INTR != 0;
            match message.content {
                Content::Object(object) => match (&mut self.objects, object) {
                    (Ok(objects), Ok(object)) => objects.push(object),
                    (Ok(_), Err(reason)) => self.objects = Err(reason),
                    (Err(_), _) => {}
                },
                Content::Done(Some(reason)) | Content::Verdict(Err(reason)) => {
                    let is_to_be_repeated = reason.is_busy() || reason.is_interrupted();
                    return Some(if is_to_be_repeated { Ok(None) } else { Err(reason) });
                }
                Content::Done(None) if self.is_torn => return Some(Ok(None)),
                Content::Done(None) => {
                    return Some(std::mem::replace(&mut self.objects, Ok(Vec::new())).map(Some));
                }
                Content::Verdict(Ok(())) => return Some(Err(Reason::lost())),
            }
        }
        None
    }
}

/// What becomes of a transaction: only refused messages are acknowledged, and the last.
pub(in crate::linux) struct Verdict {
    /// Sequence number of the message that begins it.
    first: u32,
    /// Place of its last message, from 1; the one that begins it is 0.
    last: usize,
    reasons: Vec<(Option<usize>, Reason)>,
}

/// A transaction that the kernel refused: nothing of it was done.
#[derive(Debug)]
pub(in crate::linux) struct Rejected {
    /// The requests to blame, by their place in the transaction; `None` for the transaction as a whole.
    pub(in crate::linux) reasons: Vec<(Option<usize>, Reason)>,
}

impl Rejected {
    pub(in crate::linux) fn as_whole(reason: Reason) -> Self {
        Self { reasons: vec![(None, reason)] }
    }
}

impl Verdict {
    pub(in crate::linux) fn on(first: u32, last: usize) -> Self {
        Self { first, last, reasons: Vec::new() }
    }

    /// Once it is spoken.
    pub(in crate::linux) fn take(&mut self, datagram: &[u8]) -> Option<Result<(), Rejected>> {
        for message in messages(datagram) {
            let place = message.place_after(self.first);
            match message.content {
                Content::Verdict(Err(reason)) if place == 0 => return Some(Err(Rejected::as_whole(reason))),
                Content::Verdict(verdict) if (1..=self.last).contains(&place) => {
                    self.reasons.extend(verdict.err().map(|reason| (Some(place - 1), reason)));
                    if place == self.last {
                        let reasons = std::mem::take(&mut self.reasons);
                        return Some(if reasons.is_empty() { Ok(()) } else { Err(Rejected { reasons }) });
                    }
                }
                _ => {}
            }
        }
        None
    }

    /// When no more will come. What was refused until then is why; else the verdict is lost.
    pub(in crate::linux) fn without_the_missing(self) -> Rejected {
        if self.reasons.is_empty() {
            return Rejected::as_whole(Reason::lost());
        }
        Rejected { reasons: self.reasons }
    }
}

/// One message of the kernel.
struct Message {
    sequence: u32,
    flags: u16,
    content: Content,
}

enum Content {
    Object(Result<Object, Reason>),
    Verdict(Result<(), Reason>),
    Done(Option<Reason>),
}

impl Message {
    /// Which of the requests that began with `first` it answers; far out of range for an old one.
    fn place_after(&self, first: u32) -> usize {
        self.sequence.wrapping_sub(first) as usize
    }
}

/// Refuses a datagram after which somebody would wait for ever: his answer is in a part that cannot be read, or bears a
/// number that nobody has given. `next` is the number of the next request; older ones are answers that nobody waits for.
pub(in crate::linux) fn check(datagram: &[u8], next: u32) -> Result<(), Reason> {
    let mut rest = datagram;
    while let Ok(message) = NetlinkBuffer::new_checked(rest) {
        if next.wrapping_sub(message.sequence_number()).wrapping_sub(1) > u32::MAX / 2 {
            return Err(Reason::lost());
        }
        rest = rest.get((message.length() as usize).max(1).next_multiple_of(4)..).unwrap_or_default();
    }
    if rest.is_empty() {
        Ok(())
    } else {
        Err(Reason::ours(Errno::BADMSG, "the kernel's answer is cut short"))
    }
}

/// The messages of a datagram, up to the first that is torn.
fn messages(datagram: &[u8]) -> impl Iterator<Item = Message> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let message = NetlinkBuffer::new_checked(rest).ok()?;
        let (sequence, flags) = (message.sequence_number(), message.flags());
        let length = (message.length() as usize).max(1);
        let content = read(rest.get(..length).unwrap_or(rest));
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Message { sequence, flags, content })
    })
}

fn read(message: &[u8]) -> Content {
    match NetlinkMessage::<Object>::deserialize(message) {
        Ok(NetlinkMessage { payload: NetlinkPayload::InnerMessage(object), .. }) => {
            Content::Object(Ok(object))
        }
        Ok(NetlinkMessage { header, payload: NetlinkPayload::Error(error), .. }) => {
            Content::Verdict(Reason::from_error(&error, header.flags).map_or(Ok(()), Err))
        }
        Ok(NetlinkMessage { payload: NetlinkPayload::Done(done), .. }) => {
            Content::Done(Reason::from_done(&done))
        }
        Ok(_) => Content::Object(Err(Reason::lost())),
        Err(error) => {
            let why = format!("the kernel's answer cannot be read: {error}");
            Content::Object(Err(Reason::ours(Errno::BADMSG, why)))
        }
    }
}
