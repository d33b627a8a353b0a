//! strace as the hand that breaks: it tells which system calls a command makes, and lets one of them go wrong.
//!
//! strace counts the calls of a name for each thread of its own. A call of a helper thread is therefore reached by
//! its number only where no other thread has come to that number before; else by the file that it is about; else not
//! at all ([`Step::place`] is `None`), which the tests say.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;

use kit::answer::Answer;
use kit::call::Call;

/// One system call of a command.
#[derive(Debug, Clone)]
pub struct Step {
    /// Its name.
    pub call: String,
    /// As strace shows it: `name(arguments) = result`.
    pub text: String,
    /// Where it is to be met again.
    pub place: Option<Place>,
}

/// Which call of a name it is, in its thread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    nth: usize,
    /// Counting only those that are about this file.
    path: Option<String>,
}

/// What goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The call is not made, and this errno is what the command gets.
    Error(&'static str),
    /// The process is killed on its way into the call, which is not made.
    Killed,
    /// The call is made, and the first bytes of what it read are these instead.
    Lie(&'static str, Vec<u8>),
}

/// The first call of a command's own: what comes before is the loader's and the standard library's, without which
/// there is no command yet.
const FIRST: &str = "read(0";

/// Runs `call` unharmed and tells what it did, from the moment it reads its conf.
pub fn watch(call: &Call, scratch: &Path) -> (Answer, Vec<Step>) {
    let trace = scratch.join("watched");
    let words = ["strace", "-f", "-y", "-X", "verbose", "-qq", "-e", "signal=none", "-o"];
    let answer = call.clone().through(words).through([&trace]).run();
    let text = fs::read_to_string(&trace).expect("what strace saw");
    (answer, steps_of(&text))
}

/// Runs `call` with one thing gone wrong. `None` if it never came to that step.
pub fn strike(call: &Call, step: &Step, fault: &Fault, scratch: &Path) -> Option<Answer> {
    let place = step.place.as_ref().expect("a place to strike at");
    let trace = scratch.join("struck");
    let name = &step.call;
    let what = match fault {
        Fault::Error(errno) => format!("error={errno}"),
        Fault::Killed => "signal=SIGKILL".to_owned(),
        Fault::Lie(_, bytes) => {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("poke_exit=@arg2={hex}")
        }
    };
    let inject = format!("inject={name}:{what}:when={}", place.nth);
    let mut struck = call.clone().through(["strace", "-f", "-qq", "-e", "signal=none", "-e"]);
    struck = struck.through([&format!("trace={name}"), "-e", &inject]);
    // The kernel then stops it at the calls of that name only. At such a stop strace cannot send a signal.
    struck = struck.through((*fault != Fault::Killed).then_some("--seccomp-bpf"));
    if let Some(path) = &place.path {
        struck = struck.through(["-P", path]);
    }
    let answer = struck.through(["-o"]).through([&trace]).spawn().wait_for_any_end();
    let seen = fs::read_to_string(&trace).unwrap_or_default();
    let has_struck = match fault {
        // strace ends as what it watched did.
        Fault::Killed => answer.status.signal() == Some(9),
        Fault::Error(_) | Fault::Lie(..) => seen.contains("(INJECTED"),
    };
    has_struck.then_some(answer)
}

fn steps_of(trace: &str) -> Vec<Step> {
    // (thread, call, text) of each line that begins a call.
    let begun: Vec<(&str, &str, &str)> = trace.lines().filter_map(begin).collect();
    let main = begun.first().map(|(thread, ..)| *thread);
    let mut by_name: HashMap<(&str, &str), usize> = HashMap::new();
    let mut by_path: HashMap<(&str, &str, &str), usize> = HashMap::new();
    // The highest number that any thread has come to.
    let mut name_reached: HashMap<&str, usize> = HashMap::new();
    let mut path_reached: HashMap<(&str, &str), usize> = HashMap::new();
    let mut steps = Vec::new();
    let mut has_begun = false;
    for (thread, call, text) in begun {
        let nth = count(&mut by_name, (thread, call));
        let is_first = reach(&mut name_reached, call, nth);
        let mut place = is_first.then_some(Place { nth, path: None });
        if let Some(path) = path_in(text) {
            let nth = count(&mut by_path, (thread, call, path));
            let is_first = reach(&mut path_reached, (call, path), nth);
            if place.is_none() && is_first {
                place = Some(Place { nth, path: Some(path.to_owned()) });
            }
        }
        has_begun |= Some(thread) == main && text.starts_with(FIRST);
        if has_begun {
            steps.push(Step { call: call.to_owned(), text: text.to_owned(), place });
        }
    }
    steps
}

/// "PID name(...": thread, name and the whole. Not the second half of a call that another thread's came between.
fn begin(line: &str) -> Option<(&str, &str, &str)> {
    let (thread, text) = line.split_once(char::is_whitespace)?;
    let text = text.trim_start();
    let (call, _) = text.split_once('(')?;
    let is_name = !call.is_empty() && call.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    is_name.then_some((thread, call, text))
}

/// The file that a call is about: the one that its descriptor is open on, or else the path that it names.
fn path_in(text: &str) -> Option<&str> {
    let start = text.find("(").map(|at| at + 1)?;
    let arguments = &text[start..];
    let opened = arguments.split_once('<').filter(|(before, _)| before.bytes().all(|it| it.is_ascii_digit()));
    let named = arguments.split_once('"').and_then(|(_, after)| after.split_once('"')).map(|(path, _)| path);
    let opened = opened.and_then(|(_, after)| after.split_once('>')).map(|(path, _)| path);
    opened.or(named).filter(|path| path.starts_with('/'))
}

fn count<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, usize>, key: K) -> usize {
    let count = counts.entry(key).or_default();
    *count += 1;
    *count
}

/// Whether nobody has come to `nth` before.
fn reach<K: std::hash::Hash + Eq>(reached: &mut HashMap<K, usize>, key: K, nth: usize) -> bool {
    let highest = reached.entry(key).or_default();
    let is_new = nth > *highest;
    *highest = nth.max(*highest);
    is_new
}

impl fmt::Display for Step {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let short: String = self.text.chars().take(200).collect();
        match &self.place {
            Some(Place { nth, path: None }) => write!(formatter, "{}#{nth}: {short}", self.call),
            Some(Place { nth, path: Some(path) }) => {
                write!(formatter, "{}#{nth} on {path}: {short}", self.call)
            }
            None => write!(formatter, "{short}"),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Error(errno) => formatter.write_str(errno),
            Self::Killed => formatter.write_str("SIGKILL"),
            Self::Lie(what, _) => formatter.write_str(what),
        }
    }
}
