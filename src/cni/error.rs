//! The error that a plugin answers with: a code, a sentence, details.
//!
//! The codes are a contract with runtimes (SPEC, "Error"): containerd and kubelet act on 11, 50 and 51,
//! people read the rest. Every other error type of ferrule becomes one of these in a single place,
//! `attachments::error_codes`.

use serde::{Deserialize, Serialize};

use super::version::SpecVersion;

/// What kind of failure it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// 1: the conf's `cniVersion` is none that we know, or the command needs a newer one.
    IncompatibleVersion,
    /// 4: an environment variable is missing or malformed. Details name each.
    InvalidEnvironment,
    /// 5: a file or pipe could not be read or written.
    Io,
    /// 6: the conf is not JSON, or cut off.
    Decode,
    /// 7: the conf is JSON and still not a network.
    InvalidConf,
    /// 11: try again later: a lock or another program did not answer in time.
    TryAgain,
    /// 50: no ADD can succeed at present.
    NotAvailable,
    /// 51: as 50, and the containers that run may have limited connectivity.
    LimitedConnectivity,
    /// 100: no free address in a range set.
    RangeExhausted,
    /// 101: the attachment, or an address asked for, is taken.
    AlreadyTaken,
    /// 102: `CNI_NETNS` does not name a network namespace that can be used.
    NetnsUnusable,
    /// 103: the kernel refused. Details carry its own words.
    KernelRefused,
    /// 104: a file of the store is damaged.
    StoreDamaged,
    /// 105: CHECK found differences. Details name each.
    DifferencesFound,
    /// 199: a defect of ferrule.
    Internal,
    /// An error of a plugin that was called for address management, passed on as it came.
    Delegated(u32),
}

impl Code {
    /// The number that goes to the runtime.
    pub fn number(self) -> u32 {
        match self {
            Self::IncompatibleVersion => 1,
            Self::InvalidEnvironment => 4,
            Self::Io => 5,
            Self::Decode => 6,
            Self::InvalidConf => 7,
            Self::TryAgain => 11,
            Self::NotAvailable => 50,
            Self::LimitedConnectivity => 51,
            Self::RangeExhausted => 100,
            Self::AlreadyTaken => 101,
            Self::NetnsUnusable => 102,
            Self::KernelRefused => 103,
            Self::StoreDamaged => 104,
            Self::DifferencesFound => 105,
            Self::Internal => 199,
            Self::Delegated(number) => number,
        }
    }
}

/// An answer that says what failed, on what, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}{}{details}", if details.is_empty() { "" } else { ": " })]
pub struct CniError {
    /// The kind.
    pub code: Code,
    /// What was attempted, on what, and why it failed. One line.
    pub message: String,
    /// The rest: every problem of a conf, the kernel's own words, the remedy. May be empty.
    pub details: String,
}

/// The error object as it is written (SPEC, "Error").
#[derive(Serialize)]
struct Answer<'a> {
    #[serde(rename = "cniVersion")]
    cni_version: &'a str,
    code: u32,
    msg: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    details: &'a str,
}

/// The error object of another plugin, as it is read. Every field may be missing.
#[derive(Deserialize)]
struct ForeignAnswer {
    code: u32,
    #[serde(default)]
    msg: String,
    #[serde(default)]
    details: String,
}

impl CniError {
    /// An error with a sentence and no details yet.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: String::new() }
    }

    /// The same error with details.
    #[must_use]
    pub fn with_details(mut self, details: impl Into<String>) -> Self {
        self.details = details.into();
        self
    }

    /// Adds that what was made could not be taken back: neither error may hide the other.
    pub fn add_failed_undo(&mut self, error: &Self) {
        let separator = if self.details.is_empty() { "" } else { "; " };
        self.details.push_str(separator);
        self.details.push_str(&format!("and it could not be taken back, which DEL will do: {error}"));
    }

    /// The document for stdout, in the form of `version`, with a final newline.
    pub fn to_json(&self, version: SpecVersion) -> String {
        let answer = Answer {
            cni_version: version.as_str(),
            code: self.code.number(),
            msg: &self.message,
            details: &self.details,
        };
        // A struct of strings and a number: serialising it cannot fail.
        serde_json::to_string_pretty(&answer).map(|json| json + "\n").unwrap_or_default()
    }

    /// Reads the error that another plugin wrote; `None` if `json` is no such thing.
    pub fn from_foreign(json: &[u8]) -> Option<Self> {
        let answer: ForeignAnswer = serde_json::from_slice(json).ok()?;
        Some(Self { code: Code::Delegated(answer.code), message: answer.msg, details: answer.details })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_has_the_fields_of_the_specification() {
        let error = CniError::new(Code::RangeExhausted, "no free address").with_details("10.244.1.0/24");
        let json: serde_json::Value = serde_json::from_str(&error.to_json(SpecVersion::V0_4_0)).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "cniVersion": "0.4.0", "code": 100, "msg": "no free address", "details": "10.244.1.0/24"
            })
        );
    }

    #[test]
    fn an_answer_without_details_does_not_show_them() {
        let json = CniError::new(Code::Decode, "cut off").to_json(SpecVersion::NEWEST);
        assert!(!json.contains("details"), "{json}");
        assert!(json.ends_with("}\n"));
    }

    #[test]
    fn an_error_of_another_plugin_keeps_its_code_and_words() {
        let json = br#"{"cniVersion":"0.4.0","code":999,"msg":"range is full","extra":1}"#;
        let error = CniError::from_foreign(json).unwrap();
        assert_eq!((error.code.number(), error.message.as_str()), (999, "range is full"));
        assert_eq!(CniError::from_foreign(b"not json"), None);
    }
}
