//! Running programs: to their end, or as the first process of new namespaces.

use std::fs;
use std::io::{self, BufRead, BufReader, PipeReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::error::{Error, Result};

/// After this a program is killed, with all that it started.
const PATIENCE: Duration = Duration::from_secs(300);

/// Runs a program to its end and gives its standard output; any status but 0 is an error that quotes what it said.
pub fn run(command: &mut Command) -> Result<String> {
    run_with_input(command, "")
}

/// The same, with `input` on its standard input.
pub fn run_with_input(command: &mut Command, input: impl Into<Vec<u8>>) -> Result<String> {
    Ok(kit::process::run_within(PATIENCE, command, input)?)
}

/// Starts a program that sets something up, says `ready` on its standard output and then stays.
///
/// It gets a process group of its own: a Ctrl-C at the terminal must not end it before its owner has decided to.
pub fn start_until_ready(what: &str, command: &mut Command) -> Result<Child> {
    let failed = |said: String| Error::Start { what: what.to_owned(), said };
    let pipe = || -> io::Result<(PipeReader, Stdio, Stdio)> {
        let (reader, writer) = io::pipe()?;
        Ok((reader, writer.try_clone()?.into(), writer.into()))
    };
    let (reader, stdout, stderr) = pipe().map_err(|error| failed(error.to_string()))?;
    let spawned = command.stdout(stdout).stderr(stderr).process_group(0).spawn();
    // Else the reader would never see the end: the command keeps its copies of the writer.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = spawned.map_err(|error| failed(error.to_string()))?;
    let mut said = String::new();
    for line in BufReader::new(reader).lines().map_while(io::Result::ok) {
        if line == "ready" {
            return Ok(child);
        }
        said.push_str(&line);
        said.push('\n');
    }
    let status = child.wait().map(|status| status.to_string()).unwrap_or_default();
    Err(failed(format!("{status}: {}", said.trim())))
}

/// The first child of a process, both numbered as in our own pid namespace.
pub fn first_child(parent: u32) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

/// Sends a signal; a process that is gone already counts as success.
pub fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // The only other error is a lack of permission, which root does not know.
        let _ = kill_process(pid, signal);
    }
}
