//! Where ferrule writes what it did, and how much of it.

use std::path::PathBuf;

use super::values::parse_absolute;
use crate::cni::json::Node;
use crate::cni::problem::quote;

/// How much is logged; each level includes those before it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// What failed.
    Error,
    /// What was not as it should be, and went on.
    #[default]
    Warn,
    /// One line per command, with how long its phases took.
    Info,
    /// Every step, and STATUS.
    Debug,
}

impl LogLevel {
    const ALL: [(&str, LogLevel); 4] =
        [("error", Self::Error), ("warn", Self::Warn), ("info", Self::Info), ("debug", Self::Debug)];

    /// As it stands in `log.level`.
    pub fn as_str(self) -> &'static str {
        Self::ALL.into_iter().find(|(_, level)| *level == self).map_or("", |(text, _)| text)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let level = Self::ALL.into_iter().find(|(name, _)| *name == text).map(|(_, level)| level);
        let known = Self::ALL.map(|(name, _)| name).join(", ");
        level.ok_or_else(|| format!("is {}; levels are {known}", quote(text)))
    }
}

/// The conf's `log` object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogConf {
    /// `log.level`; `warn` if not said.
    pub level: LogLevel,
    /// `log.file`, an absolute path; without one, and where it cannot be written, stderr is the log.
    pub file: Option<PathBuf>,
}

impl LogConf {
    pub(super) fn read(root: &Node<'_, '_>) -> Self {
        let Some(log) = root.object("log") else { return Self::default() };
        Self {
            level: log.parsed("level", LogLevel::parse).unwrap_or_default(),
            file: log.parsed("file", parse_absolute),
        }
    }
}
