//! One question to one agent: `ferrulectl` with some words, in the agent's container.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::Api;
use kube::api::{AttachParams, AttachedProcess};
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::kubectl::agents::{Agent, CONTAINER};
use crate::kubectl::cluster::{Cluster, explain};

/// Where it is in the image.
const PROGRAM: &str = "/ferrulectl";

/// clap's, for words that a program does not know.
const STATUS_USAGE: i32 = 2;

/// Bytes between the connection and who reads: kube's default of 1 KiB would make every document a thousand pieces.
const BUFFER: usize = 1 << 18;

/// What `ferrulectl` answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Said {
    pub stdout: Vec<u8>,
    pub stderr: String,
    pub status: i32,
}

impl Cluster {
    /// Starts it. `stdin`: whether something will be said to it.
    pub async fn start(
        &self,
        agent: &Agent,
        words: &[String],
        stdin: bool,
    ) -> Result<AttachedProcess, String> {
        let api = Api::<Pod>::namespaced(self.client.clone(), &agent.namespace);
        let command: Vec<&str> = std::iter::once(PROGRAM).chain(words.iter().map(String::as_str)).collect();
        let params = AttachParams {
            max_stdout_buf_size: Some(BUFFER),
            ..AttachParams::default().container(CONTAINER).stdin(stdin)
        };
        api.exec(&agent.pod, command, &params).await.map_err(|error| explain(&error))
    }

    /// Asks, and waits for the answer.
    pub async fn ask(&self, agent: &Agent, words: &[String], deadline: Duration) -> Result<Said, String> {
        let asked = async {
            let mut process = self.start(agent, words, false).await?;
            let (stdout, stderr) = (process.stdout(), process.stderr());
            let status = process.take_status();
            let (stdout, stderr) = tokio::join!(read_all(stdout), read_all(stderr));
            let status = match status {
                Some(status) => status.await,
                None => None,
            };
            let stderr = String::from_utf8_lossy(&stderr).into_owned();
            Ok(Said { stdout, stderr, status: exit_status(status.as_ref())? })
        };
        match tokio::time::timeout(deadline, asked).await {
            Ok(said) => said,
            Err(_) => Err(format!("its agent did not answer within {} s (--deadline)", deadline.as_secs())),
        }
    }
}

/// All that comes until the end. What cannot be read any more has ended.
pub(super) async fn read_all(stream: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(mut stream) = stream {
        let _ = stream.read_to_end(&mut bytes).await;
    }
    bytes
}

/// How it ended, as kubelet tells it.
///
/// # Errors
/// If it did not run, or nobody says how it ended.
pub(super) fn exit_status(status: Option<&Status>) -> Result<i32, String> {
    let status = status.ok_or("the connection to its agent broke off")?;
    if status.status.as_deref() == Some("Success") {
        return Ok(0);
    }
    let causes = status.details.as_ref().and_then(|details| details.causes.as_ref());
    let exit_code = causes.into_iter().flatten().find(|it| it.reason.as_deref() == Some("ExitCode"));
    if let Some(code) = exit_code.and_then(|it| it.message.as_ref()?.parse().ok()) {
        return Ok(code);
    }
    let message = status.message.clone().unwrap_or_default();
    Err(match message.contains(PROGRAM) && message.contains("no such file") {
        true => format!("its agent's image has no {PROGRAM}"),
        false => format!("its agent could not be asked: {message}"),
    })
}

impl Said {
    /// The document that it printed.
    ///
    /// # Errors
    /// If it printed none: why, in its words. An agent of another version may not know the verb.
    pub fn document<T: DeserializeOwned>(&self, verb: &str) -> Result<T, String> {
        if self.stdout.is_empty() {
            return Err(self.complaint(verb));
        }
        serde_json::from_slice(&self.stdout)
            .map_err(|error| format!("what its agent's ferrulectl printed is not understood: {error}"))
    }

    /// Why it did not do what it was asked for.
    pub fn complaint(&self, verb: &str) -> String {
        let first = self.stderr.lines().find(|line| !line.trim().is_empty()).unwrap_or_default().trim();
        if self.status == STATUS_USAGE && first.contains("unrecognized subcommand") {
            return format!("its agent's ferrulectl is another version, without `{verb}`");
        }
        if self.status == STATUS_USAGE {
            return format!(
                "its agent's ferrulectl is another version: {}",
                first.trim_start_matches("error: ")
            );
        }
        match first.strip_prefix(&format!("ferrulectl {verb}: ")).unwrap_or(first) {
            "" => format!("its agent's ferrulectl ended with status {} and said nothing", self.status),
            words => words.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn status(value: Value) -> Status {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn an_exit_status_is_told_from_a_failed_exec() {
        assert_eq!(exit_status(Some(&status(json!({ "status": "Success" })))), Ok(0));
        let failed = json!({
            "status": "Failure", "reason": "NonZeroExitCode", "message": "command terminated with exit code 3",
            "details": { "causes": [{ "reason": "ExitCode", "message": "3" }] },
        });
        assert_eq!(exit_status(Some(&status(failed))), Ok(3));
        let missing = json!({
            "status": "Failure", "reason": "InternalError",
            "message": "Internal error occurred: OCI runtime exec failed: exec: \"/ferrulectl\": stat /ferrulectl: no such file or \
                        directory: unknown",
        });
        let error = exit_status(Some(&status(missing))).unwrap_err();
        assert_eq!(error, "its agent's image has no /ferrulectl");
        let other = json!({ "status": "Failure", "message": "container not found (\"ferruled\")" });
        let error = exit_status(Some(&status(other))).unwrap_err();
        assert_eq!(error, "its agent could not be asked: container not found (\"ferruled\")");
        assert_eq!(exit_status(None).unwrap_err(), "the connection to its agent broke off");
    }

    #[test]
    fn an_older_agent_and_its_own_words_are_told() {
        let said = |status, stderr: &str| Said { stdout: Vec::new(), stderr: stderr.to_owned(), status };
        for (status, stderr, complaint) in [
            (
                2,
                "error: unrecognized subcommand 'capture'\n\nUsage: ...",
                "its agent's ferrulectl is another version, without `capture`",
            ),
            (
                2,
                "error: unexpected argument '--leash' found\n",
                "its agent's ferrulectl is another version: unexpected argument '--leash' found",
            ),
            (1, "ferrulectl capture: cannot capture a/b: no\n", "cannot capture a/b: no"),
            (137, "", "its agent's ferrulectl ended with status 137 and said nothing"),
        ] {
            assert_eq!(said(status, stderr).complaint("capture"), complaint);
            assert_eq!(said(status, stderr).document::<Value>("capture"), Err(complaint.to_owned()));
        }
        let garbled = Said { stdout: b"POD  AGE".to_vec(), stderr: String::new(), status: 0 };
        assert!(garbled.document::<Value>("inspect").unwrap_err().contains("not understood"));
    }
}
