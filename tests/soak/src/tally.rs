//! What happened so far, as numbers: a line now and then, and a summary.

use crate::call::{Ended, Outcome, Verb};
use crate::system::lock;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Most a call's memory may have grown from the first third of a run to the last: pages come and go by a few.
const MEMORY_SLACK: f64 = 1.1;

/// Numbers of one interval.
#[derive(Debug, Clone, Default)]
struct Interval {
    calls: [usize; 5],
    times: [Vec<Duration>; 5],
    peaks: Vec<u64>,
    killed: usize,
    bereaved: usize,
    broken: usize,
}

/// What a quiet moment showed of what is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Open {
    /// Descriptors of this program.
    pub descriptors: usize,
    /// Processes, this one included: no call leaves one behind.
    pub processes: usize,
    /// Sockets of netlink in this network namespace.
    pub sockets: usize,
}

/// The book of a run.
pub struct Tally {
    began: Instant,
    current: Mutex<Interval>,
    past: Mutex<Vec<Interval>>,
    open: Mutex<Vec<Open>>,
}

impl Default for Tally {
    fn default() -> Self {
        let began = Instant::now();
        Self { began, current: Mutex::default(), past: Mutex::default(), open: Mutex::default() }
    }
}

impl Tally {
    /// A call has ended.
    pub fn count(&self, verb: Verb, ended: &Ended) {
        let mut current = lock(&self.current);
        if matches!(ended.outcome, Outcome::Killed) {
            current.killed += 1;
            return;
        }
        current.calls[verb as usize] += 1;
        // A measured one has one more process to start.
        match ended.peak {
            Some(peak) => current.peaks.push(peak),
            None => current.times[verb as usize].push(ended.elapsed),
        }
    }

    /// A namespace was removed under its pod.
    pub fn count_bereaved(&self) {
        lock(&self.current).bereaved += 1;
    }

    /// A vandal has broken something.
    pub fn count_broken(&self) {
        lock(&self.current).broken += 1;
    }

    /// How long the run has taken so far.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Ends an interval, at a quiet moment that found all repaired, and tells of it in one line.
    pub fn turn_the_page(&self, pods: usize, store: &Path) -> String {
        let open = Open::now();
        lock(&self.open).push(open);
        let page = std::mem::take(&mut *lock(&self.current));
        let mut line = format!("{:>5} s ", self.began.elapsed().as_secs());
        for verb in Verb::ALL {
            let _ = write!(line, " {} {}", verb.name(), page.calls[verb as usize]);
        }
        let peak = page.peaks.iter().max().copied().unwrap_or_default();
        let _ = write!(
            line,
            ", killed {}, namespaces removed {}, broken and repaired {}; pods {pods}, files in the store {}, open \
             files {}, sockets {}; {} KiB;",
            page.killed,
            page.bereaved,
            page.broken,
            count_files(store),
            open.descriptors,
            open.sockets,
            peak,
        );
        for verb in [Verb::Add, Verb::Del] {
            let times = &page.times[verb as usize];
            let _ = write!(line, " {} {} / {} ms", verb.name(), share(times, 50), share(times, 99));
        }
        lock(&self.past).push(page);
        line
    }

    /// The whole run, and what has grown although it must not.
    pub fn summary(&self) -> (String, Vec<String>) {
        let past = lock(&self.past);
        let third = (past.len() / 3).max(1);
        let all = Interval::joined(&past);
        let first = Interval::joined(past.get(..third).unwrap_or_default());
        let last = Interval::joined(past.get(past.len().saturating_sub(third)..).unwrap_or_default());
        let mut text = format!(
            "{} s: {} ADD and DEL, {} others, {} killed, {} namespaces removed under their pods, {} times something broken \
             and repaired\n",
            self.began.elapsed().as_secs(),
            all.calls[..2].iter().sum::<usize>(),
            all.calls[2..].iter().sum::<usize>(),
            all.killed,
            all.bereaved,
            all.broken,
        );
        let _ = writeln!(text, "median / p99 in ms, first third of the run and last:");
        for verb in Verb::ALL {
            let of = |interval: &Interval| {
                let times = &interval.times[verb as usize];
                format!("{} / {}", share(times, 50), share(times, 99))
            };
            let _ = writeln!(text, "  {:<6} {:>16} {:>16}", verb.name(), of(&first), of(&last));
        }
        let _ = writeln!(text, "memory of a call, median KiB: {} and {}", first.weight(), last.weight());
        let mut grown = Vec::new();
        if last.weight() as f64 > first.weight() as f64 * MEMORY_SLACK {
            grown.push(format!(
                "the memory of a call has grown from {} to {} KiB",
                first.weight(),
                last.weight()
            ));
        }
        let open = lock(&self.open);
        if let (Some(before), Some(after)) = (open.first(), open.last()) {
            let _ =
                writeln!(text, "open at the first quiet moment and at the last: {before:?} and {after:?}");
            if before != after {
                grown.push(format!("what is open has grown from {before:?} to {after:?}"));
            }
        }
        (text, grown)
    }
}

impl Interval {
    fn joined(intervals: &[Self]) -> Self {
        let mut all = Self::default();
        for interval in intervals {
            for (calls, more) in all.calls.iter_mut().zip(interval.calls) {
                *calls += more;
            }
            for (times, more) in all.times.iter_mut().zip(&interval.times) {
                times.extend(more);
            }
            all.peaks.extend(&interval.peaks);
            all.killed += interval.killed;
            all.bereaved += interval.bereaved;
            all.broken += interval.broken;
        }
        all
    }

    fn weight(&self) -> u64 {
        let mut peaks = self.peaks.clone();
        peaks.sort_unstable();
        peaks.get(peaks.len() / 2).copied().unwrap_or_default()
    }
}

impl Open {
    fn now() -> Self {
        let is_number = |name: &str| name.bytes().all(|byte| byte.is_ascii_digit());
        let processes = names("/proc").into_iter().filter(|name| is_number(name)).count();
        // Its first line is a heading.
        let sockets = fs::read_to_string("/proc/net/netlink").unwrap_or_default().lines().skip(1).count();
        Self { descriptors: names("/proc/self/fd").len(), processes, sockets }
    }
}

fn names(directory: &str) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn count_files(directory: &Path) -> usize {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| if entry.path().is_dir() { count_files(&entry.path()) } else { 1 }).sum()
}

/// The time that `percent` of them took at most, in ms.
pub fn share(times: &[Duration], percent: usize) -> String {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let time = sorted.get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1)));
    time.map_or_else(|| "-".to_owned(), |time| format!("{:.1}", time.as_secs_f64() * 1e3))
}
