//! Answers, taken apart without a kernel.

use super::*;
use futures_util::stream;
use netlink_packet_route::link::LinkMessage;
use rtnetlink::packet_core::{DoneMessage, ErrorMessage};
use std::cell::Cell;
use std::num::NonZeroI32;

type Answer = NetlinkMessage<Packet>;

fn answer(payload: NetlinkPayload<Packet>, flags: u16) -> Answer {
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    NetlinkMessage::new(header, payload)
}

fn link(flags: u16) -> Answer {
    let link = RouteNetlinkMessage::NewLink(LinkMessage::default());
    answer(NetlinkPayload::InnerMessage(Packet::Answer(link)), flags)
}

fn unreadable() -> Answer {
    answer(NetlinkPayload::InnerMessage(Packet::Unreadable("torn attribute".to_owned())), 0)
}

fn done(code: i32, flags: u16) -> Answer {
    let mut done = DoneMessage::default();
    done.code = code;
    answer(NetlinkPayload::Done(done), flags)
}

fn verdict(errno: i32) -> Answer {
    let mut error = ErrorMessage::default();
    error.code = NonZeroI32::new(-errno);
    error.header = vec![0; 16];
    answer(NetlinkPayload::Error(error), rtnetlink::packet_core::NLM_F_CAPPED)
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn dump(answers: impl IntoIterator<Item = Answer>) -> Result<Listed<usize>, KernelError> {
    let listed = run(read_dump(&mut stream::iter(answers))).map_err(|reason| reason.of("list"))?;
    Ok(match listed {
        Listed::Whole(objects) => Listed::Whole(objects.len()),
        Listed::Torn(objects) => Listed::Torn(objects.len()),
        Listed::Busy => Listed::Busy,
    })
}

#[test]
fn a_dump_is_whole_if_no_part_of_it_says_otherwise() {
    assert_eq!(dump([link(0), link(0), done(0, 0)]), Ok(Listed::Whole(2)));
    assert_eq!(dump([done(0, 0)]), Ok(Listed::Whole(0)));
    for torn_at in 0..3 {
        let flags = |at| if at == torn_at { NLM_F_DUMP_INTR } else { 0 };
        let torn = dump([link(flags(0)), link(flags(1)), done(0, flags(2))]);
        assert_eq!(torn, Ok(Listed::Torn(2)), "{torn_at}");
    }
}

#[test]
fn a_dump_that_was_broken_off_is_an_error() {
    assert_eq!(dump([link(0), done(-12, 0)]).unwrap_err().errno, 12);
    assert_eq!(dump([verdict(1)]).unwrap_err().errno, 1);
    let lost = dump([link(0)]).unwrap_err();
    assert!(lost.to_string().ends_with("the netlink connection was lost before the kernel's answer"));
    let unreadable = dump([link(0), unreadable(), link(0), done(0, 0)]).unwrap_err();
    assert!(unreadable.to_string().ends_with("the kernel's answer cannot be read: torn attribute"));
    // EBUSY: an abandoned dump of the same socket is not over yet.
    assert_eq!(dump([verdict(16)]), Ok(Listed::Busy));
}

#[test]
fn a_torn_dump_is_repeated_until_it_is_whole_but_not_for_ever() {
    for whole_at in [1, 2, DUMP_ATTEMPTS, DUMP_ATTEMPTS + 1] {
        let runs = Cell::new(0);
        let listed = run(repeat_until_whole(async || {
            runs.set(runs.get() + 1);
            Ok(if runs.get() == whole_at { Listed::Whole(runs.get()) } else { Listed::Torn(runs.get()) })
        }));
        let last = whole_at.min(DUMP_ATTEMPTS);
        assert_eq!(runs.get(), last);
        let wanted = if last == whole_at { Listed::Whole(last) } else { Listed::Torn(last) };
        assert_eq!(listed.map_err(|reason| reason.of("list routes").to_string()), Ok(wanted));
    }
    let words = restless().of("list routes").to_string();
    assert!(words.ends_with("it changed while it was read, 8 times in a row"), "{words}");
    let refused: Result<Listed<()>, _> = run(repeat_until_whole(async || Err(Reason::lost())));
    assert!(refused.is_err());
}

#[test]
fn each_request_of_a_batch_gets_its_own_answer() {
    run(async {
        let mut answers = stream::iter([link(0), verdict(0), verdict(17), unreadable(), verdict(0)]);
        assert!(matches!(read_answer(&mut answers).await, Ok(Some(_))));
        assert!(read_answer(&mut answers).await.unwrap_err().of("add").is_exists());
        assert!(
            read_answer(&mut answers).await.unwrap_err().of("show").to_string().contains("cannot be read")
        );
        assert_eq!(read_answer(&mut answers).await, Err(Reason::lost()));
    });
}
