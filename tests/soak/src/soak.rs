//! What all who take part share, and the order of the whole: callers and vandals at work, quiet moments in between, and
//! the end, at which every address must be there again.

use crate::Failure;
use crate::beside::{collect, vandalise};
use crate::call::{Call, Ended, Plugin, Verb};
use crate::caller::Caller;
use crate::check::Checker;
use crate::finish::finish;
use crate::node::Node;
use crate::runtime::Runtime;
use crate::system::{End, Namespaces, lock};
use crate::tally::Tally;
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::thread;
use std::time::{Duration, Instant};

/// Time between two quiet moments.
const INTERVAL: Duration = Duration::from_secs(10);

/// How many calls are remembered, to tell what came before a fault.
const MEMORY: usize = 20_000;

/// How many of them are told.
const TOLD: usize = 60;

/// A run.
pub struct Soak {
    /// The node.
    pub node: Node,
    /// The plugin.
    pub plugin: Plugin,
    /// Namespaces for pods.
    pub namespaces: Namespaces,
    /// What the runtime knows.
    pub runtime: Runtime,
    /// Numbers.
    pub tally: Tally,
    /// The end of the run.
    pub end: End,
    /// Where chance comes from.
    pub seed: u64,
    turns: RwLock<()>,
    faults: Mutex<Vec<String>>,
    history: Mutex<VecDeque<String>>,
}

impl Soak {
    /// A run that has not begun.
    pub fn new(node: Node, plugin: Plugin, seed: u64) -> Self {
        Self {
            node,
            plugin,
            namespaces: Namespaces::default(),
            runtime: Runtime::default(),
            tally: Tally::default(),
            end: End::default(),
            seed,
            turns: RwLock::default(),
            faults: Mutex::default(),
            history: Mutex::default(),
        }
    }

    /// All of it.
    ///
    /// # Errors
    /// Whatever was not as it must be, with what came before.
    pub fn run_for(&self, duration: Duration, callers: u64, say: impl Fn(&str)) -> Result<(), Failure> {
        let mut checker = Checker::begin(self)?;
        let began = Instant::now();
        thread::scope(|scope| {
            for number in 0..callers {
                scope.spawn(move || Caller::new(self, number).work());
            }
            scope.spawn(|| collect(self));
            scope.spawn(|| vandalise(self));
            while began.elapsed() < duration && !self.end.wait(INTERVAL.min(duration)) {
                self.have_quiet(&mut checker, &say);
            }
            self.end.announce();
        });
        if lock(&self.faults).is_empty() {
            let finished = finish(self, &mut checker);
            self.expect(finished);
        }
        let (summary, grown) = self.tally.summary();
        say(&summary);
        lock(&self.faults).extend(grown);
        self.verdict()
    }

    /// Nobody does anything meanwhile.
    fn have_quiet(&self, checker: &mut Checker, say: &impl Fn(&str)) {
        let _alone = self.turns.write().unwrap_or_else(PoisonError::into_inner);
        if self.end.is_near() {
            return;
        }
        match checker.look(self) {
            Ok(()) => say(&self.tally.turn_the_page(self.runtime.pods().len(), &self.node.store)),
            Err(failure) => self.expect(Err(failure)),
        }
    }

    /// Keeps quiet moments off as long as it is held.
    pub fn take_turn(&self) -> RwLockReadGuard<'_, ()> {
        self.turns.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Executes a call, and remembers it.
    pub fn run(&self, call: &Call) -> Result<Ended, Failure> {
        let ended = self.plugin.run(call, &self.end)?;
        self.tally.count(call.verb, &ended);
        let container = call.attachment.as_ref().map(|(id, netns)| format!("{id} {}", netns.display()));
        self.note(&format!(
            "{} {} {}, took {:?}: {}",
            call.verb.name(),
            container.unwrap_or_default(),
            call.blow.as_ref().map(|blow| format!("{blow:?}")).unwrap_or_default(),
            ended.elapsed,
            ended.outcome
        ));
        Ok(ended)
    }

    /// Remembers what was done.
    pub fn note(&self, deed: &str) {
        let mut history = lock(&self.history);
        if history.len() == MEMORY {
            history.pop_front();
        }
        history.push_back(format!("{:?} {deed}", self.tally.elapsed()));
    }

    /// What is not as it must be ends the run.
    pub fn expect(&self, done: Result<(), Failure>) {
        if let Err(failure) = done {
            lock(&self.faults).push(failure.to_string());
            self.end.announce();
        }
    }

    fn verdict(&self) -> Result<(), Failure> {
        let faults = lock(&self.faults);
        if faults.is_empty() {
            return Ok(());
        }
        let history = lock(&self.history);
        // Who is meant may be told by the name of a link or by an address alone; the result of the ADD has both.
        let named: Vec<&str> = faults.iter().flat_map(|fault| names(fault)).collect();
        let meant: Vec<&str> = history
            .iter()
            .filter(|line| named.iter().any(|name| line.contains(name)))
            .flat_map(|line| names(line).filter(|name| is_id(name)))
            .collect();
        let concerned = |line: &&String| {
            let mut ids = names(line).filter(|name| is_id(name)).peekable();
            (ids.peek().is_none() && !line.contains(Verb::Status.name())) || ids.any(|id| meant.contains(&id))
        };
        let told: Vec<&str> = history.iter().filter(concerned).map(String::as_str).collect();
        let told = told.get(told.len().saturating_sub(TOLD)..).unwrap_or_default();
        Err(format!("{}\nwhat came before:\n{}", faults.join("\n"), told.join("\n")).into())
    }
}

/// The words of a text that may be somebody's name: container ids, links.
fn names(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric());
    words.filter(|word| is_id(word) || (word.starts_with("veth") && word.len() > 4))
}

fn is_id(word: &str) -> bool {
    word.len() == 64
}
