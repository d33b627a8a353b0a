//! The model: who has which addresses, and what may be answered. It knows no file, no link and no process.
//!
//! Of a command that came to its end alone it says exactly what must be there afterwards. Of one that was killed, and
//! of several at once, it says what each pod may have come to, takes what it sees, and goes on from there.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use super::step::{Command, Conf, Pod};

/// What a command answered.
#[derive(Clone, PartialEq, Eq)]
pub enum Answer {
    /// ADD: these addresses, one for each range set.
    Given(Vec<IpAddr>),
    /// A success that says nothing.
    Done,
    /// An error of this code.
    Refused(u64),
}

/// The range has run out.
pub const EXHAUSTED: u64 = 100;
/// The attachment stands already.
pub const ATTACHED: u64 = 101;
/// The kernel refused; of an ADD, only when a DEL of the same pod came between.
const REFUSED_BY_KERNEL: u64 = 103;
/// CHECK found something.
pub const DIFFERENT: u64 = 105;

/// What became of an attachment that has a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Life {
    /// The pod is there, with its link.
    Whole,
    /// The pod is there, and its link is not, or not finished. It keeps its addresses; an ADD begins anew.
    Unfinished,
    /// The pod is not there. It keeps its addresses until somebody needs them.
    Dead,
}

/// What an attachment holds.
#[derive(Clone, PartialEq, Eq)]
pub struct Held {
    pub addresses: Vec<IpAddr>,
    pub life: Life,
}

/// What was seen after a step.
pub struct Seen {
    /// The attachments that have a record.
    pub pods: BTreeMap<Pod, Held>,
    /// Somebody has been there since the node booted; before that, what is on disk means nothing.
    pub is_of_this_boot: bool,
    /// What a command that died has left for the next one to tidy up.
    pub left: Vec<String>,
}

/// Why the model does not agree.
type Verdict = Result<(), String>;

/// What must hold.
pub struct Model {
    room: Vec<BTreeSet<IpAddr>>,
    pods: BTreeMap<Pod, Held>,
    /// A command has had the store's lock since the last boot.
    is_swept: bool,
    /// And one since the last kill.
    is_tidy: bool,
}

impl Model {
    pub fn new(conf: Conf) -> Self {
        Self { room: conf.room(), pods: BTreeMap::new(), is_swept: false, is_tidy: true }
    }

    pub fn reconfigure(&mut self, conf: Conf) {
        self.room = conf.room();
    }

    pub fn die(&mut self, pod: Pod) {
        self.pods.entry(pod).and_modify(|held| held.life = Life::Dead);
    }

    pub fn unplug(&mut self, pod: Pod) {
        self.pods.entry(pod).and_modify(|held| {
            if held.life == Life::Whole {
                held.life = Life::Unfinished;
            }
        });
    }

    pub fn reboot(&mut self) {
        self.pods.clear();
        self.is_swept = false;
    }

    /// A command came to its end, with nobody beside it.
    pub fn answered(&mut self, command: &Command, answer: &Answer) -> Verdict {
        let expected = match command {
            Command::Add(pod) => return self.added(*pod, answer),
            Command::Check(pod) if self.stands(*pod) => Answer::Done,
            Command::Check(_) => Answer::Refused(DIFFERENT),
            Command::Del(_) | Command::Gc(_) => {
                self.pods.retain(|pod, _| !command.removes(*pod));
                (self.is_swept, self.is_tidy) = (true, true);
                Answer::Done
            }
        };
        demand(*answer == expected, || format!("{command} must be answered with: {expected}"))
    }

    fn added(&mut self, pod: Pod, answer: &Answer) -> Verdict {
        (self.is_swept, self.is_tidy) = (true, true);
        if self.stands(pod) {
            return demand(*answer == Answer::Refused(ATTACHED), || format!("{pod} is attached already"));
        }
        self.pods.remove(&pod);
        if !self.has_room() {
            self.pods.retain(|_, held| held.life != Life::Dead);
        }
        match answer {
            Answer::Given(addresses) => {
                self.may_have(addresses, &self.pods)?;
                self.pods.insert(pod, Held { addresses: addresses.clone(), life: Life::Whole });
                Ok(())
            }
            Answer::Refused(EXHAUSTED) if !self.has_room() => Ok(()),
            _ if self.has_room() => Err(format!("there is room for {pod}")),
            _ => Err(format!("there is no room for {pod}, which is code {EXHAUSTED}")),
        }
    }

