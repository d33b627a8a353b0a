//! What was measured, as tables that can be pasted into a document.

use std::fmt::Write;
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
    fn median(&self) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied().unwrap_or_default()
    }

    fn max(&self) -> Duration {
        self.0.iter().max().copied().unwrap_or_default()
    }
}

/// Everything that a run found out.
#[derive(Default)]
pub struct Report {
    text: String,
    tsv: String,
}

impl Report {
    /// Things done one after another, by what was there; held against the first row.
    pub fn rates(&mut self, title: &str, rows: Vec<(String, Samples)>) {
        let first = rows.first().map(|(_, samples)| samples.median().as_secs_f64()).unwrap_or_default();
        let _ = writeln!(self.text, "\n{title}\n\n| | a second | of the first row |\n|---|---|---|");
        for (name, samples) in &rows {
            let each = samples.median().as_secs_f64();
            let _ = writeln!(self.text, "| {name} | {:.0} | {:.1} % |", 1.0 / each, 100.0 * first / each);
        }
        self.rows(title, &rows);
    }

    /// Things that take a time each.
    pub fn times(&mut self, title: &str, rows: Vec<(String, Samples)>) {
        let _ = writeln!(self.text, "\n{title}\n\n| | median ms | max ms |\n|---|---|---|");
        for (name, samples) in &rows {
            let (median, max) = (milliseconds(samples.median()), milliseconds(samples.max()));
            let _ = writeln!(self.text, "| {name} | {median} | {max} |");
        }
        self.rows(title, &rows);
    }

    /// A finding that is no table.
    pub fn line(&mut self, line: String) {
        let _ = writeln!(self.text, "\n{line}");
    }

    /// The medians, one a line, separated by tabs, as those of the other bench: what `scripts/plot.sh` draws.
    fn rows(&mut self, title: &str, rows: &[(String, Samples)]) {
        for (name, samples) in rows {
            let _ = writeln!(self.tsv, "{title}\t{name}\t{}", milliseconds(samples.median()));
        }
    }

    /// The whole of it.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// See [`Report::rows`].
    pub fn tsv(&self) -> String {
        format!("case\tcontender\tmedian_ms\n{}", self.tsv)
    }
}

fn milliseconds(duration: Duration) -> String {
    format!("{:.4}", duration.as_secs_f64() * 1e3)
}

/// `no policies`, `1 policy`, `1,000 policies`.
pub fn count(number: usize, things: &str) -> String {
    match number {
        0 => format!("no {things}"),
        1 => format!("1 {}", things.replace("ies", "y")),
        1_000.. => format!("{},{:03} {things}", number / 1_000, number % 1_000),
        _ => format!("{number} {things}"),
    }
}
