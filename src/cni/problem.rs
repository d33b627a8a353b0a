//! What is wrong with a document, each finding with the place where it stands.
//!
//! Whoever corrects a conf wants to hear of all its faults at once, not of one per attempt. So reading never
//! stops at the first: findings are collected here, and become a single error at the end.

use std::fmt;

use super::error::{CniError, Code};

/// Findings kept and shown; what comes on top is only counted. A megabyte of nonsense must not become a
/// megabyte of answer.
const SHOWN: usize = 50;

/// Characters of a foreign text that a message repeats.
const QUOTED: usize = 64;

/// Characters of a foreign sentence that a message repeats.
const SENTENCE: usize = 256;

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The JSON path, such as `ipam.ranges[0][1].rangeStart`; empty for the document as a whole.
    pub path: String,
    /// What is wrong, and the remedy where one is known. Its subject is the path.
    pub text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path.as_str() {
            "" => f.write_str(&self.text),
            path => write!(f, "{path}: {}", self.text),
        }
    }
}

/// Findings in the order in which they were made. As text: all of them on one line, parted by ` | `.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Problems {
    shown: Vec<Problem>,
    more: usize,
}

impl Problems {
    /// Adds a finding. One that was made before, as a value may be looked at twice, is no new one.
    pub fn add(&mut self, path: impl Into<String>, text: impl Into<String>) {
        let problem = Problem { path: path.into(), text: text.into() };
        if self.shown.contains(&problem) {
            return;
        }
        if self.shown.len() < SHOWN {
            self.shown.push(problem);
        } else {
            self.more += 1;
        }
    }

    /// True if nothing was found.
    pub fn is_empty(&self) -> bool {
        self.shown.is_empty()
    }

    /// How many were found, with those that are not shown.
    pub fn count(&self) -> usize {
        self.shown.len() + self.more
    }

    /// Those that are shown.
    pub fn shown(&self) -> &[Problem] {
        &self.shown
    }

    /// The error of code 7 that tells them all. `subject` is what was read: `conf of network "podnet"`.
    pub fn into_error(self, subject: &str) -> CniError {
        let message = match self.count() {
            1 => format!("{subject} has a problem"),
            count => format!("{subject} has {count} problems"),
        };
        CniError::new(Code::InvalidConf, message).with_details(self.to_string())
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, problem) in self.shown.iter().enumerate() {
            if at > 0 {
                f.write_str(" | ")?;
            }
            problem.fmt(f)?;
        }
        if self.more > 0 {
            write!(f, " | and {} more", self.more)?;
        }
        Ok(())
    }
}

/// A sentence of others, in which may stand what they read, as a message may repeat it: control characters escaped, cut
/// where it gets long.
pub fn plain(sentence: &str) -> String {
    let mut plain = String::new();
    for c in sentence.chars().take(SENTENCE) {
        if c.is_control() { plain.extend(c.escape_default()) } else { plain.push(c) }
    }
    if sentence.chars().nth(SENTENCE).is_some() {
        plain.push_str("...");
    }
    plain
}

/// `text` as a message may repeat it: in quotes, control characters escaped, cut where it gets long.
pub fn quote(text: &str) -> String {
    match text.char_indices().nth(QUOTED) {
        Some((end, _)) => format!("{:?}...", text.get(..end).unwrap_or_default()),
        None => format!("{text:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_findings_stand_in_one_line_each_with_its_place() {
        let mut problems = Problems::default();
        problems.add("mtu", "is 20");
        problems.add("", "is no network");
        problems.add("mtu", "is 20");
        let error = problems.into_error("conf");
        assert_eq!(error.code, Code::InvalidConf);
        assert_eq!(error.message, "conf has 2 problems");
        assert_eq!(error.details, "mtu: is 20 | is no network");
    }

    #[test]
    fn findings_without_end_do_not_become_an_answer_without_end() {
        let mut problems = Problems::default();
        for at in 0..1000 {
            problems.add(format!("a[{at}]"), "x");
        }
        assert_eq!(problems.count(), 1000);
        let text = problems.to_string();
        assert!(text.ends_with("a[49]: x | and 950 more"), "{text}");
    }

    #[test]
    fn a_quoted_text_cannot_break_a_line_or_fill_a_screen() {
        assert_eq!(quote("a\nb\u{1b}"), r#""a\nb\u{1b}""#);
        assert_eq!(quote(&"é".repeat(65)), format!("\"{}\"...", "é".repeat(64)));
        assert_eq!(plain("is `a\nb\u{9b}` \"c\""), "is `a\\nb\\u{9b}` \"c\"");
        assert_eq!(plain(&"é".repeat(257)), format!("{}...", "é".repeat(256)));
    }
}
