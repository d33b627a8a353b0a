//! What was measured, as tables that can be pasted into a document, and as lines of a table.

use std::fmt::Write;
use std::time::Duration;

use crate::agents::Cost;
use crate::control_plane::Spent;

const MEBI: f64 = 1_048_576.0;

/// Everything that a run found out.
#[derive(Default)]
pub struct Report {
    text: String,
    tsv: String,
}

impl Report {
    /// A finding that is no table.
    pub fn line(&mut self, line: String) {
        let _ = writeln!(self.text, "\n{line}");
    }

    /// What a list costs by its form: bytes, and CPU of the server.
    pub fn forms(&mut self, title: &str, rows: &[(&str, usize, f64)]) {
        let _ = writeln!(self.text, "\n| {title} | MiB | CPU of the server, s |\n|---|---|---|");
        for (name, bytes, spent) in rows {
            let mebi = *bytes as f64 / MEBI;
            let _ = writeln!(self.text, "| {name} | {mebi:.1} | {spent:.2} |");
            self.value(title, name, "MiB", mebi);
            self.value(title, name, "server CPU s", *spent);
        }
    }

    /// What the server does without agents.
    pub fn idle(&mut self, spent: Spent, window: Duration, writes: u64) {
        let share = |spent: f64| 100.0 * spent / window.as_secs_f64();
        let (server, etcd) = (share(spent.server), share(spent.etcd));
        self.line(format!(
            "without agents: kube-apiserver {server:.1} % of a core, etcd {etcd:.1} %, {writes} writes in {} s",
            window.as_secs()
        ));
        self.value("without agents", "kube-apiserver", "% of a core", server);
        self.value("without agents", "etcd", "% of a core", etcd);
    }

    /// What an agent's beginning costs.
    pub fn first(&mut self, name: &str, cost: &Cost) {
        let title = "until an agent knows all Nodes";
        let rows = [
            ("MiB to the agent", cost.bytes / MEBI),
            ("server CPU s", cost.server),
            ("agent CPU s", cost.agent),
            ("agent memory MiB", cost.memory[0] as f64 / 1024.0),
            ("server memory MiB", cost.memory[1] as f64 / 1024.0),
            ("s until all have it", cost.time.as_secs_f64()),
        ];
        self.rows(title, name, &rows);
    }

    /// What an agent costs from then on.
    pub fn steady(&mut self, name: &str, cost: &Cost, window: Duration) {
        let hours = window.as_secs_f64() / 3_600.0;
        let rows = [
            ("MiB an hour to the agent", cost.bytes / MEBI / hours),
            ("MiB an hour from it", cost.sent / MEBI / hours),
            ("server CPU s an hour", cost.server / hours),
            ("agent CPU s an hour", cost.agent / hours),
            ("connections", cost.connections),
        ];
        self.rows("an agent that runs", name, &rows);
    }

    /// After how long an agent says that it does not hear the server.
    pub fn noticed(&mut self, what: &str, after: Option<Duration>, patience: Duration) {
        match after {
            Some(after) => {
                self.line(format!("{what}: noticed after {:.0} s", after.as_secs_f64()));
                self.value("noticed", what, "s", after.as_secs_f64());
            }
            None => self.line(format!("{what}: not noticed within {} s", patience.as_secs())),
        }
    }

    fn rows(&mut self, title: &str, name: &str, rows: &[(&str, f64)]) {
        let _ = writeln!(self.text, "\n| {title}: {name} | |\n|---|---|");
        for (unit, value) in rows {
            let _ = writeln!(self.text, "| {unit} | {value:.2} |");
            self.value(title, name, unit, *value);
        }
    }

    fn value(&mut self, case: &str, variant: &str, unit: &str, value: f64) {
        let _ = writeln!(self.tsv, "{case}\t{variant}\t{unit}\t{value:.3}");
    }

    /// The whole of it.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// One value a line, separated by tabs.
    pub fn tsv(&self) -> String {
        format!("case\tvariant\tunit\tvalue\n{}", self.tsv)
    }
}
