//! One execution of a CNI plugin: the only place where the tests start one.
//!
//! A call is built as a runtime builds it, or as no runtime should:
//!
//! ```text
//! let answer = Call::ferrule("ADD").on(&node).attachment("c1", pod.path()).conf(&conf).run();
//! assert_eq!(answer.result()["ips"][0]["address"], "10.88.0.2/32");
//! ```
//!
//! Nothing is assumed: stdin may be any bytes, and the environment holds what the test put there and nothing else
//! (but `PATH`, for the programs that stand between, such as nsenter). Nor does anything last for ever: see
//! [`PATIENCE`].

use std::ffi::{OsStr, OsString};
use std::io::{PipeReader, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::Value;

use crate::answer::Answer;
use crate::binaries::{FERRULE, FERRULECTL, REFERENCE_PLUGINS};
use crate::netns::Namespace;
use crate::process::{PATIENCE, Watchdog};

/// An execution that is being prepared.
#[derive(Clone)]
pub struct Call {
    program: OsString,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    node: Option<OsString>,
    wrappers: Vec<OsString>,
    stdin: Option<Vec<u8>>,
    is_read: bool,
    patience: Duration,
}

impl Call {
    /// `program` with an empty environment and an empty stdin.
    pub fn of(program: impl AsRef<OsStr>) -> Self {
        Self {
            program: program.as_ref().to_owned(),
            arguments: Vec::new(),
            environment: Vec::new(),
            node: None,
            wrappers: Vec::new(),
            stdin: Some(Vec::new()),
            is_read: true,
            patience: PATIENCE,
        }
    }

    /// ferrule, for the command of the protocol named `command`.
    pub fn ferrule(command: &str) -> Self {
        Self::of(&*FERRULE).env("CNI_COMMAND", command)
    }

    /// A verb of the command line and its options, separated by spaces, at a terminal where nobody types.
    pub fn ferrulectl(words: &str) -> Self {
        Self::of(&*FERRULECTL).silent_stdin().arguments(words)
    }

    /// The reference plugin `name`, for the command of the protocol named `command`.
    pub fn reference(name: &str, command: &str) -> Self {
        Self::of(Path::new(REFERENCE_PLUGINS).join(name)).env("CNI_COMMAND", command)
    }

    /// Appends an argument.
    pub fn argument(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    /// Appends arguments, separated by spaces.
    pub fn arguments(self, words: &str) -> Self {
        words.split_whitespace().fold(self, Self::argument)
    }

    /// Sets a variable; the last one of a name counts.
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self = self.without(name);
        self.environment.push((name.into(), value.as_ref().to_owned()));
        self
    }

    /// Leaves a variable unset.
    pub fn without(mut self, name: &str) -> Self {
        self.environment.retain(|(known, _)| known != name);
        self
    }

    /// The three variables that name an attachment; the interface is `eth0`.
    pub fn attachment(self, container: &str, netns: impl AsRef<Path>) -> Self {
        self.container(container).netns(netns).ifname("eth0")
    }

    /// `CNI_CONTAINERID`.
    pub fn container(self, id: &str) -> Self {
        self.env("CNI_CONTAINERID", id)
    }

    /// `CNI_NETNS`.
    pub fn netns(self, path: impl AsRef<Path>) -> Self {
        self.env("CNI_NETNS", path.as_ref())
    }

    /// `CNI_IFNAME`.
    pub fn ifname(self, name: &str) -> Self {
        self.env("CNI_IFNAME", name)
    }

    /// `CNI_ARGS`.
    pub fn args(self, args: impl AsRef<OsStr>) -> Self {
        self.env("CNI_ARGS", args)
    }

    /// Executes it in `node`'s network.
    pub fn on(mut self, node: &Namespace) -> Self {
        self.node = Some(node.path().into());
        self
    }

    /// Executes it by another program, the words of `wrapper` before its own: "prlimit --as=1", "unshare --mount".
    pub fn through(mut self, wrapper: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.wrappers.extend(wrapper.into_iter().map(|word| word.as_ref().to_owned()));
        self
    }

    /// Writes a conf to its stdin.
    pub fn conf(self, conf: &Value) -> Self {
        self.stdin(conf.to_string())
    }

    /// Writes these bytes to its stdin.
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = Some(bytes.into());
        self
    }

    /// A stdin that stays open and says nothing, like a terminal at which nobody types.
    pub fn silent_stdin(mut self) -> Self {
        self.stdin = None;
        self
    }

    /// Gives it a stdout whose reader went away before it began.
    pub fn unread(mut self) -> Self {
        self.is_read = false;
        self
    }

    /// Has it killed, with all that it started, if it takes longer.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Executes it and waits for its end.
    pub fn run(&self) -> Answer {
        self.spawn().wait()
    }

    /// Starts it, for tests that meddle while it runs.
    pub fn spawn(&self) -> Running {
        let mut words = Vec::new();
        if let Some(node) = &self.node {
            let mut net = OsString::from("--net=");
            net.push(node);
            words.extend(["nsenter".into(), net, "--".into()]);
        }
        words.extend(self.wrappers.iter().chain([&self.program]).chain(&self.arguments).cloned());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        let (stdout, writer) = std::io::pipe().unwrap();
        let stdout = self.is_read.then_some(stdout);
        // A group of its own, so that it can be killed with all that it started.
        command.process_group(0).stdin(Stdio::piped()).stdout(writer).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{words:?}: {error}"));
        // It holds the pipe's writing end, and reading would wait for that to close.
        drop(command);
        let (mut stdin, mut stderr) = (child.stdin.take().unwrap(), child.stderr.take().unwrap());
        let silent_stdin = match self.stdin.clone() {
            Some(bytes) => {
                // A program that ends without reading all of it is none of our concern.
                thread::spawn(move || drop(stdin.write_all(&bytes)));
                None
            }
            None => Some(stdin),
        };
        Running {
            silent_stdin,
            stdout,
            stderr: thread::spawn(move || read_all(&mut stderr)),
            watchdog: Watchdog::of(&child, self.patience),
            child,
        }
    }
}

