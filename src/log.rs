//! What is worth telling and is not an answer: one line an event, `key=value`, to the conf's file or to stderr.
//!
//! A runtime keeps a plugin's stderr in its own log, with the time; stdout belongs to the protocol. The file is kept
//! small: past [`ROTATE_AT`] bytes it becomes `<file>.1`, in the place of the one before. A log that cannot be written
//! never fails a command. A file with a second name (hard link) is not written: the lines go to stderr.
//!
//! A runtime that traces its calls sets `TRACEPARENT` (W3C Trace Context); each line has it then.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::config::log::{LogConf, LogLevel};

/// Bytes from which on the file is put aside.
const ROTATE_AT: u64 = 1 << 20;

/// Longest `TRACEPARENT` that is repeated; the W3C's own have 55.
const TRACE_MAX: usize = 64;

/// A line.
#[derive(Debug, Clone)]
pub struct Entry {
    level: LogLevel,
    fields: String,
}

impl Entry {
    /// A line without a field yet.
    pub fn new(level: LogLevel) -> Self {
        Self { level, fields: String::new() }
    }

    /// Adds a field. `key` is ours, the value anybody's.
    #[must_use]
    pub fn with(mut self, key: &str, value: &str) -> Self {
        push_field(&mut self.fields, key, value);
        self
    }
}

/// Adds ` key=value` to a line, the value in quotes where it is no plain word.
pub fn push_field(line: &mut String, key: &str, value: &str) {
    let is_word = |c: char| c.is_ascii_graphic() && !['"', '\\', '='].contains(&c);
    line.push(' ');
    line.push_str(key);
    if !value.is_empty() && value.chars().all(is_word) {
        line.push('=');
        line.push_str(value);
    } else {
        line.push_str("=\"");
        line.push_str(&escape(value));
        line.push('"');
    }
}

/// Tells of something that an administrator should see to, though the command succeeded.
pub fn warn(conf: &LogConf, message: &str) {
    write(conf, &[Entry::new(LogLevel::Warn).with("msg", message)]);
}

/// Writes those of the entries that the conf wants, together: lines of other commands do not come between.
///
/// Errors go to a file only: on stdout they are the answer already, which the runtime keeps.
pub fn write(conf: &LogConf, entries: &[Entry]) {
    let wanted = entries.iter().filter(|entry| entry.level <= conf.level);
    let wanted: Vec<&Entry> =
        wanted.filter(|entry| entry.level > LogLevel::Error || conf.file.is_some()).collect();
    if wanted.is_empty() {
        return;
    }
    let trace = std::env::var("TRACEPARENT").ok().filter(|trace| is_trace(trace));
    let lines = |prefix: &str| {
        let mut lines = String::new();
        for entry in &wanted {
            let level = entry.level.as_str();
            lines.push_str(&format!("{prefix}level={level}{}", entry.fields));
            lines.extend(trace.iter().map(|trace| format!(" traceparent={trace}")));
            lines.push('\n');
        }
        lines
    };
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let is_written =
        conf.file.as_ref().is_some_and(|path| append(path, &lines(&format!("time={} ", utc(now)))).is_ok());
    if !is_written {
        let _ = io::stderr().write_all(lines("").as_bytes());
    }
}

fn append(path: &Path, lines: &str) -> io::Result<()> {
    let mut file = open(path)?;
    let found = file.metadata()?;
    // What is written here would change what its other name stands for.
    if found.is_file() && found.nlink() > 1 {
        return Err(io::ErrorKind::TooManyLinks.into());
    }
    if found.len() >= ROTATE_AT && put_aside(path, &file).is_ok() {
        file = open(path)?;
    }
    file.write_all(lines.as_bytes())
}

fn open(path: &Path) -> io::Result<File> {
    // Neither follows a symlink nor waits for the reader of a FIFO.
    let flags = (rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits().cast_signed();
    OpenOptions::new().append(true).create(true).mode(0o600).custom_flags(flags).open(path)
}

/// Renames the full file, once: of several commands that find it full, one has its lock, and one that comes later
/// finds another file under the name.
fn put_aside(path: &Path, file: &File) -> io::Result<()> {
    file.try_lock().map_err(io::Error::from)?;
    let (opened, named) = (file.metadata()?, fs::symlink_metadata(path)?);
    if (opened.dev(), opened.ino()) != (named.dev(), named.ino()) {
        return Ok(());
    }
    let mut aside = OsString::from(path);
    aside.push(".1");
    fs::rename(path, aside)
}

/// Whether a text can be such an identifier: a runtime's word, but in a line of ours.
fn is_trace(text: &str) -> bool {
    (1..=TRACE_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
}

/// `2026-11-23T16:04:05.678Z` (RFC 3339), from the time since 1970.
pub fn utc(since_1970: Duration) -> String {
    let seconds = since_1970.as_secs();
    let (days, second_of_day) = (seconds / 86_400, seconds % 86_400);
    // Years that begin in March end with the leap day; 400 of them are one cycle of 146,097 days. The first of
    // March of the year 0 was 719,468 days before 1970.
    let day = days + 719_468;
    let (cycle, day) = (day / 146_097, day % 146_097);
    let year_of_cycle = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year_of_cycle + year_of_cycle / 4 - year_of_cycle / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = cycle * 400 + year_of_cycle + u64::from(month <= 2);
    let (hour, minute, second) = (second_of_day / 3_600, second_of_day / 60 % 60, second_of_day % 60);
    let millisecond = since_1970.subsec_millis();
    format!("{year:04}-{month:02}-{day_of_month:02}T{hour:02}:{minute:02}:{second:02}.{millisecond:03}Z")
}

/// Control characters, quotes and backslashes escaped, so that no text from outside can end the field or begin a
/// line of its own.
fn escape(message: &str) -> String {
    let mut escaped = String::with_capacity(message.len());
    for c in message.chars() {
        if c.is_control() || c == '"' || c == '\\' {
            escaped.extend(c.escape_default())
        } else {
            escaped.push(c)
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_message_can_begin_a_line_or_end_its_field() {
        assert_eq!(escape("a\nb\u{1b}[2J \"c\" \\ it's"), "a\\nb\\u{1b}[2J \\\"c\\\" \\\\ it's");
        let entry =
            Entry::new(LogLevel::Info).with("a", "x/y@1").with("b", "k=v").with("c", "").with("d", "é");
        assert_eq!(entry.fields, " a=x/y@1 b=\"k=v\" c=\"\" d=\"é\"");
    }

    #[test]
    fn a_trace_that_is_none_is_not_repeated() {
        assert!(is_trace("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"));
        for text in ["", "x", "00 level=error", "0\n", &"0".repeat(65)] {
            assert!(!is_trace(text), "{text:?}");
        }
    }

    /// `date --utc --date=@SECONDS`
    #[test]
    fn times_are_told_as_date_tells_them() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399, "2000-02-28T23:59:59.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (951_868_800, "2000-03-01T00:00:00.000Z"),
            (1_795_449_845, "2026-11-23T16:04:05.000Z"),
            (4_107_542_399, "2100-02-28T23:59:59.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(utc(Duration::from_secs(seconds)), text);
        }
        assert_eq!(utc(Duration::from_millis(1_078)), "1970-01-01T00:00:01.078Z");
    }
}
