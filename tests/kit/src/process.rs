//! Programs of the system, run to their end. Nothing lasts for ever: see [`PATIENCE`].

use std::ffi::OsStr;
use std::fmt;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};

use crate::netns::Namespace;

/// After this a plugin is killed, with all that it started: a hang fails a test, and blocks none. Nothing that works
/// takes as long, be the machine busy with all other tests.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The same for other programs: a batch of `ip` may have thousands of lines.
const TOOL_PATIENCE: Duration = Duration::from_secs(300);

/// A program that could not be started, or did not succeed.
#[derive(Debug, Clone)]
pub struct Failed {
    /// The program and its arguments.
    pub command: String,
    /// How it ended, and what it said.
    pub reason: String,
}

impl fmt::Display for Failed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.command, self.reason)
    }
}

impl std::error::Error for Failed {}

/// Runs a program with `input` on its stdin; what it wrote on stdout.
///
/// # Errors
/// Any end but status 0, with what it said.
pub fn run(command: &mut Command, input: impl Into<Vec<u8>>) -> Result<String, Failed> {
    run_within(TOOL_PATIENCE, command, input)
}

/// The same with more patience, or less.
///
/// # Errors
/// Any end but status 0, with what it said.
pub fn run_within(
    patience: Duration,
    command: &mut Command,
    input: impl Into<Vec<u8>>,
) -> Result<String, Failed> {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let spelled = words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ");
    let failed = |reason: String| Failed { command: spelled.clone(), reason };
    command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| failed(error.to_string()))?;
    let watchdog = Watchdog::of(&child, patience);
    if let Some(mut stdin) = child.stdin.take() {
        let input = input.into();
        // A program that ends without reading all of it is none of our concern.
        thread::spawn(move || drop(stdin.write_all(&input)));
    }
    let output = child.wait_with_output().map_err(|error| failed(error.to_string()))?;
    if watchdog.has_killed() {
        return Err(failed(format!("it did not end within {patience:?}")));
    }
    let [stdout, stderr] =
        [&output.stdout, &output.stderr].map(|it| String::from_utf8_lossy(it).into_owned());
    match output.status.success() {
        true => Ok(stdout),
        false => Err(failed(format!("{}: {} {}", output.status, stderr.trim(), stdout.trim()))),
    }
}

/// Runs a program with nothing on its stdin; what it wrote on stdout.
///
/// # Errors
/// Any end but status 0, with what it said.
pub fn output(program: &str, words: &[&str]) -> Result<String, Failed> {
    run(Command::new(program).args(words), "")
}

/// Runs a program that must succeed; what it wrote on stdout.
pub fn expect(program: &str, words: &[&str]) -> String {
    output(program, words).unwrap_or_else(|failed| panic!("{failed}"))
}

/// Runs a program in a namespace.
///
/// # Errors
/// Any end but status 0, with what it said.
pub fn run_in<'w>(
    namespace: &Namespace,
    program: &str,
    words: impl IntoIterator<Item = &'w str>,
    input: &str,
) -> Result<String, Failed> {
    run(namespace.command(program).args(words), input)
}

/// Kills a process group when its time is over, or when the test panics before it has waited for the end.
pub(crate) struct Watchdog {
    cancel: mpsc::Sender<()>,
    thread: JoinHandle<bool>,
}

impl Watchdog {
    /// Of a process that leads a group.
    pub fn of(child: &Child, patience: Duration) -> Self {
        let group = Pid::from_child(child);
        let (cancel, cancelled) = mpsc::channel();
        let thread = thread::spawn(move || {
            let has_ended = cancelled.recv_timeout(patience).is_ok();
            !has_ended && kill_process_group(group, Signal::KILL).is_ok()
        });
        Self { cancel, thread }
    }

    /// Cancels it. Whether it had killed the process before.
    pub fn has_killed(self) -> bool {
        let _ = self.cancel.send(());
        self.thread.join().unwrap()
    }
}
