//! Whether the API server is still heard after a change of routes. If not, the last change is what is suspected first.
//!
//! | state      | begins when                                                 | ends when                                     |
//! |------------|-------------------------------------------------------------|-----------------------------------------------|
//! | calm       |                                                             | routes to podCIDRs are set that are new       |
//! | on trial   | they were set                                               | the API server is heard: they are trusted     |
//! | withdrawn  | nothing was heard for [`SILENCE`], though it was asked      | it is heard: they stay withdrawn, and are tried again after a pause that grows; or it is not within [`PUT_BACK`]: they are put back, since the cause is another |
//!
//! Plain code without a clock.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use ipnetwork::IpNetwork;
use tokio::time::Instant;

/// What comes earlier after a change may have been under way before it.
const SETTLED: Duration = Duration::from_secs(2);

/// After how much silence the API server is asked.
const QUIET: Duration = Duration::from_secs(5);

/// After how much silence routes are withdrawn.
const SILENCE: Duration = Duration::from_secs(10);

/// How many questions must have had no answer by then.
const UNANSWERED: u32 = 2;

/// How long it is waited for the API server without them.
const PUT_BACK: Duration = Duration::from_secs(15);

/// After what pause a route that is to blame is tried again; each further one is twice as long.
const AGAIN: Duration = Duration::from_secs(300);

/// The longest of these pauses, in doublings.
const DOUBLINGS: u32 = 4;

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Ask the API server for a word.
    Ask,
    /// Other podCIDRs than before get no route: see [`Probation::suspects`].
    Withdraw,
    /// The same, because the API server is silent without them too.
    PutBack,
    /// The same, because time has passed.
    TryAgain,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Calm,
    OnTrial {
        since: Instant,
        unanswered: u32,
    },
    Withdrawn {
        since: Instant,
        suspects: BTreeSet<IpNetwork>,
    },
}

/// The podCIDRs that have routes, as far as it matters whether the API server was heard with them.
#[derive(Debug, Default)]
pub struct Probation {
    state: State,
    trusted: HashSet<IpNetwork>,
    on_trial: BTreeSet<IpNetwork>,
    /// Those that are to blame: how often they were, and when they are tried again.
    blamed: BTreeMap<IpNetwork, (u32, Instant)>,
    /// Those that are tried again, and how often they were to blame.
    before: BTreeMap<IpNetwork, u32>,
}

impl Probation {
    /// Trusts these from the beginning.
    pub fn trusting(trusted: impl Iterator<Item = IpNetwork>) -> Self {
        Self { trusted: trusted.collect(), ..Self::default() }
    }

    /// Routes to these were set; there are no others.
    pub fn applied(&mut self, now: Instant, cidrs: impl Iterator<Item = IpNetwork>) {
        let cidrs: HashSet<IpNetwork> = cidrs.collect();
        self.trusted.retain(|cidr| cidrs.contains(cidr));
        self.on_trial.retain(|cidr| cidrs.contains(cidr));
        let new: Vec<IpNetwork> = cidrs
            .into_iter()
            .filter(|cidr| !self.trusted.contains(cidr) && !self.on_trial.contains(cidr))
            .collect();
        if new.is_empty() {
            return;
        }
        self.on_trial.extend(new);
        if !matches!(self.state, State::Withdrawn { .. }) {
            self.state = State::OnTrial { since: now, unanswered: 0 };
        }
    }

    /// The API server was heard. Whether podCIDRs turned out to be to blame for its silence.
    pub fn heard(&mut self, now: Instant) -> bool {
        match std::mem::take(&mut self.state) {
            State::Calm => false,
            State::OnTrial { since, .. } if now.duration_since(since) < SETTLED => {
                self.state = State::OnTrial { since, unanswered: 0 };
                false
            }
            State::OnTrial { .. } => {
                self.trust();
                false
            }
            State::Withdrawn { since, suspects } if now.duration_since(since) < SETTLED => {
                self.state = State::Withdrawn { since, suspects };
                false
            }
            State::Withdrawn { suspects, .. } => {
                for cidr in suspects {
                    let times = self.before.remove(&cidr).unwrap_or(0);
                    let pause = AGAIN.saturating_mul(1 << times.min(DOUBLINGS));
                    self.blamed.insert(cidr, (times + 1, now + pause));
                }
                self.trust();
                true
            }
        }
    }

    /// A question to the API server had no answer.
    pub fn unanswered(&mut self) {
        if let State::OnTrial { unanswered, .. } = &mut self.state {
            *unanswered += 1;
        }
    }

