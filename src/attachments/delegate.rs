//! Addresses from another IPAM plugin, executed as the specification says.
//!
//! SPEC section 4, "Plugin Delegation": the plugin is found on `CNI_PATH`, gets our environment with the
//! command alone changed, and our whole conf. Its errors are passed on as they came.

use std::path::PathBuf;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::attachments::DELEGATE_DEADLINE;
use crate::cni::conf::Conf;
use crate::cni::env::Command;
use crate::cni::error::{CniError, Code};
use crate::cni::problem::quote;
use crate::cni::request::Request;

/// Most that a delegate may answer: a result is some hundred bytes.
const ANSWER_MAX: u64 = 1024 * 1024;

/// Finds another IPAM plugin, and executes it for `command` with the conf of `request`.
///
/// # Errors
/// As [`Delegate::find`] and [`Delegate::execute`].
pub async fn execute(plugin: &str, request: &Request, command: Command) -> Result<(), CniError> {
    let delegate = Delegate::find(plugin, &request.environment.path)?;
    delegate.execute(command, &request.conf).await.map(drop)
}

/// Another IPAM plugin, found but not yet executed.
#[derive(Debug, Clone)]
pub struct Delegate {
    plugin: String,
    program: PathBuf,
}

impl Delegate {
    /// Looks for `plugin` in the directories of `CNI_PATH`, in their order.
    ///
    /// # Errors
    /// Code 4 where no directory has such a file, naming all that were searched.
    pub fn find(plugin: &str, cni_path: &[PathBuf]) -> Result<Self, CniError> {
        let found = cni_path.iter().map(|directory| directory.join(plugin)).find(|program| program.is_file());
        let Some(program) = found else {
            let searched: Vec<String> = cni_path.iter().map(|path| path.display().to_string()).collect();
            let message = format!("IPAM plugin {plugin:?} (ipam.type) is in no directory of CNI_PATH");
            let remedy = "install it there, or set ipam.type to \"ferrule\"";
            let details = format!("searched {}; {remedy}", searched.join(", "));
            return Err(CniError::new(Code::InvalidEnvironment, message).with_details(details));
        };
        Ok(Self { plugin: plugin.to_owned(), program })
    }

    /// Executes the plugin for `command` with `conf` on its standard input; what it wrote, if it succeeded.
    ///
    /// Killed after [`DELEGATE_DEADLINE`], or when the caller goes away, with all that it started: it cannot hold a
    /// pod's start for ever.
    ///
    /// # Errors
    /// The plugin's own error; code 11 past the deadline; code 5 where it could not be executed or died
    /// without a word; code 6 where it says more than a result can be.
    pub async fn execute(&self, command: Command, conf: &Conf) -> Result<Vec<u8>, CniError> {
        // A value that was read from JSON: writing it cannot fail.
        let bytes = serde_json::to_vec(&conf.document).unwrap_or_default();
        match tokio::time::timeout(DELEGATE_DEADLINE, self.converse(command, &bytes)).await {
            Ok(outcome) => outcome,
            Err(_) => {
                let message = format!(
                    "IPAM plugin {:?} did not finish {command} within {DELEGATE_DEADLINE:?}",
                    self.plugin
                );
                Err(CniError::new(Code::TryAgain, message).with_details("it was killed"))
            }
        }
    }

    async fn converse(&self, command: Command, conf: &[u8]) -> Result<Vec<u8>, CniError> {
        let failed = |what: &str, error: std::io::Error| {
            let message = format!("cannot {what} IPAM plugin {}", self.program.display());
            CniError::new(Code::Io, message).with_details(error.to_string())
        };
        let mut child = tokio::process::Command::new(&self.program)
            .env("CNI_COMMAND", command.as_str())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| failed("execute", error))?;
        let group = Group::of(child.id());
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let write = async {
            if let Some(mut stdin) = stdin {
                // A plugin that ends without reading its conf has said why on stdout.
                let _ = stdin.write_all(conf).await;
            }
        };
        let read = async {
            let mut answer = Vec::new();
            match stdout {
                Some(stdout) => stdout.take(ANSWER_MAX + 1).read_to_end(&mut answer).await.map(|_| answer),
                None => Ok(answer),
            }
        };
        let ((), answer) = futures_util::future::join(write, read).await;
        let answer = answer.map_err(|error| failed("read the answer of", error))?;
        if answer.len() as u64 > ANSWER_MAX {
            let message = format!("IPAM plugin {:?} answered {command} with what is no result", self.plugin);
            let details = format!("it is longer than {ANSWER_MAX} bytes");
            return Err(CniError::new(Code::Decode, message).with_details(details));
        }
        let status = child.wait().await.map_err(|error| failed("wait for", error))?;
        group.leave_alone();
        if status.success() {
            return Ok(answer);
        }
        Err(CniError::from_foreign(&answer).unwrap_or_else(|| {
            let message =
                format!("IPAM plugin {:?} failed {command} without an error object ({status})", self.plugin);
            let details = match String::from_utf8_lossy(&answer) {
                nothing if nothing.is_empty() => "it wrote nothing to stdout".to_owned(),
                text => format!("it wrote {}", quote(&text)),
            };
            CniError::new(Code::Io, message).with_details(details)
        }))
    }
}

/// A plugin and what it started, killed on drop. A plugin is often a script: what it waits for keeps our
/// stderr open, for whose end a runtime waits, and would outlive it.
struct Group(Option<Pid>);

impl Group {
    fn of(leader: Option<u32>) -> Self {
        Self(leader.and_then(|id| Pid::from_raw(id.try_into().ok()?)))
    }

    /// The leader has ended by itself, and its id may soon be another's.
    fn leave_alone(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}
