//! What a command tells of itself: its steps and how long they took, in the log, once it is over; and what it is waiting
//! for, in its answer, if its time ends before it does.
//!
//! At `info` one line a command, with the time of each phase; at `debug` one line a step before it, and STATUS, which
//! runtimes ask for every few seconds.

use std::cell::{Cell, RefCell};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::cni::env::Command;
use crate::cni::error::{CniError, Code};
use crate::cni::request::Request;
use crate::config::Removal;
use crate::config::log::LogLevel;
use crate::log::{self, Entry};

/// What a step does, and so what a command that does not end is waiting for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Reads the conf from stdin.
    Request,
    /// Takes the store's lock.
    StoreLock,
    /// Takes the lock of one attachment.
    AttachmentLock,
    /// Reads or writes the store.
    Store,
    /// Executes another IPAM plugin.
    Delegate,
    /// Changes the nftables table.
    Nftables,
    /// Makes links, and what is on them.
    MakeLinks,
    /// Removes links.
    RemoveLinks,
    /// Writes the node's settings, routes and addresses.
    Node,
    /// Makes the routes to other nodes.
    PeerRoutes,
    /// Reads the kernel's state.
    Look,
}

impl Phase {
    /// Its key in the log; several phases may share one.
    fn key(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::StoreLock | Self::AttachmentLock => "lock",
            Self::Store | Self::Delegate => "ipam",
            Self::Nftables => "nft",
            Self::MakeLinks | Self::RemoveLinks => "link",
            Self::Node => "node",
            Self::PeerRoutes => "peers",
            Self::Look => "look",
        }
    }

    /// In words that follow "waiting for".
    fn waits_for(self) -> &'static str {
        match self {
            Self::Request => "the conf on stdin to end",
            Self::StoreLock => "the store's lock",
            Self::AttachmentLock => "another command on the same attachment",
            Self::Store => "the store's files",
            Self::Delegate => "the other IPAM plugin",
            Self::Nftables => "the kernel to change the nftables table",
            Self::MakeLinks => "the kernel to make the links",
            Self::RemoveLinks => "the kernel to remove the links",
            Self::Node => "the kernel to set up the node",
            Self::PeerRoutes => "the kernel to set the routes to other nodes",
            Self::Look => "the kernel to show its state",
        }
    }
}

/// The steps that are under way right now. For another thread, too: it may be the only one that still runs.
#[derive(Debug, Clone, Default)]
pub struct Running(Arc<Mutex<Vec<Phase>>>);

impl Running {
    fn begin(&self, phase: Phase) -> Begun<'_> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(phase);
        Begun { running: self, phase }
    }

    /// Does `work` as a step, before there is a command.
    pub fn during<T>(&self, phase: Phase, work: impl FnOnce() -> T) -> T {
        let _begun = self.begin(phase);
        work()
    }

    /// What is waited for, in words that follow "waiting for".
    pub fn waits_for(&self) -> String {
        let running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut waits: Vec<&str> = running.iter().map(|phase| phase.waits_for()).collect();
        waits.dedup();
        if waits.is_empty() { "the kernel or a file system".to_owned() } else { waits.join(", and for ") }
    }

    /// The answer of a command whose time is over.
    pub fn timeout_error(&self, command: &str, deadline: Duration) -> CniError {
        let message = format!("{command} did not finish within {deadline:?}");
        CniError::new(Code::TryAgain, message)
            .with_details(format!("it was waiting for {}; try again", self.waits_for()))
    }
}

/// A step that is under way until this is dropped.
struct Begun<'a> {
    running: &'a Running,
    phase: Phase,
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        let mut running = self.running.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = running.iter().rposition(|phase| *phase == self.phase) {
            running.remove(at);
        }
    }
}

