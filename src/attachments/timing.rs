//! What a command tells of itself: its steps and how long they took, in the log, once it is over.
//!
//! At `info` one line a command, with the time of each phase; at `debug` one line a step before it, and STATUS, which
//! runtimes ask for every few seconds.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use crate::cni::env::Command;
use crate::cni::error::CniError;
use crate::cni::request::Request;
use crate::config::Removal;
use crate::config::log::LogLevel;
use crate::log::{self, Entry};

/// The steps of one command, in the order in which they ended.
#[derive(Debug)]
pub struct Steps {
    began: Instant,
    ended: RefCell<Vec<Step>>,
    facts: RefCell<Vec<(&'static str, String)>>,
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
        Self { began: Instant::now(), ended: RefCell::default(), facts: RefCell::default() }
    }
}

impl Steps {
    /// Does `work` as a step of `phase`.
    pub fn time<T>(&self, phase: &'static str, work: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        let done = work();
        self.record(phase, began.elapsed());
        done
    }

    /// Awaits `work` as a step of `phase`.
    pub async fn time_async<T>(&self, phase: &'static str, work: impl Future<Output = T>) -> T {
        let began = Instant::now();
        let done = work.await;
        self.record(phase, began.elapsed());
        done
    }

    /// A step that has just ended.
    pub fn record(&self, phase: &'static str, took: Duration) {
        self.ended.borrow_mut().push(Step { phase, took, at: self.began.elapsed() });
    }

    /// Something to be told with the command.
    pub fn note(&self, key: &'static str, value: String) {
        self.facts.borrow_mut().push((key, value));
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
}
