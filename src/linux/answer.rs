//! What the kernel answers: from the bytes of datagrams to the outcome of an exchange, without a socket.
//!
//! Each kind of exchange is given one datagram after another until it is over.

use std::convert::Infallible;

use rtnetlink::packet_core::{
    NLM_F_DUMP_INTR, NetlinkBuffer, NetlinkDeserializable, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use rustix::io::Errno;

use super::error::Reason;
use super::message::Object;

/// What becomes of requests that went out in one datagram.
pub(super) trait Exchange {
    /// What whoever asked gets.
    type Outcome;

    /// Once it is over: its outcome.
    fn take(&mut self, datagram: &[u8]) -> Option<Self::Outcome>;

    /// When no more will come, and it is not over.
    fn without_the_missing(self) -> Self::Outcome;
}

impl NetlinkDeserializable for Object {
    type Error = Infallible;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, Infallible> {
        Ok(Self { kind: header.message_type, payload: payload.to_vec() })
    }
}

/// What became of each of some requests: the object that came before its acknowledgement, if any, or why it was refused.
pub(super) type Verdicts = Vec<Result<Option<Object>, Reason>>;

/// The answers to requests of which the last asks for an acknowledgement. The kernel works through them in order, and
/// tells of a refused one whether or not it was asked to: so the last acknowledgement speaks for all before it.
pub(super) struct Answers {
    /// Sequence number of the first request; the others count on.
    first: u32,
    verdicts: Verdicts,
}

impl Answers {
    pub(super) fn to(first: u32, count: usize) -> Self {
        Self { first, verdicts: vec![Ok(None); count] }
    }
}

impl Exchange for Answers {
    type Outcome = Verdicts;

    fn take(&mut self, datagram: &[u8]) -> Option<Verdicts> {
        let mut is_over = false;
        for message in messages(datagram) {
            let place = message.place_after(self.first);
            is_over |= place + 1 == self.verdicts.len() && matches!(message.content, Content::Verdict(_));
            let Some(verdict) = self.verdicts.get_mut(place) else { continue };
            match message.content {
                Content::Object(found) => *verdict = found.map(Some),
                Content::Verdict(Err(reason)) => *verdict = Err(reason),
                Content::Verdict(Ok(())) | Content::Done(_) => {}
            }
        }
        is_over.then(|| std::mem::take(&mut self.verdicts))
    }

    /// The requests of which nothing was heard were answered together with the first, if that one was refused; else
    /// their answers are lost.
    fn without_the_missing(mut self) -> Verdicts {
        let reason = match self.verdicts.first() {
            Some(Err(reason)) => reason.clone(),
            _ => Reason::lost(),
        };
        for verdict in self.verdicts.iter_mut().filter(|verdict| **verdict == Ok(None)) {
            *verdict = Err(reason.clone());
        }
        self.verdicts
    }
}

/// What came of a dump.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Listed {
    /// All of it, as it was at one moment.
    Whole(Vec<Object>),
    /// The kernel says that it changed while it was read.
    Torn(Vec<Object>),
    /// Nothing: the kernel was interrupted, or is not done with an earlier one.
    Busy,
}

/// A dump on its way.
pub(super) struct List<'a> {
    sequence: u32,
    is_torn: bool,
    objects: Result<Vec<Object>, Reason>,
    is_wanted: &'a (dyn Fn(&Object) -> bool + Sync),
}

impl List<'static> {
    /// The answer to the question with that sequence number.
    pub(super) fn of(sequence: u32) -> Self {
        List::of_some(sequence, &|_| true)
    }
}

impl<'a> List<'a> {
    /// The same, of which only what is wanted is kept: it may be long.
    pub(super) fn of_some(sequence: u32, is_wanted: &'a (dyn Fn(&Object) -> bool + Sync)) -> Self {
        Self { sequence, is_torn: false, objects: Ok(Vec::new()), is_wanted }
    }
}

