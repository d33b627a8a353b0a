//! What a step found and did, for people and for `kubectl ferrule migrate`.

use std::fmt::Write;

use serde::Serialize;

use crate::cli::Report;
use crate::cli::arguments::MigrateStep;
use crate::cli::bridges::ManualStep;
use crate::cli::import::report::ImportReport;
use crate::cli::migrate::old::{Found, InUse};
use crate::cni::ids::NetworkName;
use crate::text_table::escape;

/// What a step found and did.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MigrateReport {
    pub version: u32,
    pub step: MigrateStep,
    pub network: String,
    /// Which network new pods get.
    pub in_use: InUse,
    /// Whether ferrule's conflist is there.
    pub has_conflist: bool,
    /// Type of the old main plugin.
    pub old_plugin: Option<String>,
    /// host-local's directory.
    pub host_local: Option<String>,
    /// The import, or what it would do.
    pub import: Option<ImportReport>,
    /// Files that got another name.
    pub moved: Vec<String>,
    /// Types of the plugins that stand behind ferrule now as they did behind the old plugin.
    pub carried: Vec<String>,
    /// What was done for pods on a bridge.
    pub followed: Vec<Followed>,
    /// What keeps the node from moving.
    pub problems: Vec<String>,
}

/// A command that import leaves to a person.
#[derive(Serialize)]
pub struct Followed {
    pub command: String,
    pub reason: String,
    /// Why it failed.
    pub problem: Option<String>,
}

impl MigrateReport {
    /// One in which nothing has been done.
    pub fn new(step: MigrateStep, network: &NetworkName, found: &Found) -> Self {
        Self {
            version: 1,
            step,
            network: network.to_string(),
            in_use: found.in_use,
            has_conflist: found.ours.is_some(),
            old_plugin: found.old.as_ref().map(|old| old.plugin.clone()),
            host_local: None,
            import: None,
            moved: Vec::new(),
            carried: Vec::new(),
            followed: Vec::new(),
            problems: Vec::new(),
        }
    }

    /// Whether one of the imported pods has ports of the node.
    pub fn has_host_ports(&self) -> bool {
        self.import.iter().flat_map(|it| &it.pods).any(|pod| !pod.host_ports.is_empty())
    }

    /// What import leaves to do, which is going to be done.
    pub fn take_steps(&mut self) -> Vec<ManualStep> {
        self.import.as_mut().map(|it| std::mem::take(&mut it.steps)).unwrap_or_default()
    }
}

impl Report for MigrateReport {
    fn is_success(&self) -> bool {
        self.problems.is_empty() && self.followed.iter().all(|it| it.problem.is_none())
    }

    fn to_text(&self, colour: bool) -> String {
        let mut text = self.import.as_ref().map(|it| it.to_text(colour)).unwrap_or_default();
        let in_use = match (self.in_use, &self.old_plugin) {
            (InUse::Old, Some(plugin)) => format!("new pods get their network from {plugin}"),
            (InUse::Ferrule, _) => "new pods get their network from ferrule".to_owned(),
            _ => "new pods get no network".to_owned(),
        };
        let _ = writeln!(text, "\n{}", escape(&in_use));
        for moved in &self.moved {
            let _ = writeln!(text, "renamed: {}", escape(moved));
        }
        for kind in &self.carried {
            let _ = writeln!(text, "kept behind ferrule: {}", escape(kind));
        }
        for it in &self.followed {
            let problem = it.problem.as_ref().map(|problem| format!(": failed: {problem}; {}", it.reason));
            let _ = writeln!(text, "done: {}{}", escape(&it.command), escape(&problem.unwrap_or_default()));
        }
        for problem in &self.problems {
            let _ = writeln!(text, "\n{}", escape(problem));
        }
        text
    }
}
