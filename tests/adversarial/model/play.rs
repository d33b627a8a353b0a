//! Playing sequences to a subject, with the model beside it; and telling of the shortest that fails.

use std::any::Any;
use std::collections::BTreeSet;
use std::fmt::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestError, TestRunner};

use super::law::{Answer, Model, Seen};
use super::step::{Command, Conf, Pod, Step};

/// What is held against the model.
pub trait Subject {
    /// Runs a command to its end.
    fn run(&mut self, command: &Command) -> Answer;
    /// Has a command die before its `at`th change. The answer, if it came to its end before.
    fn kill(&mut self, command: &Command, at: u16) -> Option<Answer>;
    /// Runs all of them at the same time.
    fn run_at_once(&mut self, commands: &[Command]) -> Vec<Answer>;
    /// Removes the pod's namespace.
    fn die(&mut self, pod: Pod);
    /// Removes the pod's link.
    fn unplug(&mut self, pod: Pod);
    /// Ends everything that no boot outlives.
    fn reboot(&mut self);
    /// Has further commands be given that conf.
    fn reconfigure(&mut self, conf: Conf);
    /// Has everything that has a time be so many seconds older.
    fn wait(&mut self, seconds: u64);
    /// Reads what there is, never by the code under test.
    ///
    /// # Errors
    /// What is wrong whatever the model says: two parts of what was read contradict each other.
    fn look(&mut self) -> Result<Seen, String>;
}

/// Plays `cases` sequences of 1 to `longest` steps, each on a subject of its own. PROPTEST_CASES plays more or fewer,
/// PROPTEST_RNG_SEED others.
///
/// A race does not come out the same each time. While a failure shrinks, a sequence in which commands run at once
/// counts as one that passes after so many `attempts`.
#[allow(clippy::print_stderr, reason = "how much was done; the test runner shows it to whoever asks")]
pub fn play_all<S: Subject>(
    cases: u32,
    longest: usize,
    attempts: usize,
    step: impl Strategy<Value = Step>,
    subject: impl Fn() -> S,
) {
    let (played, has_failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let mut config = Config { failure_persistence: None, max_shrink_iters: 2_000, ..Config::default() };
    let is_given = |name| std::env::var_os(name).is_some();
    if !is_given("PROPTEST_CASES") {
        config.cases = cases;
    }
    if !is_given("PROPTEST_RNG_SEED") {
        config.rng_seed = RngSeed::Fixed(6);
    }
    if !is_given("PROPTEST_MAX_SHRINK_TIME") {
        config.max_shrink_time = 120_000;
    }
    let cases = config.cases;
    let sequences = proptest::collection::vec(step, 1..=longest);
    let outcome = TestRunner::new(config).run(&sequences, |steps| {
        let is_race = steps.iter().any(|step| matches!(step, Step::AtOnce(_)));
        let attempts = if is_race && has_failed.load(Ordering::Relaxed) { attempts } else { 1 };
        for _ in 0..attempts {
            if let Err(story) = play(&mut subject(), &steps, &played) {
                has_failed.store(true, Ordering::Relaxed);
                return Err(TestCaseError::fail(story));
            }
        }
        Ok(())
    });
    match outcome {
        Ok(()) => eprintln!("{cases} sequences, {} steps", played.load(Ordering::Relaxed)),
        Err(TestError::Fail(story, _)) => panic!("{story}"),
        Err(abort) => panic!("{abort}"),
    }
}

/// At the end of the day: everything goes, and then the range can be filled to its last address.
fn ending() -> impl Iterator<Item = Step> {
    let sweep = Command::Gc(BTreeSet::new());
    std::iter::once(sweep).chain(Pod::all().map(Command::Add)).map(Step::Run)
}

/// Plays one sequence.
///
/// # Errors
/// What does not hold, and the way there.
fn play(subject: &mut impl Subject, steps: &[Step], played: &AtomicUsize) -> Result<(), String> {
    let mut model = Model::new(Conf::FIRST);
    let mut told = String::new();
    for step in steps.iter().cloned().chain(ending()) {
        let _ = write!(told, "    {step}");
        // The subject panics on what no runtime could make sense of.
        let taken = AssertUnwindSafe(|| take(subject, &mut model, &step, &mut told));
        let outcome = catch_unwind(taken).unwrap_or_else(|panic| Err(words_of(&*panic)));
        told.push('\n');
        played.fetch_add(1, Ordering::Relaxed);
        outcome.map_err(|why| format!("{why}\nThe shortest way there that was found:\n{told}"))?;
    }
    Ok(())
}

fn words_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned())).unwrap_or_default()
}

fn take(subject: &mut impl Subject, model: &mut Model, step: &Step, told: &mut String) -> Result<(), String> {
    match step {
        Step::Run(command) => {
            let answer = subject.run(command);
            let _ = write!(told, " -> {answer}");
            model.answered(command, &answer)?;
        }
        Step::Kill(command, at) => match subject.kill(command, *at) {
            Some(answer) => {
                let _ = write!(told, " (not reached) -> {answer}");
                model.answered(command, &answer)?;
            }
            None => return model.settle(std::slice::from_ref(command), &[None], &subject.look()?),
        },
        Step::AtOnce(commands) => {
            let answers = subject.run_at_once(commands);
            let texts: Vec<String> = answers.iter().map(Answer::to_string).collect();
            let _ = write!(told, " -> {}", texts.join(" | "));
            let answers: Vec<_> = answers.into_iter().map(Some).collect();
            return model.settle(commands, &answers, &subject.look()?);
        }
        Step::Die(pod) => {
            subject.die(*pod);
            model.die(*pod);
        }
        Step::Unplug(pod) => {
            subject.unplug(*pod);
            model.unplug(*pod);
        }
        Step::Reboot => {
            subject.reboot();
            model.reboot();
        }
        Step::Reconfigure(conf) => {
            subject.reconfigure(*conf);
            model.reconfigure(*conf);
        }
        Step::Wait(halves) => subject.wait(30 * u64::from(*halves)),
    }
    model.compare(&subject.look()?)
}
