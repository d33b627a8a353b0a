//! `ferrule doctor`: what on this node keeps pods from their network, or may, each with its cause and a remedy.
//!
//! Reads, and changes nothing.

mod firewall;
mod node;
mod others;
mod pods;
mod store;
mod systemd;
mod table;

use std::fmt::Write;
use std::net::IpAddr;

use serde::Serialize;

use crate::cli::arguments::Arguments;
use crate::cli::attachments::{Judged, judge_all};
use crate::cli::networks::{KnownNetwork, Networks};
use crate::cli::node::Node;
use crate::cli::text_table::escape;
use crate::cli::{Outcome, to_json};
use crate::cni::error::CniError;
use crate::store::Store;

/// How many things of a kind are named one by one in a finding. Where more are wrong it is for one reason, and the
/// count says enough.
const NAMED: usize = 5;

/// The document of `--json`. Fields are added in time, none is renamed or removed within a version.
#[derive(Serialize)]
struct Document {
    version: u32,
    findings: Vec<Finding>,
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Finding {
    /// The kind, for programs.
    id: &'static str,
    /// Only errors make the exit status 1.
    severity: Severity,
    /// The network that suffers; null where it is the node.
    network: Option<String>,
    /// What was found.
    found: String,
    /// How that comes about, and what follows from it.
    cause: String,
    /// What to do.
    remedy: String,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Severity {
    Error,
    Warning,
}

impl Finding {
    fn new(id: &'static str, found: impl Into<String>) -> Self {
        let (cause, remedy) = (String::new(), String::new());
        Self { id, severity: Severity::Error, network: None, found: found.into(), cause, remedy }
    }

    /// Something that may be in order.
    fn warning(id: &'static str, found: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::new(id, found) }
    }

    fn of(mut self, network: &impl ToString) -> Self {
        self.network = Some(network.to_string());
        self
    }

    fn because(mut self, cause: impl Into<String>) -> Self {
        self.cause = cause.into();
        self
    }

    fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = remedy.into();
        self
    }
}

/// Looks for trouble.
///
/// # Errors
/// Where the directories or the kernel cannot be read. A store that cannot be read is a finding.
pub async fn doctor(arguments: &Arguments, colour: bool) -> Result<Outcome, CniError> {
    let networks = Networks::find(arguments)?;
    let node = Node::look().await?;
    let mut findings = others::examine_confs(&networks, arguments);
    let mut attachments = 0;
    let mut has_imported = false;
    for network in &networks.known {
        let (store, judged) = match open(network, &node).await {
            Ok(opened) => opened,
            Err(error) => {
                findings.push(store::unusable(network, &error));
                continue;
            }
        };
        attachments += judged.len();
        findings.extend(store::examine(network, &node, store.as_ref(), &judged));
        findings.extend(pods::examine(network, &node, store.as_ref(), &judged).await?);
        findings.extend(table::examine(network, &node, store.as_ref(), &judged).await?);
        // The first ADD makes what a node needs; imported pods had none.
        let has_pods = judged.iter().any(|it| !it.is_dead() && !it.is_imported());
        findings.extend(node::examine_network(network, &node, has_pods).await?);
        let imported: Vec<IpAddr> =
            pods::imported(&judged).flat_map(|record| record.addresses.iter().copied()).collect();
        findings.extend(others::examine_routes(network, &node, &imported).await?);
        has_imported |= !imported.is_empty();
        findings.extend(firewall::examine(network).await?);
    }
    findings.extend(node::examine(&networks));
    // As long as pods of the old plugin run, its links are theirs.
    if !has_imported {
        findings.extend(others::examine_links(&networks, &node));
    }
    let document = Document { version: 1, findings };
    let status = u8::from(document.findings.iter().any(|it| it.severity == Severity::Error));
    let text = if arguments.json {
        to_json(&document)
    } else {
        document.render(networks.known.len(), attachments, colour)
    };
    Ok(Outcome { text, status, ..Outcome::default() })
}

/// The network's store, if there is one, and its attachments.
async fn open(network: &KnownNetwork, node: &Node) -> Result<(Option<Store>, Vec<Judged>), CniError> {
    let store = Store::open_existing(&network.data_dir, &network.name)?;
    let judged = match &store {
        Some(store) => judge_all(store, node, network).await?,
        None => Vec::new(),
    };
    Ok((store, judged))
}

impl Document {
    fn render(&self, networks: usize, attachments: usize, colour: bool) -> String {
        if self.findings.is_empty() {
            return format!("all is well (networks: {networks}, attachments: {attachments})\n");
        }
        let (begin, end) = if colour { ("\u{1b}[31m", "\u{1b}[0m") } else { ("", "") };
        let mut text = String::new();
        for (at, it) in self.findings.iter().enumerate() {
            let severity = if it.severity == Severity::Warning { "warning: " } else { "" };
            let network =
                it.network.as_ref().map(|network| format!("network {network}: ")).unwrap_or_default();
            let subject = format!("{severity}{network}");
            let _ = writeln!(
                text,
                "{}{begin}{}{end}",
                if at > 0 { "\n" } else { "" },
                escape(&(subject + &it.found))
            );
            let _ = writeln!(text, "  cause   {}", escape(&it.cause));
            let _ = writeln!(text, "  remedy  {}", escape(&it.remedy));
        }
        text
    }
}

/// Some of `items`, and how many more there are.
fn name_some<T: ToString>(items: &[T]) -> String {
    let mut named: Vec<String> = items.iter().take(NAMED).map(T::to_string).collect();
    if let Some(more) = items.len().checked_sub(NAMED).filter(|more| *more > 0) {
        named.push(format!("and {more} more"));
    }
    named.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_are_told_as_some_and_a_count() {
        assert_eq!(name_some(&[1, 2]), "1, 2");
        assert_eq!(name_some(&[1, 2, 3, 4, 5]), "1, 2, 3, 4, 5");
        assert_eq!(name_some(&[1, 2, 3, 4, 5, 6, 7]), "1, 2, 3, 4, 5, and 2 more");
    }
}
