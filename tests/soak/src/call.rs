//! One execution of the plugin, as a runtime starts it, and what may happen to it meanwhile.

use crate::Failure;
use crate::system::{End, lock, remove_namespace};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
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
    under_way: Mutex<BTreeMap<i32, Instant>>,
}

impl Plugin {
    /// The plugin at `program`; `peak` is benches/peak.c, built.
    pub fn new(program: PathBuf, peak: PathBuf) -> Self {
        Self { program, peak, under_way: Mutex::default() }
    }

    /// Executes one, in the network namespace of the calling thread.
    pub fn run(&self, call: &Call, end: &End) -> Result<Ended, Failure> {
        let mut command = if call.is_weighed {
            let mut command = Command::new(&self.peak);
            command.arg(&self.program);
            command
        } else {
            Command::new(&self.program)
        };
        command.env_clear().env("CNI_COMMAND", call.verb.name()).env("CNI_PATH", "/nonexistent");
        if let Some((container, netns)) = &call.attachment {
            command.env("CNI_CONTAINERID", container).env("CNI_NETNS", netns).env("CNI_IFNAME", "eth0");
            let pod: String = container.chars().skip_while(|&digit| digit == '0').collect();
            command.env("CNI_ARGS", format!("K8S_POD_NAMESPACE=soak;K8S_POD_NAME=pod-{pod}"));
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let conf = call.conf.to_string();

        let began = Instant::now();
        let mut child = command.spawn().map_err(|e| format!("{}: {e}", self.program.display()))?;
        let pid = Pid::from_child(&child).as_raw_nonzero().get();
        lock(&self.under_way).insert(pid, began);
        let ended = Self::see_through(&mut child, &conf, call.blow.as_ref(), end);
        lock(&self.under_way).remove(&pid);
        let (answer, complaint, status, was_killed) = ended?;
        let elapsed = began.elapsed();

        if elapsed > PATIENCE {
            return Err(format!("{} hung: {:?}", call.verb.name(), call.attachment).into());
        }
        let outcome = match status {
            Some(0) if answer.trim().is_empty() => Outcome::Success(Value::Null),
            Some(0) => Outcome::Success(serde_json::from_str(&answer).map_err(|e| not_json(&answer, &e))?),
            Some(1) => {
                let error: Value = serde_json::from_str(&answer).map_err(|e| not_json(&answer, &e))?;
                let code = error["code"].as_u64().unwrap_or_default();
                Outcome::Error(code, answer.split_whitespace().collect::<Vec<_>>().join(" "))
            }
            None if was_killed => Outcome::Killed,
            other => {
                return Err(format!("{} ended with {other:?}: {answer} {complaint}", call.verb.name()).into());
            }
        };
        let peak = complaint.lines().last().filter(|_| call.is_weighed).and_then(|line| line.parse().ok());
        Ok(Ended { outcome, elapsed, peak })
    }

    /// Kills those that began too long ago. To be called now and then.
    pub fn end_hanging(&self) {
        for (&pid, _) in lock(&self.under_way).iter().filter(|(_, began)| began.elapsed() > PATIENCE) {
            let _ = Pid::from_raw(pid).map(|pid| kill_process(pid, Signal::KILL));
        }
    }

    fn see_through(
        child: &mut Child,
        conf: &str,
        blow: Option<&Blow>,
        end: &End,
    ) -> Result<(String, String, Option<i32>, bool), Failure> {
        let (mut answer, mut complaint) = (String::new(), String::new());
        if let Some(mut stdin) = child.stdin.take() {
            // One that dies, or answers without reading all of it: how it ends tells.
            let _ = stdin.write_all(conf.as_bytes());
        }
        match blow {
            Some(Blow::Kill(after)) => {
                end.wait(*after);
                child.kill()?;
            }
            Some(Blow::Bereave(after, netns)) => {
                end.wait(*after);
                remove_namespace(netns)?;
            }
            None => {}
        }
        if let Some(mut stdout) = child.stdout.take() {
            stdout.read_to_string(&mut answer)?;
        }
        if let Some(mut stderr) = child.stderr.take() {
            stderr.read_to_string(&mut complaint)?;
        }
        let was_killed = matches!(blow, Some(Blow::Kill(_)));
        Ok((answer, complaint, child.wait()?.code(), was_killed))
    }
}

fn not_json(answer: &str, error: &serde_json::Error) -> Failure {
    format!("stdout is not one JSON document ({error}): {answer:?}").into()
}

/// The attachment's part of a call.
pub fn attachment(container: &str, netns: &Path) -> Option<(String, PathBuf)> {
    Some((container.to_owned(), netns.to_owned()))
}
