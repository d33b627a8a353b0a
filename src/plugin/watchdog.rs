//! The second line behind the deadlines: answers, and ends the process, where the thread of the command cannot.
//!
//! What a command awaits ends by its deadline ([`super::deadline`]). A system call that does not return does not: a look
//! at a data directory whose server is gone, a conf on stdin that never ends. The process holds nothing that outlives it
//! but what DEL, or the next ADD, removes; its locks die with it.
//!
//! There is one writer to stdout. Whoever is about to write takes the [`Turn`] first, be it the command or the watchdog.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::attachments::UNDO_DEADLINE;
use crate::cni::env::Command;

/// What a command may need after its deadline to give up and say so.
const GRACE: Duration = Duration::from_secs(1);

/// What an ADD may need besides: it waits for the store's lock once more while its other parts go on.
const ADD_GRACE: Duration = Duration::from_secs(5);

/// Stack of the watchdog: it sleeps, and writes one answer.
const STACK: usize = 64 * 1024;

const OPEN: u8 = 0;
const WRITING: u8 = 1;
const SUCCEEDED: u8 = 2;
const FAILED: u8 = 3;
const EXPIRED: u8 = 4;

/// When the watchdog acts. For a command that cannot be told, the shortest.
pub fn last_deadline(command: Option<Command>) -> Duration {
    let command = command.unwrap_or(Command::Version);
    let undo = if command == Command::Add { UNDO_DEADLINE + ADD_GRACE } else { Duration::ZERO };
    super::deadline(command) + undo + GRACE
}

/// Whose turn it is to answer.
#[derive(Debug, Default)]
pub struct Turn(AtomicU8);

/// How far the command had come when the watchdog woke up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expired {
    /// It had written nothing: the watchdog has the turn.
    Unanswered,
    /// It was writing, and whoever should read does not.
    Writing,
    /// It had written its answer, and did not come to its end.
    Answered {
        /// Whether that was a success.
        is_success: bool,
    },
}

impl Turn {
    /// The command is about to write. `false` where it has answered already: one answer is all that a runtime reads. Does
    /// not return where the watchdog has the turn, which ends the process.
    pub fn take(&self) -> bool {
        let taken = self.0.compare_exchange(OPEN, WRITING, Ordering::AcqRel, Ordering::Acquire);
        while taken == Err(EXPIRED) {
            thread::park();
        }
        !self.has_answered()
    }

    /// Whether the command has answered.
    pub fn has_answered(&self) -> bool {
        matches!(self.0.load(Ordering::Acquire), SUCCEEDED | FAILED)
    }

    /// The command could not write, and will answer something else.
    pub fn give_back(&self) {
        let _ = self.0.compare_exchange(WRITING, OPEN, Ordering::AcqRel, Ordering::Acquire);
    }

    /// The command has answered.
    pub fn finish(&self, is_success: bool) {
        self.0.store(if is_success { SUCCEEDED } else { FAILED }, Ordering::Release);
    }

    fn expire(&self) -> Expired {
        match self.0.compare_exchange(OPEN, EXPIRED, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => Expired::Unanswered,
            Err(WRITING) => Expired::Writing,
            Err(state) => Expired::Answered { is_success: state == SUCCEEDED },
        }
    }
}

/// Has `end` called after `time`, by a thread of its own; it must end the process. Where there can be no thread, there is
/// no second line.
pub fn start(turn: &Arc<Turn>, time: Duration, end: impl FnOnce(Expired) + Send + 'static) {
    let (turn, end_of_time) = (Arc::clone(turn), Instant::now() + time);
    let watch = move || {
        // It may wake up earlier than it was told to.
        while let Some(left) = end_of_time.checked_duration_since(Instant::now()).filter(|it| !it.is_zero()) {
            thread::park_timeout(left);
        }
        end(turn.expire());
    };
    drop(thread::Builder::new().name("watchdog".to_owned()).stack_size(STACK).spawn(watch));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    const SOON: Duration = Duration::from_millis(30);

    /// What the watchdog finds, of a command that does `before` and then blocks.
    fn found(before: impl FnOnce(&Turn)) -> Expired {
        let turn = Arc::new(Turn::default());
        before(&turn);
        let (send, receive) = mpsc::channel();
        start(&turn, SOON, move |expired| send.send(expired).unwrap());
        // The thread of the command is in a call that does not return.
        receive.recv().unwrap()
    }

    #[test]
    fn a_command_that_blocks_is_answered_for() {
        assert_eq!(found(|_| ()), Expired::Unanswered);
        assert_eq!(found(|turn| assert!(turn.take())), Expired::Writing);
        for is_success in [true, false] {
            let answer = |turn: &Turn| {
                assert!(turn.take());
                turn.finish(is_success);
            };
            assert_eq!(found(answer), Expired::Answered { is_success });
        }
        let fail = |turn: &Turn| {
            assert!(turn.take());
            turn.give_back();
        };
        assert_eq!(found(fail), Expired::Unanswered);
    }

    #[test]
    fn nobody_writes_after_the_watchdog() {
        let turn = Arc::new(Turn::default());
        assert_eq!(turn.expire(), Expired::Unanswered);
        let (send, receive) = mpsc::channel();
        let late = Arc::clone(&turn);
        thread::spawn(move || {
            late.take();
            send.send(()).unwrap();
        });
        assert_eq!(receive.recv_timeout(SOON), Err(mpsc::RecvTimeoutError::Timeout));
    }

    #[test]
    fn there_is_one_answer() {
        let turn = Turn::default();
        assert!(turn.take() && !turn.has_answered());
        turn.give_back();
        assert!(turn.take());
        turn.finish(true);
        assert!(!turn.take() && turn.has_answered());
    }

    #[test]
    fn an_add_has_time_for_its_undo() {
        assert!(last_deadline(Some(Command::Add)) > super::super::deadline(Command::Add) + UNDO_DEADLINE);
        assert_eq!(last_deadline(None), last_deadline(Some(Command::Version)));
    }
}