/// The steps of one command, in the order in which they ended.
///
/// Work that is awaited as a step is boxed. Whoever hands a future on by value has room for it twice: an ADD's had
/// 45 KB, was copied from frame to frame, and touched 60 pages of stack.
#[derive(Debug)]
pub struct Steps {
    began: Instant,
    /// When the command must have ended; `None` if it may take as long as it takes.
    deadline: Cell<Option<Deadline>>,
    running: Running,
    ended: RefCell<Vec<Step>>,
    facts: RefCell<Vec<(&'static str, String)>>,
}

#[derive(Debug, Clone, Copy)]
struct Deadline {
    end: Instant,
    time: Duration,
}

#[derive(Debug, Clone, Copy)]
struct Step {
    phase: &'static str,
    took: Duration,
    /// Since the command began.
    at: Duration,
}

impl Default for Steps {
    fn default() -> Self {
        Self::new(Running::default())
    }
}

impl Steps {
    /// Steps that are told to `running` as well.
    pub fn new(running: Running) -> Self {
        Self {
            began: Instant::now(),
            deadline: Cell::default(),
            running,
            ended: RefCell::default(),
            facts: RefCell::default(),
        }
    }

    /// Does `work` as a step.
    pub fn time<T>(&self, phase: Phase, work: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        let begun = self.running.begin(phase);
        let done = work();
        drop(begun);
        self.record(phase.key(), began.elapsed());
        done
    }

    /// Awaits `work` as a step.
    pub fn time_async<'a, T: 'a>(
        &'a self,
        phase: Phase,
        work: impl Future<Output = T> + 'a,
    ) -> impl Future<Output = T> + 'a {
        let work = self.wait(phase, work);
        async move {
            let began = Instant::now();
            let done = work.await;
            self.record(phase.key(), began.elapsed());
            done
        }
    }

    /// Awaits `work` without a line of its own in the log.
    pub fn wait<'a, T: 'a>(
        &'a self,
        phase: Phase,
        work: impl Future<Output = T> + 'a,
    ) -> impl Future<Output = T> + 'a {
        let work = Box::pin(work);
        async move {
            let _begun = self.running.begin(phase);
            work.await
        }
    }

    /// A step that has just ended.
    pub fn record(&self, phase: &'static str, took: Duration) {
        self.ended.borrow_mut().push(Step { phase, took, at: self.began.elapsed() });
    }

    /// Something to be told with the command.
    pub fn note(&self, key: &'static str, value: String) {
        self.facts.borrow_mut().push((key, value));
    }

    /// Gives what begins now this much time.
    pub fn begin_deadline(&self, time: Duration) {
        self.deadline.set(Some(Deadline { end: Instant::now() + time, time }));
    }

    /// How long to wait for a lock: `most`, or what is left of the command's time.
    pub fn patience(&self, most: Duration) -> Duration {
        let left = self.deadline.get().map(|it| it.end.saturating_duration_since(Instant::now()));
        left.map_or(most, |left| left.min(most))
    }

    /// Awaits `work` until the command's time is over.
    ///
    /// # Errors
    /// Those of `work`; code 11 past the deadline, with what was being waited for.
    pub fn until_deadline<'a, T: 'a>(
        &'a self,
        command: &'a str,
        work: impl Future<Output = Result<T, CniError>> + 'a,
    ) -> impl Future<Output = Result<T, CniError>> + 'a {
        let mut work = Box::pin(work);
        async move {
            let Some(Deadline { end, time }) = self.deadline.get() else { return work.await };
            match tokio::time::timeout_at(end.into(), work.as_mut()).await {
                Ok(outcome) => outcome,
                // `work` is still there, and so are the steps that it began.
                Err(_) => Err(self.running.timeout_error(command, time)),
            }
        }
    }

    /// Each phase once, with the time of all its steps.
    fn phases(&self) -> Vec<(&'static str, Duration)> {
        let mut phases: Vec<(&'static str, Duration)> = Vec::new();
        for step in self.ended.borrow().iter() {
            match phases.iter_mut().find(|(phase, _)| *phase == step.phase) {
                Some((_, took)) => *took += step.took,
                None => phases.push((step.phase, step.took)),
            }
        }
        phases
    }
}

/// How far a command came; what must be known after a panic, and what the log tells.
#[derive(Debug, Default)]
pub struct Progress {
    claimed: Cell<bool>,
    /// What is told of it in the log.
    pub steps: Steps,
}

