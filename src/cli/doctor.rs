//! `ferrulectl doctor`: what keeps pods of this node from their network, or may, each with its cause and a remedy.
//! Changes nothing.

mod firewall;
mod node;
mod others;
mod pods;
mod store;
mod systemd;
mod table;
mod way;

use std::fmt::Write;
use std::net::IpAddr;

use serde::Serialize;

use crate::attachments::judged::judge_network;
use crate::attachments::node_view::NodeView;
use crate::cli::Report;
use crate::cli::arguments::Common;
use crate::cli::text_table::escape;
use crate::cni::error::CniError;
use crate::cni::ids::NetworkName;

/// How many things of a kind a finding names one by one. Where more are wrong it is for one reason, and the count is
/// enough.
const NAMED: usize = 5;

/// What was found.
#[derive(Serialize)]
pub struct DoctorReport {
    version: u32,
    findings: Vec<Finding>,
    /// What could not be looked at from here.
    skipped: Vec<String>,
    #[serde(skip)]
    networks: usize,
    #[serde(skip)]
    attachments: usize,
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Finding {
    /// The kind, for programs. Stable.
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

/// Looks at every network, or only at the one, and at the node.
///
/// # Errors
/// Where the directories or the kernel cannot be read. A store that cannot be read is a finding.
pub async fn doctor(common: &Common, only: Option<&NetworkName>) -> Result<DoctorReport, CniError> {
    let networks = common.find_networks(only)?;
    let node = NodeView::read().await?;
    let mut findings = others::examine_confs(&networks, &common.conf_dir);
    let mut attachments = 0;
    let mut has_imported = false;
    let can_enter_pods = pods::can_enter_namespaces();
    for network in &networks.known {
        let (store, judged) = match judge_network(network, &node).await {
            Ok(opened) => opened,
            Err(error) => {
                findings.push(store::unusable(network, &error));
                continue;
            }
        };
        attachments += judged.len();
        findings.extend(store::examine(network, &node, store.as_ref(), &judged));
        findings.extend(pods::examine(network, &node, store.as_ref(), &judged, can_enter_pods).await?);
        findings.extend(table::examine(network, &node, store.as_ref(), &judged).await?);
        // The first ADD makes what a node needs; imported pods had none.
        let has_pods = judged.iter().any(|it| !it.is_dead() && !it.is_imported());
        findings.extend(node::examine_network(network, &node, has_pods).await?);
        let imported: Vec<IpAddr> =
            pods::imported(&judged).flat_map(|record| record.addresses.iter().copied()).collect();
        findings.extend(others::examine_routes(network, &node, &imported).await?);
        has_imported |= !imported.is_empty();
        findings.extend(firewall::examine(network, &node).await?);
    }
    findings.extend(node::examine(&networks));
    findings.extend(way::examine(&networks, &node).await?);
    // As long as pods of the old plugin run, its links are theirs.
    if !has_imported {
        findings.extend(others::examine_links(&networks, &node));
    }
    let mut skipped = others::unclear_confs(&networks);
    if attachments > 0 && !can_enter_pods {
        let text = "interfaces and routes inside of pods were not compared: that needs CAP_SYS_ADMIN, which the agent's \
                    container lacks; run ferrulectl on the node itself";
        skipped.push(text.to_owned());
    }
    Ok(DoctorReport { version: 1, findings, skipped, networks: networks.known.len(), attachments })
}

impl Report for DoctorReport {
    fn is_success(&self) -> bool {
        self.findings.iter().all(|it| it.severity == Severity::Warning)
    }

    fn to_text(&self, colour: bool) -> String {
        let mut text = String::new();
        for (at, it) in self.findings.iter().enumerate() {
            let (begin, end) = match (colour, it.severity) {
                (false, _) => ("", ""),
                (true, Severity::Error) => ("\u{1b}[31m", "\u{1b}[0m"),
                (true, Severity::Warning) => ("\u{1b}[33m", "\u{1b}[0m"),
            };
            let warning = if it.severity == Severity::Warning { "warning: " } else { "" };
            let network = it.network.as_ref().map(|name| format!("network {name}: ")).unwrap_or_default();
            text.push_str(if at > 0 { "\n" } else { "" });
            let _ = writeln!(text, "{begin}{warning}{}{end}", escape(&(network + &it.found)));
            let _ = writeln!(text, "  cause   {}", escape(&it.cause));
            let _ = writeln!(text, "  remedy  {}", escape(&it.remedy));
        }
        if self.findings.is_empty() {
            let (networks, attachments) = (self.networks, self.attachments);
            let _ = writeln!(text, "no problems found (networks: {networks}, attachments: {attachments})");
        }
        for it in &self.skipped {
            let _ = writeln!(text, "\n{}", escape(it));
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
    fn of_many_some_are_named_and_the_rest_counted() {
        assert_eq!(name_some(&[1, 2]), "1, 2");
        assert_eq!(name_some(&[1, 2, 3, 4, 5]), "1, 2, 3, 4, 5");
        assert_eq!(name_some(&[1, 2, 3, 4, 5, 6, 7]), "1, 2, 3, 4, 5, and 2 more");
    }
}
