//! Running kubectl and docker, and waiting for what announces itself to nobody.

use std::fmt;
use std::process::Command;
use std::time::{Duration, Instant};

/// After this a program is killed. Building an image, or waiting for a roll-out, takes minutes.
const PATIENCE: Duration = Duration::from_secs(20 * 60);

/// Why a case failed, in words for the one who reads the report.
#[derive(Debug)]
pub struct Failure(String);

/// The result of everything here.
pub type Result<T = ()> = std::result::Result<T, Failure>;

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl<T: Into<String>> From<T> for Failure {
    fn from(text: T) -> Self {
        Self(text.into())
    }
}

/// Fails with the words that follow unless the condition holds.
#[macro_export]
macro_rules! ensure {
    ($condition:expr, $($words:tt)+) => {
        if !$condition {
            return Err(format!($($words)+).into());
        }
    };
}

/// Runs a program to its end and gives its standard output; any status but 0 is a failure that quotes what it said.
pub fn run(program: &str, words: &[&str]) -> Result<String> {
    run_with_input(program, words, "")
}

/// The same, with `input` on its standard input.
pub fn run_with_input(program: &str, words: &[&str], input: &str) -> Result<String> {
    let done = kit::process::run_within(PATIENCE, Command::new(program).args(words), input);
    done.map_err(|failed| Failure(failed.to_string()))
}

/// Asks again and again until `probe` gives a value; fails with what it said last if it never does within `limit`.
pub fn eventually<T>(what: &str, limit: Duration, mut probe: impl FnMut() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    loop {
        match probe() {
            Ok(value) => return Ok(value),
            Err(last) if start.elapsed() > limit => {
                return Err(format!("{what}: not within {} s; last: {last}", limit.as_secs()).into());
            }
            Err(_) => pause(Duration::from_millis(200)),
        }
    }
}

/// Lets time pass: between two looks at what sends no events, and while traffic is watched.
pub fn pause(time: Duration) {
    #[allow(clippy::disallowed_methods, reason = "the one place; a cluster is looked at from far away")]
    std::thread::sleep(time);
}

/// Seconds, with one digit behind the point.
pub fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}
