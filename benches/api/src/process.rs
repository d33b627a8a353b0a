//! A process that ends with its guard, and what it has used.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::Failure;

/// The kernel counts a process' time in these.
const TICKS_PER_SECOND: f64 = 100.0;

/// A running program.
pub struct Process(Child);

impl Process {
    /// Starts it; what it says goes to a file.
    pub fn start(command: &mut Command, log: &Path) -> Result<Self, Failure> {
        let log = fs::File::create(log)?;
        let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn();
        Ok(Self(child.map_err(|reason| format!("{:?}: {reason}", command.get_program()))?))
    }

    /// Fails if it has ended.
    pub fn must_run(&mut self, log: &Path) -> Result<(), Failure> {
        match self.0.try_wait()? {
            None => Ok(()),
            Some(status) => {
                let text = fs::read_to_string(log).unwrap_or_default();
                let tail: Vec<&str> = text.lines().rev().take(5).collect();
                Err(format!("{}: {status}: {}", log.display(), tail.join("\n")).into())
            }
        }
    }

    /// CPU that it has used, in seconds.
    pub fn spent(&self) -> Result<f64, Failure> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0.id()))?;
        // Its name comes first, in brackets, and may have anything in it.
        let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        let ticks: u32 = fields.skip(11).take(2).filter_map(|it| it.parse::<u32>().ok()).sum();
        Ok(f64::from(ticks) / TICKS_PER_SECOND)
    }

    /// The most memory that it ever had, in KiB.
    pub fn peak_memory(&self) -> Result<u64, Failure> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        Ok(line.and_then(|it| it.split_whitespace().next()?.parse().ok()).ok_or("no VmHWM")?)
    }

    /// Sends a signal, by its name.
    pub fn signal(&self, name: &str) -> Result<(), Failure> {
        kit::process::output("kill", &["-s", name, &self.0.id().to_string()])?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