    /// What is there after a step must be what the model has.
    pub fn compare(&self, seen: &Seen) -> Verdict {
        if !seen.is_of_this_boot {
            return demand(!self.is_swept, || "the store is still that of an earlier boot".to_owned());
        }
        for pod in Pod::all() {
            let (must, is) = (self.pods.get(&pod), seen.pods.get(&pod));
            demand(must == is, || format!("{pod} must hold {}, and holds {}", tell(must), tell(is)))?;
        }
        demand(!self.is_tidy || seen.left.is_empty(), || format!("left behind: {}", seen.left.join(", ")))
    }

    /// Commands ran at once, or one was killed (which then has no answer). What is there must be what they may have
    /// come to, and is what the model goes on with.
    pub fn settle(&mut self, commands: &[Command], answers: &[Option<Answer>], seen: &Seen) -> Verdict {
        let locks = |command: &Command| !matches!(command, Command::Check(_));
        let has_locked = commands.iter().zip(answers).any(|(it, answer)| answer.is_some() && locks(it));
        (self.is_swept, self.is_tidy) = (self.is_swept || has_locked, has_locked);
        if answers.iter().all(Option::is_some) {
            self.judge_answers(commands, answers)?;
        }
        if !seen.is_of_this_boot {
            self.is_swept = has_locked;
            return self.compare(seen);
        }
        let removed = |pod: Pod| commands.iter().any(|it| it.removes(pod));
        let begins_anew =
            |it: &Command| matches!(it, Command::Add(pod) if removed(*pod) || !self.stands(*pod));
        let reclaims = commands.iter().any(begins_anew);
        for pod in Pod::all() {
            let (before, after) = (self.pods.get(&pod), seen.pods.get(&pod));
            let removed = removed(pod);
            let adders = commands.iter().filter(|it| it.adds(pod)).count();
            let must_be_gone = removed && adders == 0 && answers.iter().all(Option::is_some);
            demand(after.is_none() || !must_be_gone, || {
                format!("{pod} was removed, and holds {}", tell(after))
            })?;
            if before == after {
                continue;
            }
            let added = adders > 0 && (removed || !self.stands(pod));
            let is_dead = before.is_some_and(|held| held.life == Life::Dead);
            let is_allowed = match (before, after) {
                (_, None) => removed || added || (is_dead && reclaims),
                // The link goes first, the record last.
                (Some(old), Some(new)) if old.addresses == new.addresses && new.life == Life::Unfinished => {
                    removed || added
                }
                (_, Some(new)) => {
                    let others = seen.pods.iter().filter(|(other, _)| **other != pod);
                    self.may_have(&new.addresses, &others.map(|(pod, held)| (*pod, held.clone())).collect())?;
                    added
                }
            };
            demand(is_allowed, || format!("{pod} held {}, and holds {}", tell(before), tell(after)))?;
        }
        for (command, answer) in commands.iter().zip(answers) {
            if let (Command::Add(pod), Some(Answer::Given(addresses))) = (command, answer)
                && !commands.iter().any(|it| it.removes(*pod))
            {
                let must = Held { addresses: addresses.clone(), life: Life::Whole };
                let is = seen.pods.get(pod);
                demand(is == Some(&must), || {
                    format!("{pod} was given {}, and holds {}", tell(Some(&must)), tell(is))
                })?;
            }
        }
        self.pods = seen.pods.clone();
        self.compare(seen)
    }