impl Exchange for List<'_> {
    type Outcome = Result<Listed, Reason>;

    /// Torn or broken, it is read to the end: the next dump of the socket must find this one over.
    fn take(&mut self, datagram: &[u8]) -> Option<Self::Outcome> {
        for message in messages(datagram).filter(|message| message.sequence == self.sequence) {
            self.is_torn |= message.flags & NLM_F_DUMP_INTR != 0;
            match message.content {
                Content::Object(object) => match (&mut self.objects, object) {
                    (Ok(objects), Ok(object)) => {
                        objects.extend(Some(object).filter(|it| (self.is_wanted)(it)))
                    }
                    (Ok(_), Err(reason)) => self.objects = Err(reason),
                    (Err(_), _) => {}
                },
                Content::Done(Some(reason)) | Content::Verdict(Err(reason)) => {
                    let is_to_be_repeated = reason.is_busy() || reason.is_interrupted();
                    return Some(if is_to_be_repeated { Ok(Listed::Busy) } else { Err(reason) });
                }
                Content::Done(None) => {
                    let listed = if self.is_torn { Listed::Torn } else { Listed::Whole };
                    return Some(std::mem::replace(&mut self.objects, Ok(Vec::new())).map(listed));
                }
                Content::Verdict(Ok(())) => return Some(Err(Reason::lost())),
            }
        }
        None
    }

    fn without_the_missing(self) -> Self::Outcome {
        Err(Reason::lost())
    }
}

/// What becomes of a transaction: only refused messages are acknowledged, and the last.
pub(super) struct Verdict {
    /// Sequence number of the message that begins it.
    first: u32,
    /// Place of its last message, from 1; the one that begins it is 0.
    last: usize,
    reasons: Vec<(Option<usize>, Reason)>,
}

/// A transaction that the kernel refused: nothing of it was done.
#[derive(Debug)]
pub(super) struct Rejected {
    /// The requests to blame, by their place in the transaction; `None` for the transaction as a whole.
    pub(super) reasons: Vec<(Option<usize>, Reason)>,
}

impl Rejected {
    pub(super) fn as_whole(reason: Reason) -> Self {
        Self { reasons: vec![(None, reason)] }
    }
}

impl Verdict {
    pub(super) fn on(first: u32, last: usize) -> Self {
        Self { first, last, reasons: Vec::new() }
    }
}

impl Exchange for Verdict {
    type Outcome = Result<(), Rejected>;

