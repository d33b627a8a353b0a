//! One run of a program as a container runtime runs a plugin: environment, configuration on stdin, answer on stdout,
//! exit status. What is timed is all of it.

use crate::Failure;
use serde_json::Value;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What to run. Cheap to make ahead, so that making it is not part of what is timed.
#[derive(Clone)]
pub struct Invocation {
    program: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(&'static str, String)>,
    stdin: String,
    next: Option<Box<Invocation>>,
}

/// A run that succeeded.
pub struct Ended {
    /// From before `exec` until the exit status was there.
    pub elapsed: Duration,
    /// What it wrote on stdout.
    pub answer: String,
    /// What it wrote on stderr.
    pub complaint: String,
}

impl Invocation {
    /// A program with arguments and nothing on stdin.
    pub fn of_program(program: &Path, arguments: &[String]) -> Invocation {
        Invocation {
            program: program.to_owned(),
            arguments: arguments.to_owned(),
            environment: Vec::new(),
            stdin: String::new(),
            next: None,
        }
    }

    /// A CNI plugin; `attachment` is its container and namespace where the command has one. The runtime's
    /// environment is not passed on, so that a long one does not count.
    pub fn of_plugin(
        program: &Path,
        command: &str,
        attachment: Option<(&str, &Path)>,
        plugins: &Path,
        conf: &str,
    ) -> Invocation {
        let mut environment = vec![
            ("CNI_COMMAND", command.to_owned()),
            ("CNI_PATH", plugins.display().to_string()),
            ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin".to_owned()),
        ];
        if let Some((container, netns)) = attachment {
            environment.push(("CNI_CONTAINERID", container.to_owned()));
            environment.push(("CNI_NETNS", netns.display().to_string()));
            environment.push(("CNI_IFNAME", "eth0".to_owned()));
        }
        Invocation {
            program: program.to_owned(),
            arguments: Vec::new(),
            environment,
            stdin: conf.to_owned(),
            next: None,
        }
    }

    /// The same, of a pod that the runtime names.
    pub fn with_args(mut self, args: &str) -> Invocation {
        self.environment.push(("CNI_ARGS", args.to_owned()));
        self
    }

    /// The same, run by another program that takes it as its arguments.
    pub fn under(mut self, program: &Path) -> Invocation {
        self.arguments.insert(0, self.program.display().to_string());
        self.program = program.to_owned();
        self
    }

    /// The next plugin of a list: it runs after this one, and gets its answer as `prevResult`.
    pub fn followed_by(mut self, next: Invocation) -> Invocation {
        self.next = Some(Box::new(next));
        self
    }

    /// Runs it, and what follows it, to the end. A failed run is a `Failure` with the answer in it. The time that the
    /// runtime takes between two plugins is not counted.
    pub fn run(&self) -> Result<Ended, Failure> {
        let ended = self.execute(&self.stdin)?;
        let Some(next) = &self.next else { return Ok(ended) };
        let mut last = next.execute(&next.stdin_after(&ended.answer)?)?;
        last.elapsed += ended.elapsed;
        Ok(last)
    }

    /// What it is given if the plugin before it answered so. A DEL answers nothing.
    fn stdin_after(&self, answer: &str) -> Result<String, Failure> {
        if answer.trim().is_empty() {
            return Ok(self.stdin.clone());
        }
        let mut conf: Value = serde_json::from_str(&self.stdin)?;
        conf["prevResult"] = serde_json::from_str(answer)?;
        Ok(conf.to_string())
    }

    fn execute(&self, input: &str) -> Result<Ended, Failure> {
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .env_clear()
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut answer = String::new();
        let mut complaint = String::new();

        let started = Instant::now();
        let mut child = command.spawn().map_err(|e| format!("{}: {e}", self.program.display()))?;
        if let Some(mut stdin) = child.stdin.take() {
            // A plugin may answer without reading its conf; how it ends tells whether that was right.
            let _ = stdin.write_all(input.as_bytes());
        }
        if let Some(mut stdout) = child.stdout.take() {
            stdout.read_to_string(&mut answer)?;
        }
        let status = child.wait()?;
        let elapsed = started.elapsed();

        // After the clock: a plugin's stderr is a few lines at most, which the pipe holds.
        if let Some(mut stderr) = child.stderr.take() {
            stderr.read_to_string(&mut complaint)?;
        }
        if status.success() {
            Ok(Ended { elapsed, answer, complaint })
        } else {
            let said = [answer.trim(), complaint.trim()].join(" ");
            Err(format!("{}: {status}: {}", self.program.display(), said.trim()).into())
        }
    }
}