    /// What is to be done now, if anything.
    pub fn tick(&mut self, now: Instant) -> Option<Action> {
        match &self.state {
            State::Calm => {
                let due: Vec<IpNetwork> =
                    self.blamed.iter().filter(|(_, (_, at))| *at <= now).map(|(cidr, _)| *cidr).collect();
                for cidr in &due {
                    let times = self.blamed.remove(cidr).map_or(0, |(times, _)| times);
                    self.before.insert(*cidr, times);
                }
                (!due.is_empty()).then_some(Action::TryAgain)
            }
            State::OnTrial { since, unanswered } => {
                let silence = now.duration_since(*since);
                if silence >= SILENCE && *unanswered >= UNANSWERED {
                    self.state =
                        State::Withdrawn { since: now, suspects: std::mem::take(&mut self.on_trial) };
                    return Some(Action::Withdraw);
                }
                (silence >= QUIET).then_some(Action::Ask)
            }
            State::Withdrawn { since, suspects } if now.duration_since(*since) >= PUT_BACK => {
                self.trusted.extend(suspects);
                self.trust();
                self.state = State::Calm;
                Some(Action::PutBack)
            }
            State::Withdrawn { .. } => Some(Action::Ask),
        }
    }

    /// The podCIDRs that get no route for now.
    pub fn suspects(&self) -> BTreeSet<IpNetwork> {
        let withdrawn = match &self.state {
            State::Withdrawn { suspects, .. } => suspects.clone(),
            _ => BTreeSet::new(),
        };
        self.blamed.keys().copied().chain(withdrawn).collect()
    }

    /// The podCIDRs with whose routes the API server was not heard yet.
    pub fn on_trial(&self) -> &BTreeSet<IpNetwork> {
        &self.on_trial
    }

    fn trust(&mut self) {
        for cidr in std::mem::take(&mut self.on_trial) {
            self.before.remove(&cidr);
            self.trusted.insert(cidr);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidrs(numbers: &[u8]) -> BTreeSet<IpNetwork> {
        numbers.iter().map(|number| format!("10.244.{number}.0/24").parse().unwrap()).collect()
    }

    /// Routes to 1 and 2 are set, 1 is trusted already.
    fn begun(now: Instant) -> Probation {
        let mut probation = Probation::trusting(cidrs(&[1]).into_iter());
        probation.applied(now, cidrs(&[1, 2]).into_iter());
        assert_eq!(probation.on_trial(), &cidrs(&[2]));
        probation
    }

    fn withdrawn(now: Instant) -> Probation {
        let mut probation = begun(now);
        assert_eq!(probation.tick(now + QUIET), Some(Action::Ask));
        assert_eq!(probation.tick(now + SILENCE), Some(Action::Ask), "not without an unanswered question");
        (0..UNANSWERED).for_each(|_| probation.unanswered());
        assert_eq!(probation.tick(now + SILENCE), Some(Action::Withdraw));
        assert_eq!(probation.suspects(), cidrs(&[2]));
        probation.applied(now + SILENCE, cidrs(&[1]).into_iter());
        probation
    }

    #[test]
    fn a_word_after_the_change_ends_the_trial() {
        let now = Instant::now();
        let mut probation = begun(now);
        assert_eq!(probation.tick(now), None);
        assert!(!probation.heard(now), "it may have been under way");
        assert_eq!(probation.on_trial(), &cidrs(&[2]));
        assert!(!probation.heard(now + SETTLED));
        assert!(probation.on_trial().is_empty());
        probation.applied(now + SETTLED, cidrs(&[1, 2]).into_iter());
        assert_eq!(probation.tick(now + SILENCE), None);
    }

    #[test]
    fn what_took_the_api_server_away_is_tried_again_later() {
        let now = Instant::now();
        let mut probation = withdrawn(now);
        let mut at = now + SILENCE + SETTLED;
        for times in [1, 2, 4, 8, 16, 16] {
            assert!(probation.heard(at));
            assert_eq!((probation.suspects(), probation.tick(at)), (cidrs(&[2]), None));
            at += AGAIN * times;
            assert_eq!(probation.tick(at - SETTLED), None);
            assert_eq!((probation.tick(at), probation.suspects().len()), (Some(Action::TryAgain), 0));
            probation.applied(at, cidrs(&[1, 2]).into_iter());
            (0..UNANSWERED).for_each(|_| probation.unanswered());
            at += SILENCE;
            assert_eq!(probation.tick(at), Some(Action::Withdraw));
            at += SETTLED;
        }
    }

    #[test]
    fn routes_come_back_if_they_are_not_the_cause() {
        let now = Instant::now();
        let mut probation = withdrawn(now);
        let at = now + SILENCE + PUT_BACK;
        assert_eq!((probation.tick(at), probation.suspects().len()), (Some(Action::PutBack), 0));
        probation.applied(at, cidrs(&[1, 2]).into_iter());
        probation.unanswered();
        probation.unanswered();
        assert_eq!(probation.tick(at + SILENCE), None, "once");
    }
}
