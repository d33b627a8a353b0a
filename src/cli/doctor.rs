//! `ferrulectl doctor`: what keeps pods of this node from their network, or may, each with its cause and a remedy.
//! Changes nothing.

mod agent_process;
mod drops;
mod firewall;
mod node;
mod others;
mod path;
mod pods;
mod policy;
mod policy_dns;
mod rules;
mod store;
mod systemd;
mod table;
mod way;

pub(in crate::cli) use pods::can_enter_namespaces;
pub(in crate::cli) use way::tracked_flows;

use std::fmt::Write;
use std::net::IpAddr;
use std::path::Path;

use serde::Serialize;

use crate::attachments::judged::judge_network;
use crate::attachments::networks::KnownNetwork;
use crate::attachments::node_view::NodeView;
use crate::cli::arguments::Common;
use crate::cli::{Report, STATUS_BLIND};
use crate::cni::error::CniError;
use crate::cni::ids::NetworkName;
use crate::text_table::escape;

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

/// Looks at every network, or only at the one, and at the node. A check that cannot be done is skipped and named.
///
/// # Errors
/// Where nothing can be looked at: the directories or the kernel cannot be read. A store that cannot be read is a finding.
pub async fn doctor(common: &Common, only: Option<&NetworkName>) -> Result<DoctorReport, CniError> {
    let networks = common.find_networks(only)?;
    let node = NodeView::read().await?;
    let dropped = drops::begin().await;
    let checksums = path::begin();
    let mut report = DoctorReport {
        version: 1,
        findings: others::examine_confs(&networks, &common.conf_dir),
        skipped: others::unclear_confs(&networks),
        networks: networks.known.len(),
        attachments: 0,
    };
    let can_enter_pods = pods::can_enter_namespaces();
    let mut imported = Vec::new();
    for network in &networks.known {
        imported.extend(report.examine(network, &node, can_enter_pods).await);
    }
    report.findings.extend(node::examine(&networks));
    match way::examine(&networks, &node).await {
        Ok(findings) => report.findings.extend(findings),
        Err(error) => report.skip(&format!("ways of packets to pods: {error}")),
    }
    match policy::examine(&networks, &node).await {
        Ok(findings) => report.findings.extend(findings),
        Err(error) => report.skip(&format!("network policies: {error}")),
    }
    for network in &networks.known {
        report.take(&network.name, "ways to other nodes", path::examine(network, &node).await);
    }
    let dropped = match dropped {
        Ok(begun) => begun.examine(&networks).await,
        Err(error) => Err(error),
    };
    match dropped {
        Ok(findings) => report.findings.extend(findings),
        Err(error) => report.skip(&format!("dropped packets: {error}")),
    }
    report.findings.extend(checksums.examine(&node).await);
    if !systemd::is_a_nodes(Path::new("/")) {
        report.skip("whether systemd-networkd removes routes: this is not the node's file system");
    }
    // As long as pods of the old plugin run, its links are theirs.
    if imported.is_empty() {
        report.findings.extend(others::examine_links(&networks, &node));
    }
    if report.attachments > 0 && !can_enter_pods {
        report.skip(
            "interfaces, addresses and routes inside of pods: that needs CAP_SYS_ADMIN, which \
                     the agent's container lacks; run ferrulectl on the node itself",
        );
    }
    Ok(report)
}

impl DoctorReport {
    /// Looks at one network; returns the addresses of imported pods.
    async fn examine(
        &mut self,
        network: &KnownNetwork,
        node: &NodeView,
        can_enter_pods: bool,
    ) -> Vec<IpAddr> {
        let (store, judged) = match judge_network(network, node).await {
            Ok(opened) => opened,
            Err(error) => {
                self.findings.push(store::unusable(network, &error));
                return Vec::new();
            }
        };
        self.attachments += judged.len();
        let (store, judged) = (store.as_ref(), judged.as_slice());
        self.findings.extend(store::examine(network, node, store, judged));
        let name = &network.name;
        self.take(name, "pods", pods::examine(network, node, store, judged, can_enter_pods).await);
        let has_imported = pods::imported(judged).next().is_some();
        if has_imported && !can_enter_pods {
            self.skip(&format!("network {name}: routes of imported pods: that needs CAP_SYS_ADMIN"));
        }
        self.take(name, "imported pods", pods::examine_imported(network, node, judged).await);
        self.take(name, "the nftables table", table::examine(network, node, store, judged).await);
        // The first ADD makes what a node needs; imported pods had none.
        let has_pods = judged.iter().any(|it| !it.is_dead() && !it.is_imported());
        self.take(
            name,
            "forwarding and routes to peers",
            node::examine_network(network, node, has_pods).await,
        );
        self.take(name, "rules of policy routing", rules::examine(network, node, judged).await);
        let imported: Vec<IpAddr> =
            pods::imported(judged).flat_map(|record| record.addresses.iter().copied()).collect();
        self.take(name, "routes of others", others::examine_routes(network, node, &imported).await);
        let (findings, unread) = firewall::examine(network, node).await;
        self.findings.extend(findings);
        unread.iter().for_each(|it| self.skip(&format!("network {name}: {it}")));
        imported
    }

    /// What a check found, or that it could not be done.
    fn take(
        &mut self,
        network: &NetworkName,
        what: &str,
        found: Result<impl IntoIterator<Item = Finding>, CniError>,
    ) {
        match found {
            Ok(findings) => self.findings.extend(findings),
            Err(error) => self.skip(&format!("network {network}: {what}: {error}")),
        }
    }

    fn skip(&mut self, what: &str) {
        if !self.skipped.iter().any(|it| it == what) {
            self.skipped.push(what.to_owned());
        }
    }
}

impl Report for DoctorReport {
    /// 1 for a fault; 3 if none was found and not everything could be looked at.
    fn status(&self) -> u8 {
        match self.findings.iter().any(|it| it.severity == Severity::Error) {
            true => 1,
            false if !self.skipped.is_empty() => STATUS_BLIND,
            false => 0,
        }
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
            let of_what = if self.skipped.is_empty() { "" } else { " in what could be looked at" };
            let _ = writeln!(
                text,
                "no problems found{of_what} (networks: {networks}, attachments: {attachments})"
            );
        }
        for it in &self.skipped {
            let _ = writeln!(text, "\nnot looked at: {}", escape(it));
        }
        text
    }
}

/// Some of `items`, and how many more there are.
pub(in crate::cli) fn name_some<T: ToString>(items: &[T]) -> String {
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
