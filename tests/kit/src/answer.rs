//! What a plugin answered, and the three ways to take it: a result, a success, an error of a certain code.
//!
//! Each of them fails the test, with all that the plugin said, if the answer is another one; and whatever is on
//! stdout must be one JSON document.

use std::fmt;
use std::process::ExitStatus;

use serde_json::Value;

/// How an execution ended.
#[derive(Clone)]
pub struct Answer {
    /// Exit code or signal.
    pub status: ExitStatus,
    /// All of stdout, byte by byte.
    pub stdout: Vec<u8>,
    /// All of stderr.
    pub stderr: String,
}

impl Answer {
    /// stdout as text, for tests that look for words.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// The one JSON document on stdout; `None` if nothing is there. Anything else on stdout fails the test.
    pub fn document(&self) -> Option<Value> {
        if self.stdout.is_empty() {
            return None;
        }
        let document = serde_json::from_slice(&self.stdout);
        Some(document.unwrap_or_else(|error| panic!("stdout is not one JSON document: {error}: {self:?}")))
    }

    /// The document of a command that must have succeeded; `Null` where it says nothing.
    pub fn success(&self) -> Value {
        assert!(self.status.success(), "{self:?}");
        self.document().unwrap_or_default()
    }

    /// The document of a command that must have succeeded and have one.
    pub fn result(&self) -> Value {
        self.success();
        self.document().expect("a result on stdout")
    }

    /// The error object of a command that must have failed, whose code must be `code`.
    pub fn failure(&self, code: u64) -> Value {
        assert_eq!(self.status.code(), Some(1), "{self:?}");
        let error = self.document().expect("an error object on stdout");
        assert_eq!(error["code"], code, "{error}");
        assert!(error["msg"].as_str().is_some_and(|msg| !msg.is_empty()), "{error}");
        error
    }

    /// What the error of code `code` says, message and details.
    pub fn complaint(&self, code: u64) -> String {
        let error = self.failure(code);
        format!("{}: {}", error["msg"].as_str().unwrap(), error["details"].as_str().unwrap_or_default())
    }
}

/// As text: what a person looks at when a test failed.
impl fmt::Debug for Answer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}; stdout: {:?}; stderr: {:?}", self.status, self.text(), self.stderr)
    }
}
