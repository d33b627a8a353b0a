//! What was measured, as tables that can be pasted into a document, and what was promised beside what was reached.

use crate::lab::{Lab, run};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::thread;
use std::time::Duration;

/// Durations of the same thing.
#[derive(Clone, Default)]
pub struct Samples(Vec<Duration>);

impl Samples {
    /// Adds one.
    pub fn push(&mut self, sample: Duration) {
        self.0.push(sample);
    }

    /// The middle one; of an even number, the upper middle.
    pub fn median(&self) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied().unwrap_or_default()
    }

    fn min(&self) -> Duration {
        self.0.iter().min().copied().unwrap_or_default()
    }
}

impl From<Duration> for Samples {
    fn from(sample: Duration) -> Samples {
        Samples(vec![sample])
    }
}

/// One comparison: rows of samples, and the rows that the others are held against.
pub struct Table {
    title: String,
    references: Vec<String>,
    rows: Vec<(String, Samples)>,
}

impl Table {
    /// An empty one; `references` are the names of the rows that the others are held against.
    pub fn new(title: &str, references: &[&str]) -> Table {
        let references = references.iter().map(|&name| name.to_owned()).collect();
        Table { title: title.to_owned(), references, rows: Vec::new() }
    }

    /// Adds a contender.
    pub fn row(&mut self, name: &str, samples: &Samples) {
        self.rows.push((name.to_owned(), samples.clone()));
    }

    /// How many times the reference's median the one's median is; None if one of them was not measured.
    pub fn ratio(&self, name: &str, reference: &str) -> Option<f64> {
        Some(self.median(name)?.as_secs_f64() / self.median(reference)?.as_secs_f64())
    }

    fn median(&self, name: &str) -> Option<Duration> {
        self.rows.iter().find(|(row, _)| row == name).map(|(_, samples)| samples.median())
    }

    fn text(&self) -> String {
        let mut lines = vec![vec!["".to_owned(), "median ms".to_owned(), "min ms".to_owned()]];
        // A reference that was not measured would be an empty column.
        let references: Vec<_> = self.references.iter().filter(|name| self.median(name).is_some()).collect();
        lines[0].extend(references.iter().map(|reference| format!("x {reference}")));
        for (name, samples) in &self.rows {
            let mut line = vec![name.clone(), milliseconds(samples.median()), milliseconds(samples.min())];
            line.extend(references.iter().map(|reference| match self.ratio(name, reference) {
                Some(ratio) => format!("{ratio:.2}"),
                None => "-".to_owned(),
            }));
            lines.push(line);
        }
        format!("{}:\n\n{}", self.title, align(&lines))
    }
}

/// A promise of the project, and how to tell whether it is kept.
pub struct Target {
    words: &'static str,
    /// The name that the measurement was filed under.
    measurement: &'static str,
    bound: Bound,
}

#[derive(Clone, Copy)]
enum Bound {
    AtMost(f64),
    /// The measurement is the inverse: 0.25 of a peer's time is four times faster.
    TimesFaster(f64),
}

impl Target {
    /// What this project promises.
    pub fn of_this_project() -> Vec<Target> {
        use Bound::{AtMost, TimesFaster};
        [
            ("ADD, times the floor", "ADD to floor", AtMost(1.5)),
            ("ADD, times faster than ptp", "ADD to ptp + host-local", TimesFaster(4.0)),
            ("DEL, times the floor", "DEL to floor", AtMost(1.1)),
            ("80 ADDs, 16 at once, times the floor", "80 ADD to floor", AtMost(1.5)),
            ("80 ADDs, 16 at once, times faster than ptp", "80 ADD to ptp + host-local", TimesFaster(4.0)),
            ("80 DELs, 16 at once, times the floor", "80 DEL to floor", AtMost(1.2)),
            ("80 DELs, 16 at once, times faster than ptp", "80 DEL to ptp + host-local", TimesFaster(2.5)),
            ("served ADD, times the floor", "ADD with masquerade and a hostPort to floor", AtMost(2.0)),
            (
                "served ADD, times faster than portmap",
                "ADD with masquerade and a hostPort to bridge + host-local + portmap",
                TimesFaster(12.0),
            ),
            ("served DEL, times the floor", "DEL with masquerade and a hostPort to floor", AtMost(1.1)),
            (
                "served DEL, times faster than portmap",
                "DEL with masquerade and a hostPort to bridge + host-local + portmap",
                TimesFaster(4.0),
            ),
            (
                "80 served ADDs, 16 at once, times faster than portmap",
                "80 ADD with masquerade and a hostPort to bridge + host-local + portmap",
                TimesFaster(25.0),
            ),
            (
                "80 served DELs, 16 at once, times faster than portmap",
                "80 DEL with masquerade and a hostPort to bridge + host-local + portmap",
                TimesFaster(20.0),
            ),
            (
                "served ADD with 1,000 hostPorts on the node, times with none",
                "ADD at 1000 hostPorts",
                AtMost(1.1),
            ),
            ("ADD with 250 pods and 100 policies on the node, ms more", "ADD with policies", AtMost(0.3)),
            ("GC of 200 dead attachments, ms", "GC in ms", AtMost(100.0)),
            ("IPAM ADD with 60,000 held, times the empty store", "IPAM ADD at 60,000 to empty", AtMost(1.3)),
            ("IPAM DEL with 60,000 held, times the empty store", "IPAM DEL at 60,000 to empty", AtMost(1.3)),
            ("ADD of lo, times faster than the reference plugin", "ADD of lo to loopback", TimesFaster(2.0)),
            ("peak memory of ADD and DEL, MiB", "peak memory in MiB", AtMost(4.0)),
            ("the binary, MiB", "binary in MiB", AtMost(3.0)),
        ]
        .map(|(words, measurement, bound)| Target { words, measurement, bound })
        .into()
    }
}

