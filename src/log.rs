//! What is worth telling and is not an answer: one line an event, to the conf's file or to stderr.
//!
//! A runtime keeps a plugin's stderr in its own log; stdout belongs to the protocol. A log that cannot be
//! written never fails a command.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;

use crate::config::log::{LogConf, LogLevel};

/// Tells of something that an administrator should see to, though the command succeeded.
pub fn warn(conf: &LogConf, message: &str) {
    if conf.level < LogLevel::Warn {
        return;
    }
    let line = format!("level=warn msg=\"{}\"\n", escape(message));
    let written = conf.file.as_ref().map(|path| {
        let mut options = OpenOptions::new();
        // Neither follows a symlink nor waits for the reader of a FIFO.
        let flags = (rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits().cast_signed();
        options.append(true).create(true).mode(0o600).custom_flags(flags);
        options.open(path).and_then(|mut file| file.write_all(line.as_bytes()))
    });
    if !matches!(written, Some(Ok(()))) {
        let _ = std::io::stderr().write_all(line.as_bytes());
    }
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
    use super::escape;

    #[test]
    fn no_message_can_begin_a_line_or_end_its_field() {
        assert_eq!(escape("a\nb\u{1b}[2J \"c\" \\ it's"), "a\\nb\\u{1b}[2J \\\"c\\\" \\\\ it's");
    }
}
