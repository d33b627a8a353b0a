//! What a dump that changes is worth.

use super::*;
use std::cell::Cell;

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

#[test]
fn a_torn_dump_is_repeated_until_it_is_whole_but_not_for_ever() {
    for whole_at in [1, 2, DUMP_ATTEMPTS, DUMP_ATTEMPTS + 1] {
        let runs = Cell::new(0);
        let listed = run(repeat_until_whole(async || {
            runs.set(runs.get() + 1);
            let object = vec![Object { kind: 0, payload: vec![u8::try_from(runs.get()).unwrap()] }];
            Ok(if runs.get() == whole_at { Listed::Whole(object) } else { Listed::Torn(object) })
        }));
        let last = whole_at.min(DUMP_ATTEMPTS);
        assert_eq!(runs.get(), last);
        let object = vec![Object { kind: 0, payload: vec![u8::try_from(last).unwrap()] }];
        assert_eq!(listed, Ok(if last == whole_at { Listed::Whole(object) } else { Listed::Torn(object) }));
    }
    let words = restless().of("list routes").to_string();
    assert!(words.ends_with("it changed while it was read, 8 times in a row"), "{words}");
    assert!(run(repeat_until_whole(async || Err(Reason::lost()))).is_err());
}
