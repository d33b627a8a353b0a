//! What can go wrong in a lab, said so that a failed test explains itself.

use std::path::PathBuf;

use kit::process::Failed;

/// Why something in the lab did not work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A program could not be started, or ended with a status other than 0.
    #[error("{command}: {reason}")]
    Command {
        /// The program and its arguments.
        command: String,
        /// The status and what the program said.
        reason: String,
    },
    /// A file of a node could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file as seen from here.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The lab or a node did not come up.
    #[error("{what} did not start: {said}")]
    Start {
        /// Which part.
        what: String,
        /// What it said until it ended.
        said: String,
    },
    /// The runtime refused a call.
    #[error("CRI {method}: {status}")]
    Call {
        /// For instance `RunPodSandbox`.
        method: &'static str,
        /// gRPC's code and the runtime's message.
        status: Box<tonic::Status>,
    },
    /// The runtime's socket could not be used.
    #[error("CRI socket {socket}: {source}")]
    Socket {
        /// The socket as seen from here.
        socket: PathBuf,
        /// Why not.
        source: tonic::transport::Error,
    },
    /// The runtime answered, but what was asked for is not in the answer.
    #[error("the runtime's answer to {method} lacks {what}")]
    Lacks {
        /// For instance `PodSandboxStatus`.
        method: &'static str,
        /// The field.
        what: &'static str,
    },
    /// Something did not happen in time.
    #[error("{what}: not within {seconds} s; last: {last}")]
    Late {
        /// What was waited for.
        what: String,
        /// How long.
        seconds: u64,
        /// What was seen instead.
        last: String,
    },
}

impl From<Failed> for Error {
    fn from(Failed { command, reason }: Failed) -> Self {
        Self::Command { command, reason }
    }
}

/// The result of everything here.
pub type Result<T, E = Error> = std::result::Result<T, E>;
