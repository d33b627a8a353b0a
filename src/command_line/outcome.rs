//! What a verb prints, and how it ends.

use clap::ValueEnum;
use serde::Serialize;

/// Exit status where something could not be looked at, and nothing is known to be wrong.
pub const STATUS_BLIND: u8 = 3;

/// Who reads the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// Tables for people
    Table,
    /// One JSON document for programs
    Json,
}

/// What a verb prints, and how it ends.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// For stdout.
    pub stdout: String,
    /// For stderr.
    pub stderr: String,
    /// Exit status: 0 all is well, 1 something is not, 3 it could not be looked at.
    pub status: u8,
}

/// What a verb found or did. Serialised it is the document of `--output json`: fields are added in time, none is renamed
/// or removed within a version.
pub trait Report: Serialize {
    /// For people. `colour`: on a terminal.
    fn to_text(&self, colour: bool) -> String;

    /// Whether the exit status is 0.
    fn is_success(&self) -> bool {
        true
    }

    /// The exit status.
    fn status(&self) -> u8 {
        u8::from(!self.is_success())
    }
}

impl Outcome {
    /// Of a report, in the format that was asked for.
    pub fn of(report: &impl Report, format: OutputFormat, colour: bool) -> Self {
        let stdout = match format {
            OutputFormat::Table => report.to_text(colour),
            // Strings, numbers and lists: serialising them cannot fail.
            OutputFormat::Json => {
                serde_json::to_string_pretty(report).map(|json| json + "\n").unwrap_or_default()
            }
        };
        Self { stdout, status: report.status(), ..Self::default() }
    }
}
