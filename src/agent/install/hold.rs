//! Whether the agent may write a conf that is not there, from what it knew before.
//!
//! A machine that joins again under another range may still have the state file of before. With a conf from that, the
//! first pods would get addresses that are another node's by now. So where there is no conf yet, the API server has the
//! first word, for a while: a node that reboots without an API server has to start pods.
//!
//! | there is                                    | conf from the state file                                     |
//! |---------------------------------------------|--------------------------------------------------------------|
//! | a conf (restart of agent or node)           | kept as it should be, at once                                |
//! | no conf, and no word of Nodes               | after [`SILENCE`]                                            |
//! | no conf, and a list of Nodes under way      | [`SILENCE`] after its last word, [`LONGEST`] after the start |
//! | no conf, and a complete list                | never: only what the Node says                               |
//!
//! Plain code without a clock.

use std::time::Duration;

use tokio::time::Instant;

/// How long without a word of Nodes. A list begins within milliseconds where an API server answers. A connection that
/// nobody answers is given up after three seconds and tried again, so this is two tries. Where no API server is, a node
/// that lost its conf is so much later Ready.
const SILENCE: Duration = Duration::from_secs(10);

/// How long in all: an API server that begins lists and never ends them is none.
const LONGEST: Duration = Duration::from_secs(60);

/// Since when a conf is held back, and until when at the longest.
#[derive(Debug, Default)]
pub struct ConfHold(Option<Hold>);

#[derive(Debug)]
struct Hold {
    begun: Instant,
    heard: Instant,
}

impl ConfHold {
    /// Begins now.
    pub fn begin(now: Instant) -> Self {
        Self(Some(Hold { begun: now, heard: now }))
    }

    /// The API server said something of Nodes.
    pub fn heard(&mut self, now: Instant) {
        if let Some(hold) = &mut self.0 {
            hold.heard = now;
        }
    }

    /// A conf is there.
    pub fn end(&mut self) {
        self.0 = None;
    }

    /// Whether the conf has to be what the API server says now, and nothing else.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// How much longer it is waited for the API server; `None` where it is no longer.
    pub fn left(&self, now: Instant) -> Option<Duration> {
        let hold = self.0.as_ref()?;
        let until = (hold.heard + SILENCE).min(hold.begun + LONGEST);
        Some(until.saturating_duration_since(now)).filter(|left| !left.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_ends_it_and_words_prolong_it_for_a_while() {
        let now = Instant::now();
        assert_eq!(ConfHold::default().left(now), None, "there is a conf");
        let mut hold = ConfHold::begin(now);
        assert_eq!(hold.left(now), Some(SILENCE));
        assert_eq!(hold.left(now + SILENCE), None);
        let mut at = now;
        while at < now + LONGEST {
            hold.heard(at);
            assert!(hold.left(at).is_some_and(|left| left <= SILENCE));
            at += SILENCE / 2;
        }
        hold.heard(at);
        assert_eq!(hold.left(at), None, "lists that never end");
        assert!(hold.is_on());
        hold.end();
        assert!(!hold.is_on());
    }
}