/// An execution on its way.
///
/// The child is the plugin itself: nsenter, `sh -c exec`, prlimit and the like replace themselves with it. strace
/// does not.
pub struct Running {
    child: Child,
    silent_stdin: Option<ChildStdin>,
    stdout: Option<PipeReader>,
    stderr: JoinHandle<Vec<u8>>,
    watchdog: Watchdog,
}

impl Running {
    /// Whether it has not ended yet.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Writes a conf to the stdin that was silent until now, and closes it: of many that wait for their conf, all go
    /// on at the same moment.
    pub fn send_conf(&mut self, conf: &Value) {
        let mut stdin = self.silent_stdin.take().expect("a silent stdin");
        stdin.write_all(conf.to_string().as_bytes()).unwrap();
    }

    /// Kills it as the kernel's OOM killer does, if it still runs.
    pub fn kill(&mut self) {
        self.child.kill().expect("SIGKILL");
    }

    /// All of stdout, as soon as it is there: the process may have some way to go yet. The answer then has none.
    pub fn stdout(&mut self) -> Vec<u8> {
        self.stdout.take().map(|mut stdout| read_all(&mut stdout)).unwrap_or_default()
    }

    /// Waits for its end, which must be its own: not by a signal.
    pub fn wait(self) -> Answer {
        let answer = self.wait_for_any_end();
        assert_eq!(answer.status.signal(), None, "it was killed: {answer:?}");
        answer
    }

    /// Waits for its end, be it by a signal that the test sent.
    pub fn wait_for_any_end(self) -> Answer {
        self.wait_or_hang().unwrap_or_else(|answer| panic!("it did not end in time: {answer:?}"))
    }

    /// The same.
    ///
    /// # Errors
    /// What it said until then, if it was killed because its time was over.
    pub fn wait_or_hang(mut self) -> Result<Answer, Answer> {
        let stdout = self.stdout();
        let stderr = String::from_utf8_lossy(&self.stderr.join().unwrap()).into_owned();
        let status = self.child.wait().unwrap();
        drop(self.silent_stdin);
        let answer = Answer { status, stdout, stderr };
        if self.watchdog.has_killed() { Err(answer) } else { Ok(answer) }
    }
}

fn read_all(pipe: &mut impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    pipe.read_to_end(&mut bytes).unwrap();
    bytes
}