impl Progress {
    /// Progress whose steps are told to `running` as well.
    pub fn new(running: Running) -> Self {
        Self { claimed: Cell::default(), steps: Steps::new(running) }
    }

    /// This ADD has made something of its own.
    pub fn mark_claimed(&self) {
        self.claimed.set(true);
    }

    /// Whether this ADD has made something of its own. False as long as the attachment found may be
    /// somebody else's.
    pub fn has_claimed(&self) -> bool {
        self.claimed.get()
    }
}

/// Writes to the log how a command went. Of a conf that does not even name its network nothing is told: it does not
/// say where to, and the answer has it all.
pub fn tell(request: &Request, steps: &Steps, outcome: &Result<(), CniError>) {
    let Ok(removal) = Removal::read(&request.conf) else { return };
    let command = request.environment.command;
    let level = match (outcome, command) {
        (Err(_), _) => LogLevel::Error,
        (Ok(()), Command::Status | Command::Version) => LogLevel::Debug,
        (Ok(()), _) => LogLevel::Info,
    };
    if level > removal.log.level {
        return;
    }
    let subject = match request.environment.attachment(removal.name.clone()) {
        Ok(key) => ("attachment", key.to_string()),
        Err(_) => ("network", removal.name.to_string()),
    };
    let begin = |level| Entry::new(level).with("cmd", command.as_str()).with(subject.0, &subject.1);
    let steps_of = |step: &Step| {
        let entry = begin(LogLevel::Debug).with("step", step.phase);
        entry.with("at", &milliseconds(step.at)).with("took", &milliseconds(step.took))
    };
    let mut entries: Vec<Entry> = steps.ended.borrow().iter().map(steps_of).collect();

    let mut summary = begin(level);
    if let Some(pod) = &request.environment.args.pod {
        summary = summary.with("pod", &pod.to_string());
    }
    for (key, value) in steps.facts.borrow().iter() {
        summary = summary.with(key, value);
    }
    summary = summary.with("took", &milliseconds(steps.began.elapsed()));
    for (phase, took) in steps.phases() {
        summary = summary.with(phase, &milliseconds(took));
    }
    if let Err(error) = outcome {
        summary = summary.with("code", &error.code.number().to_string()).with("msg", &error.to_string());
    }
    entries.push(summary);
    log::write(&removal.log, &entries);
}

fn milliseconds(duration: Duration) -> String {
    format!("{:.3}ms", duration.as_secs_f64() * 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phase_is_the_sum_of_its_steps() {
        let steps = Steps::default();
        for (phase, took) in [("lock", 1), ("ipam", 2), ("lock", 4)] {
            steps.record(phase, Duration::from_millis(took));
        }
        let millis = |count| Duration::from_millis(count);
        assert_eq!(steps.phases(), [("lock", millis(5)), ("ipam", millis(2))]);
        assert_eq!(milliseconds(Duration::from_micros(1_234)), "1.234ms");
    }

    #[test]
    fn past_the_deadline_the_answer_says_what_was_waited_for() {
        let steps = Steps::default();
        steps.begin_deadline(Duration::from_millis(20));
        assert!(steps.patience(Duration::from_secs(5)) <= Duration::from_millis(20));
        let work = steps.time_async(Phase::RemoveLinks, std::future::pending::<Result<(), CniError>>());
        let error = crate::attachments::block_on(steps.until_deadline("DEL", work)).unwrap_err();
        assert_eq!(error.code, Code::TryAgain);
        assert_eq!(error.message, "DEL did not finish within 20ms");
        assert_eq!(error.details, "it was waiting for the kernel to remove the links; try again");
        // What was given up is under way no longer.
        assert_eq!(steps.running.waits_for(), "the kernel or a file system");
    }

    #[test]
    fn several_waits_are_told_together() {
        let steps = Steps::default();
        steps.time(Phase::Nftables, || {
            steps.time(Phase::MakeLinks, || {
                assert_eq!(
                    steps.running.waits_for(),
                    "the kernel to change the nftables table, and for the kernel to make the links"
                );
            });
        });
    }
}