/// Everything that a run found out.
pub struct Report {
    machine: String,
    left_out: Vec<String>,
    tables: Vec<Table>,
    memory: Option<String>,
    measurements: BTreeMap<String, f64>,
}

impl Report {
    /// An empty one, with the machine described.
    pub fn new(lab: &Lab, peers_version: &str) -> Report {
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let cores = thread::available_parallelism().map_or(0, usize::from);
        let ferrule = run(&lab.ferrule().display().to_string(), &["--version"]).unwrap_or_default();
        let machine = format!(
            "{cores} cores, kernel {}; {}; containernetworking-plugins {peers_version}\n",
            kernel.trim(),
            ferrule.lines().next().unwrap_or("ferrule of no known version"),
        );
        Report {
            machine,
            left_out: Vec::new(),
            tables: Vec::new(),
            memory: None,
            measurements: BTreeMap::new(),
        }
    }

    /// Somebody could not be measured.
    pub fn left_out(&mut self, name: &str, reason: &str) {
        eprintln!("left out: {name}: {reason}");
        self.left_out.push(format!("left out: {name}: {reason}\n"));
    }

    /// Keeps the table, to be shown after those before it.
    pub fn show(&mut self, table: Table) {
        self.tables.push(table);
    }

    /// A number that a target is held against, if there is one.
    pub fn measured(&mut self, name: &str, value: Option<f64>) {
        self.measurements.extend(value.map(|value| (name.to_owned(), value)));
    }

    /// Peaks of ADD and DEL in KiB.
    pub fn memory(&mut self, lines: &[(&str, u64, u64)]) {
        let mut cells = vec![["", "ADD KiB", "DEL KiB"].map(str::to_owned).to_vec()];
        cells.extend(
            lines.iter().map(|(name, add, del)| vec![(*name).to_owned(), add.to_string(), del.to_string()]),
        );
        self.memory =
            Some(format!("peak memory, the processes that a plugin starts included:\n\n{}", align(&cells)));
    }

    /// The medians of all tables, one a line, separated by tabs: what `scripts/plot.sh` draws.
    pub fn tsv(&self) -> String {
        let mut text = "case\tcontender\tmedian_ms\n".to_owned();
        for table in &self.tables {
            for (name, samples) in &table.rows {
                let _ = writeln!(text, "{}\t{name}\t{}", table.title, milliseconds(samples.median()));
            }
        }
        text
    }

    /// The whole of it.
    pub fn text(&self, targets: &[Target]) -> String {
        let mut text = format!("\n{}{}", self.machine, self.left_out.concat());
        let _ = writeln!(
            text,
            "whole processes, in turns; floor = benches/floor.c, for DEL the deletion of link and elements alone; \
             ptp and bridge with IPv4 only where not said otherwise; served = with masquerade and a hostPort\n"
        );
        for table in self.tables.iter().map(Table::text).chain(self.memory.clone()) {
            let _ = writeln!(text, "{table}");
        }
        let mut cells = vec![["promised", "", "reached", ""].map(str::to_owned).to_vec()];
        cells.extend(targets.iter().map(|target| self.verdict(target)));
        text + &align(&cells)
    }

    fn verdict(&self, target: &Target) -> Vec<String> {
        let measured = self.measurements.get(target.measurement).copied();
        let (bound, reached, kept) = match target.bound {
            Bound::AtMost(limit) => {
                (format!("at most {limit}"), measured, measured.map(|value| value <= limit))
            }
            Bound::TimesFaster(limit) => {
                let times = measured.map(|value| 1.0 / value);
                (format!("at least {limit}"), times, times.map(|value| value >= limit))
            }
        };
        let reached = reached.map_or_else(|| "-".to_owned(), |value| format!("{value:.2}"));
        let verdict = match kept {
            Some(true) => "kept",
            Some(false) => "MISSED",
            None => "not measured",
        };
        vec![target.words.to_owned(), bound, reached, verdict.to_owned()]
    }
}

fn milliseconds(duration: Duration) -> String {
    format!("{:.2}", duration.as_secs_f64() * 1e3)
}

/// A table in Markdown, the first line its head, the columns as wide as their widest cell. Numbers stand right.
fn align(lines: &[Vec<String>]) -> String {
    let columns = lines.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        lines
            .iter()
            .filter_map(|line| line.get(column))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or_default()
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for (number, line) in lines.iter().enumerate() {
        for (column, (cell, &width)) in line.iter().zip(&widths).enumerate() {
            let _ = if column == 0 {
                write!(text, "| {cell:<width$} ")
            } else {
                write!(text, "| {cell:>width$} ")
            };
        }
        text.push_str("|\n");
        if number == 0 {
            for (column, &width) in widths.iter().enumerate() {
                let _ = match column {
                    0 => write!(text, "|{:-<1$}", "", width + 2),
                    _ => write!(text, "|{:-<1$}:", "", width + 1),
                };
            }
            text.push_str("|\n");
        }
    }
    text
}
