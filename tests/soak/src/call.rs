//! One execution of the plugin, as a runtime starts it, and what may happen to it meanwhile.

use crate::Failure;
use crate::system::{End, remove_namespace};
use serde_json::Value;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// After this a call is killed, and counts as a hang. Nothing that works takes as long, be the machine busy.
const PATIENCE: Duration = Duration::from_secs(120);

/// A command of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verb {
    /// ADD
    Add,
    /// DEL
    Del,
    /// CHECK
    Check,
    /// GC
    Gc,
    /// STATUS
    Status,
}

impl Verb {
    /// All of them, in the order of a report.
    pub const ALL: [Self; 5] = [Self::Add, Self::Del, Self::Check, Self::Gc, Self::Status];

    /// As `CNI_COMMAND` has it.
    pub fn name(self) -> &'static str {
        ["ADD", "DEL", "CHECK", "GC", "STATUS"][self as usize]
    }
}

/// What befalls a call, or its pod, so long after it began.
#[derive(Debug, Clone)]
pub enum Blow {
    /// SIGKILL, as by the kernel's OOM killer.
    Kill(Duration),
    /// The pod's namespace is removed.
    Bereave(Duration, PathBuf),
}

/// What is to be executed.
#[derive(Debug, Clone)]
pub struct Call {
    /// The command.
    pub verb: Verb,
    /// Container and namespace, where the command has them. The interface is `eth0`.
    pub attachment: Option<(String, PathBuf)>,
    /// The conf.
    pub conf: Value,
    /// What happens meanwhile.
    pub blow: Option<Blow>,
    /// Whether its memory is measured. Not together with a kill, which would hit the measuring program.
    pub is_weighed: bool,
}

/// How it ended.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// It says that it succeeded. Its answer; `Null` where it gave none.
    Success(Value),
    /// It says that it failed: the code of the protocol, and all that it said.
    Error(u64, String),
    /// It was killed before it ended by itself.
    Killed,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Success(Value::Null) => f.write_str("success"),
            Self::Success(result) => write!(f, "success: {result}"),
            Self::Error(code, said) => write!(f, "error {code}: {said}"),
            Self::Killed => f.write_str("killed"),
        }
    }
}

/// A call that is over.
#[derive(Debug, Clone)]
pub struct Ended {
    /// How.
    pub outcome: Outcome,
    /// From before `exec` until its end was known.
    pub elapsed: Duration,
    /// The most memory that it held, in KiB, if that was measured.
    pub peak: Option<u64>,
}

/// Executes calls, and ends those that hang.
pub struct Plugin {
    program: PathBuf,
    peak: PathBuf,
}

impl Plugin {
    /// The plugin at `program`; `peak` is benches/peak.c, built.
    pub fn new(program: PathBuf, peak: PathBuf) -> Self {
        Self { program, peak }
    }

    /// Executes one, in the network namespace of the calling thread.
    pub fn run(&self, call: &Call, end: &End) -> Result<Ended, Failure> {
        let name = call.verb.name();
        let mut plugin = kit::call::Call::of(&self.program).patience(PATIENCE).conf(&call.conf);
        plugin = plugin.env("CNI_COMMAND", name).env("CNI_PATH", "/nonexistent");
        if call.is_weighed {
            plugin = plugin.through([&self.peak]);
        }
        if let Some((container, netns)) = &call.attachment {
            let pod = container.trim_start_matches('0');
            plugin = plugin.attachment(container, netns);
            plugin = plugin.args(format!("K8S_POD_NAMESPACE=soak;K8S_POD_NAME=pod-{pod}"));
        }

        let began = Instant::now();
        let mut running = plugin.spawn();
        match &call.blow {
            Some(Blow::Kill(after)) => {
                end.wait(*after);
                running.kill();
            }
            Some(Blow::Bereave(after, netns)) => {
                end.wait(*after);
                remove_namespace(netns)?;
            }
            None => {}
        }
        let answer = running.wait_or_hang();
        let elapsed = began.elapsed();

        let answer = answer.map_err(|said| format!("{name} hung: {:?}: {said:?}", call.attachment))?;
        let text = answer.text();
        let document = || {
            serde_json::from_slice::<Value>(&answer.stdout)
                .map_err(|error| format!("stdout is not one JSON document ({error}): {text:?}"))
        };
        let outcome = match answer.status.code() {
            Some(0) if text.trim().is_empty() => Outcome::Success(Value::Null),
            Some(0) => Outcome::Success(document()?),
            Some(1) => {
                let code = document()?["code"].as_u64().unwrap_or_default();
                Outcome::Error(code, text.split_whitespace().collect::<Vec<_>>().join(" "))
            }
            None if matches!(call.blow, Some(Blow::Kill(_))) => Outcome::Killed,
            _ => return Err(format!("{name} ended: {answer:?}").into()),
        };
        let peak =
            answer.stderr.lines().last().filter(|_| call.is_weighed).and_then(|line| line.parse().ok());
        Ok(Ended { outcome, elapsed, peak })
    }
}

/// The attachment's part of a call.
pub fn attachment(container: &str, netns: &Path) -> Option<(String, PathBuf)> {
    Some((container.to_owned(), netns.to_owned()))
}
