//! What became of each node.

use std::fmt::Write;

use k8s_openapi::api::apps::v1::DaemonSet;
use kube::ResourceExt;
use serde::Serialize;

use crate::kubectl::Report;
use crate::kubectl::migrate::LABEL;
use crate::text_table::{Cell, Table, Tone, escape};

/// What became of them.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MigrateReport {
    version: u32,
    dry_run: bool,
    nodes: Vec<NodeReport>,
    /// What is left to do for a person.
    next: Vec<String>,
}

/// What became of a node.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeReport {
    pub node: String,
    pub state: State,
    /// Pods that were taken over, or would be.
    pub pods: usize,
    /// Pods that had been taken over before.
    pub taken_before: usize,
    /// Pods that are gone, whose addresses host-local holds.
    pub dead: usize,
    pub old_plugin: Option<String>,
    /// host-local's directory.
    pub host_local: Option<String>,
    pub notes: Vec<String>,
    /// Why it did not move, and what stands.
    pub problem: Option<String>,
    /// What stands, should the next step fail.
    #[serde(skip)]
    pub stands: &'static str,
}

/// How far a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    Moved,
    Already,
    WouldMove,
    Failed,
    /// One before it failed, or somebody wanted it to end.
    Waiting,
}

impl State {
    fn as_str(self) -> &'static str {
        match self {
            Self::Moved => "moved",
            Self::Already => "moved before",
            Self::WouldMove => "would move",
            Self::Failed => "failed",
            Self::Waiting => "not begun",
        }
    }
}

impl NodeReport {
    /// Of a node that nothing is known of yet.
    pub fn new(node: &str, state: State) -> Self {
        Self {
            node: node.to_owned(),
            state,
            pods: 0,
            taken_before: 0,
            dead: 0,
            old_plugin: None,
            host_local: None,
            notes: Vec::new(),
            problem: None,
            stands: "nothing was changed on it",
        }
    }

    /// For whoever watches.
    pub fn sentence(&self) -> String {
        match (&self.problem, self.state) {
            (Some(problem), _) => problem.clone(),
            (None, State::Moved) => format!("moved, {} pods taken over", self.pods),
            (None, State::WouldMove) => format!("would move, with {} pods", self.pods),
            (None, state) => state.as_str().to_owned(),
        }
    }
}

impl MigrateReport {
    pub fn new(dry_run: bool, nodes: Vec<NodeReport>, replaced: &[&DaemonSet]) -> Self {
        let mut next = Vec::new();
        let is_done = |it: &NodeReport| matches!(it.state, State::Moved | State::Already);
        if nodes.iter().any(|it| it.state == State::Failed) && !dry_run {
            next.push(
                "see to what failed, then run the same command: it goes on from there. The way back is in docs/migration.md"
                    .to_owned(),
            );
        } else if nodes.iter().all(is_done) && !dry_run {
            next.push("kubectl ferrule doctor".to_owned());
            for set in replaced {
                next.push(format!(
                    "when every node has moved: kubectl --namespace {} delete daemonset {}",
                    set.namespace().unwrap_or_default(),
                    set.name_any()
                ));
            }
            next.push(format!(
                "when every node has moved: install ferrule without deploy/components/migration, so that new nodes need no label \
                 {}",
                LABEL.0
            ));
        }
        Self { version: 1, dry_run, nodes, next }
    }
}

impl Report for MigrateReport {
    fn to_text(&self, colour: bool) -> String {
        let mut table = Table::new(["NODE", "FROM", "PODS", "TAKEN BEFORE", "DEAD", "STATE"]);
        for it in &self.nodes {
            let state = match it.state {
                State::Failed => Cell::toned(it.state.as_str(), Tone::Bad),
                state => state.as_str().into(),
            };
            table.push([
                it.node.as_str().into(),
                it.old_plugin.as_deref().unwrap_or("-").into(),
                it.pods.to_string().into(),
                it.taken_before.to_string().into(),
                it.dead.to_string().into(),
                state,
            ]);
        }
        let mut text = table.render(colour);
        for it in &self.nodes {
            for note in &it.notes {
                let _ = writeln!(text, "\n{}: {}", it.node, escape(note));
            }
            if let Some(problem) = &it.problem {
                let _ = writeln!(text, "\n{}: {}", it.node, escape(problem));
            }
        }
        if !self.next.is_empty() {
            let _ = writeln!(text, "\nnext:");
        }
        for next in &self.next {
            let _ = writeln!(text, "  {next}");
        }
        text
    }

    fn status(&self) -> u8 {
        u8::from(self.nodes.iter().any(|it| matches!(it.state, State::Failed)) || self.is_cut_short())
    }
}

impl MigrateReport {
    fn is_cut_short(&self) -> bool {
        self.nodes.iter().any(|it| it.state == State::Waiting)
    }
}