    /// What commands may answer that ran at once.
    fn judge_answers(&self, commands: &[Command], answers: &[Option<Answer>]) -> Verdict {
        let removed = |pod: Pod| commands.iter().any(|it| it.removes(pod));
        let adders = |pod: Pod| commands.iter().filter(|it| it.adds(pod)).count();
        let mut given = BTreeSet::new();
        for (command, answer) in commands.iter().zip(answers.iter().flatten()) {
            let is_right = match (command, answer) {
                (Command::Del(_) | Command::Gc(_), answer) => *answer == Answer::Done,
                (Command::Check(pod), Answer::Done) => self.stands(*pod) || adders(*pod) > 0,
                (Command::Check(pod), answer) => {
                    *answer == Answer::Refused(DIFFERENT) && (!self.stands(*pod) || removed(*pod))
                }
                (Command::Add(pod), Answer::Given(_)) => {
                    (!self.stands(*pod) && given.insert(*pod)) || removed(*pod)
                }
                (Command::Add(pod), Answer::Refused(ATTACHED)) => {
                    self.stands(*pod) || removed(*pod) || adders(*pod) > 1
                }
                (Command::Add(pod), Answer::Refused(EXHAUSTED)) => !self.stands(*pod) || removed(*pod),
                (Command::Add(pod), Answer::Refused(REFUSED_BY_KERNEL)) => removed(*pod),
                (Command::Add(_), _) => false,
            };
            demand(is_right, || format!("{command} must not be answered with: {answer}"))?;
        }
        // Those that want an address get one, as far as there are addresses of nobody who lives. One that lives and is
        // being removed meanwhile counts as living, since nobody can say who came first.
        let wanting: BTreeSet<Pod> =
            Pod::all().filter(|pod| adders(*pod) > 0 && !self.stands(*pod) && !removed(*pod)).collect();
        let keeps = |pod: Pod, life| !wanting.contains(&pod) && life != Life::Dead;
        let keepers = self.pods.iter().filter(|(pod, held)| keeps(**pod, held.life));
        let kept: BTreeSet<&IpAddr> = keepers.flat_map(|(_, held)| &held.addresses).collect();
        let others = Pod::all().filter(|pod| adders(*pod) > 0 && removed(*pod)).count();
        let free = self.room.iter().map(|set| set.iter().filter(|it| !kept.contains(it)).count()).min();
        let least = wanting.len().min(free.unwrap_or_default().saturating_sub(others));
        let got = wanting.intersection(&given).count();
        demand(got >= least, || format!("{got} pods were given an address, and there was room for {least}"))
    }

    /// Refused unless these are one address of each range set, of which the others have none.
    fn may_have(&self, addresses: &[IpAddr], others: &BTreeMap<Pod, Held>) -> Verdict {
        demand(addresses.len() == self.room.len(), || format!("{} addresses", addresses.len()))?;
        for (address, set) in addresses.iter().zip(&self.room) {
            demand(set.contains(address), || format!("{address} is outside of the range"))?;
            let holder = others.iter().find(|(_, held)| held.addresses.contains(address));
            if let Some((holder, _)) = holder {
                return Err(format!("{address} is held by {holder}"));
            }
        }
        Ok(())
    }

    /// Whether an ADD of the pod must be refused: it is attached already.
    fn stands(&self, pod: Pod) -> bool {
        self.pods.get(&pod).is_some_and(|held| held.life == Life::Whole)
    }

    /// Whether each range set has an address that nobody holds.
    fn has_room(&self) -> bool {
        let is_held = |address: &IpAddr| self.pods.values().any(|held| held.addresses.contains(address));
        self.room.iter().all(|set| set.iter().any(|address| !is_held(address)))
    }
}

fn demand(holds: bool, why: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { Err(why()) }
}

fn tell(held: Option<&Held>) -> String {
    let Some(Held { addresses, life }) = held else { return "nothing".to_owned() };
    format!("{} ({life:?})", list(addresses))
}

fn list(addresses: &[IpAddr]) -> String {
    addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(" ")
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Given(addresses) => f.write_str(&list(addresses)),
            Self::Done => f.write_str("done"),
            Self::Refused(code) => write!(f, "code {code}"),
        }
    }
}
