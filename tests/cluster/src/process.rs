//! Running kubectl and docker, and waiting for what announces itself to nobody.

use std::fmt;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

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
    let failed = |why: &str| Failure(format!("{program} {}: {why}", words.join(" ")));
    let mut child = Command::new(program)
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed(&error.to_string()))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that does not read all of it says why by its status.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().map_err(|error| failed(&error.to_string()))?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(stdout);
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    Err(failed(&format!("{}\n{}\n{}", output.status, stderr.trim(), stdout.trim())))
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