    fn take(&mut self, datagram: &[u8]) -> Option<Self::Outcome> {
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

    /// What was refused until then is why; else the verdict is lost.
    fn without_the_missing(self) -> Self::Outcome {
        if self.reasons.is_empty() {
            return Err(Rejected::as_whole(Reason::lost()));
        }
        Err(Rejected { reasons: self.reasons })
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
pub(super) fn check(datagram: &[u8], next: u32) -> Result<(), Reason> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use rtnetlink::packet_core::{DoneMessage, ErrorMessage, NLM_F_CAPPED};
    use std::num::NonZeroI32;

    /// Number of the first request.
    const FIRST: u32 = 7;

    fn message(sequence: u32, flags: u16, payload: NetlinkPayload<Plain>) -> Vec<u8> {
        let mut header = NetlinkHeader::default();
        (header.sequence_number, header.flags) = (sequence, flags);
        let mut message = NetlinkMessage::new(header, payload);
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        bytes
    }

    /// An object without a word in it.
    #[derive(Debug)]
    struct Plain;

    impl rtnetlink::packet_core::NetlinkSerializable for Plain {
        fn message_type(&self) -> u16 {
            16
        }

        fn buffer_len(&self) -> usize {
            4
        }

        fn serialize(&self, buffer: &mut [u8]) {
            buffer.fill(0);
        }
    }

    fn object(sequence: u32, flags: u16) -> Vec<u8> {
        message(sequence, flags, NetlinkPayload::InnerMessage(Plain))
    }

    fn done(code: i32, flags: u16) -> Vec<u8> {
        let mut done = DoneMessage::default();
        done.code = code;
        message(FIRST, flags, NetlinkPayload::Done(done))
    }

    fn verdict(sequence: u32, errno: i32) -> Vec<u8> {
        let mut error = ErrorMessage::default();
        error.code = NonZeroI32::new(-errno);
        error.header = vec![0; 16];
        message(sequence, NLM_F_CAPPED, NetlinkPayload::Error(error))
    }

    /// What became of a list, by the number of its objects, if it is over with the last of `datagrams`.
    fn list(datagrams: &[Vec<u8>]) -> Option<Result<(&'static str, usize), Reason>> {
        let mut list = List::of(FIRST);
        let outcomes: Vec<_> = datagrams.iter().map(|datagram| list.take(datagram)).collect();
        assert!(outcomes.iter().rev().skip(1).all(Option::is_none), "over too early: {outcomes:?}");
        outcomes.into_iter().next_back()?.map(|listed| {
            listed.map(|listed| match listed {
                Listed::Whole(objects) => ("whole", objects.len()),
                Listed::Torn(objects) => ("torn", objects.len()),
                Listed::Busy => ("busy", 0),
            })
        })
    }

    #[test]
    fn a_dump_is_whole_if_no_part_of_it_says_otherwise() {
        assert_eq!(list(&[object(FIRST, 0), object(FIRST, 0), done(0, 0)]), Some(Ok(("whole", 2))));
        assert_eq!(list(&[done(0, 0)]), Some(Ok(("whole", 0))));
        assert_eq!(list(&[object(FIRST, 0)]), None);
        // Of an exchange that failed before.
        assert_eq!(list(&[object(FIRST - 1, 0), verdict(FIRST - 1, 1), done(0, 0)]), Some(Ok(("whole", 0))));
        for torn_at in 0..3 {
            let flags = |at| if at == torn_at { NLM_F_DUMP_INTR } else { 0 };
            let torn = list(&[object(FIRST, flags(0)), object(FIRST, flags(1)), done(0, flags(2))]);
            assert_eq!(torn, Some(Ok(("torn", 2))), "{torn_at}");
        }
    }

    #[test]
    fn a_dump_that_was_broken_off_is_an_error_or_repeated() {
        let errno = |outcome: Option<Result<_, Reason>>| outcome.unwrap().unwrap_err().of("list").errno;
        assert_eq!(errno(list(&[object(FIRST, 0), done(-12, 0)])), 12);
        assert_eq!(errno(list(&[verdict(FIRST, 1)])), 1);
        // EBUSY: an earlier dump of the same socket is not over yet. EINTR: a signal came.
        for errno in [16, 4] {
            assert_eq!(list(&[verdict(FIRST, errno)]), Some(Ok(("busy", 0))));
        }
        assert_eq!(List::of(FIRST).without_the_missing(), Err(Reason::lost()));
    }

    #[test]
    fn the_last_acknowledgement_speaks_for_all_before_it() {
        let mut answers = Answers::to(FIRST, 4);
        assert_eq!(answers.take(&verdict(FIRST - 1, 0)), None, "of an earlier one");
        assert_eq!(answers.take(&object(FIRST, 0)), None);
        assert_eq!(answers.take(&verdict(FIRST + 2, 17)), None);
        let verdicts = answers.take(&verdict(FIRST + 3, 0)).unwrap();
        assert!(matches!(verdicts[0], Ok(Some(_))), "{verdicts:?}");
        assert_eq!((&verdicts[1], &verdicts[3]), (&Ok(None), &Ok(None)));
        assert!(verdicts[2].clone().unwrap_err().of("add").is_exists());
    }

    #[test]
    fn a_refusal_of_the_first_alone_is_that_of_all() {
        let mut answers = Answers::to(FIRST, 3);
        assert_eq!(answers.take(&verdict(FIRST, 1)), None);
        for verdict in answers.without_the_missing() {
            assert_eq!(verdict.unwrap_err().of("ask").errno, 1);
        }
        let mut answers = Answers::to(FIRST, 3);
        assert_eq!(answers.take(&object(FIRST + 1, 0)), None);
        let lost = answers.without_the_missing();
        assert_eq!((&lost[0], &lost[2]), (&Err(Reason::lost()), &Err(Reason::lost())));
        assert!(lost[1].is_ok(), "it was told");
    }
}
