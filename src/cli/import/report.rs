//! What an import did, for people and for programs.

use std::fmt::Write;
use std::net::IpAddr;

use serde::Serialize;

use crate::cli::Report;
use crate::cli::bridges::ManualStep;
use crate::cli::import::candidates::{Candidate, Evidence};
use crate::cli::import::results::HostPort;
use crate::text_table::{Cell, Table, Tone, escape};

/// What was taken over, and what was not.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ImportReport {
    pub version: u32,
    pub dry_run: bool,
    /// host-local's directory.
    pub from: String,
    /// The network that the pods are part of now.
    pub network: String,
    /// Pods that were taken over, or would be, and those that are ferrule's already.
    pub pods: Vec<ImportedPod>,
    /// Pods that are gone, whose addresses host-local holds still.
    pub dead: Vec<ImportedPod>,
    /// What was not imported, and why.
    pub skipped: Vec<Skipped>,
    /// What a person still has to do.
    pub steps: Vec<ManualStep>,
    /// What kept a pod from being taken over, or needs a person's eye.
    pub problems: Vec<String>,
}

/// A pod of the old plugin.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ImportedPod {
    /// `namespace/name`, where the runtime told it.
    pub pod: Option<String>,
    pub container: String,
    pub ifname: String,
    pub addresses: Vec<IpAddr>,
    pub netns: Option<String>,
    pub host_link: Option<String>,
    pub host_ports: Vec<HostPort>,
    /// `imported`, `already` or `dead`.
    pub state: &'static str,
    pub notes: Vec<String>,
}

/// Something that was not touched, and why.
#[derive(Serialize)]
pub struct Skipped {
    pub what: String,
    pub reason: String,
}

impl ImportReport {
    /// An empty one.
    pub fn new(dry_run: bool, from: String, network: String) -> Self {
        Self {
            version: 1,
            dry_run,
            from,
            network,
            pods: Vec::new(),
            dead: Vec::new(),
            skipped: Vec::new(),
            steps: Vec::new(),
            problems: Vec::new(),
        }
    }

    /// Adds something that was not imported.
    pub fn skip(&mut self, what: String, reason: String) {
        self.skipped.push(Skipped { what, reason });
    }
}

impl Report for ImportReport {
    fn is_success(&self) -> bool {
        self.problems.is_empty()
    }

    fn to_text(&self, colour: bool) -> String {
        let mut text = String::new();
        let mut table = Table::new(["POD", "CONTAINER", "ADDRESSES", "OLD LINK", "STATE"]);
        for it in self.pods.iter().chain(&self.dead) {
            let state = match (it.state, self.dry_run) {
                ("imported", true) => "would be imported".into(),
                ("already", _) => "imported before".into(),
                ("dead", _) => Cell::toned("dead: its namespace is gone; not imported", Tone::Odd),
                (state, _) => state.into(),
            };
            table.push([
                it.pod.as_deref().unwrap_or("-").into(),
                it.container.chars().take(13).collect::<String>().into(),
                it.addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(" ").into(),
                it.host_link.as_deref().unwrap_or("-").into(),
                state,
            ]);
        }
        let table = table.render(colour);
        let nothing = format!("no pod has an address of {}\n", escape(&self.from));
        text.push_str(if table.is_empty() { &nothing } else { &table });
        for it in &self.pods {
            for note in &it.notes {
                let _ = writeln!(text, "\n{}: {}", escape(it.name()), escape(note));
            }
            if !it.host_ports.is_empty() {
                let ports: Vec<String> = it.host_ports.iter().map(HostPort::to_string).collect();
                let _ = writeln!(
                    text,
                    "\n{}: its host ports {} are made by portmap: keep that plugin in the conflist, behind ferrule, \
                     until this pod is gone",
                    escape(it.name()),
                    escape(&ports.join(", "))
                );
            }
        }
        for it in &self.skipped {
            let _ = writeln!(text, "\nskipped: {}: {}", escape(&it.what), escape(&it.reason));
        }
        for step in &self.steps {
            let _ = writeln!(text, "\nto do: {}\n  {}", escape(&step.reason), escape(&step.command));
        }
        for problem in &self.problems {
            let _ = writeln!(text, "\n{}", escape(problem));
        }
        text
    }
}

impl ImportedPod {
    /// The pod in that state.
    pub fn of(candidate: &Candidate, state: &'static str) -> Self {
        let netns = match &candidate.evidence {
            Evidence::Stands(netns) => Some(netns.path.to_string()),
            _ => None,
        };
        Self {
            pod: candidate.pod.as_ref().map(ToString::to_string),
            container: candidate.key.container.to_string(),
            ifname: candidate.key.ifname.to_string(),
            addresses: candidate.addresses.clone(),
            netns,
            host_link: candidate.host_link.as_ref().map(ToString::to_string),
            host_ports: candidate.host_ports.clone(),
            state,
            notes: candidate.notes.clone(),
        }
    }

    fn name(&self) -> &str {
        self.pod.as_deref().unwrap_or(&self.container)
    }
}
