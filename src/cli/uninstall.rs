//! `ferrulectl uninstall`: removes all that ferrule made on this node, and says what is left and how to remove that.
//!
//! Where pods are running it refuses, unless told that they may lose their network.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;

use serde::Serialize;

use crate::attachments::networks::{KnownNetwork, Networks};
use crate::attachments::node_view::NodeView;
use crate::attachments::uninstall::{Removed, Uninstall, show_link};
use crate::cli::Report;
use crate::cli::arguments::Common;
use crate::cli::attachment_report::AttachmentReport;
use crate::cni::error::CniError;
use crate::linux::addr::Address;
use crate::linux::sysctl;
use crate::text_table::{Cell, Table, Tone, escape};

/// Index of `lo` in every namespace (`LOOPBACK_IFINDEX`, include/net/flow.h).
const LOOPBACK: u32 = 1;

/// Where the plugin usually is.
const PLUGIN: &str = "/opt/cni/bin/ferrule";

/// What was removed, and what was not.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UninstallReport {
    version: u32,
    dry_run: bool,
    /// Nothing was removed, because pods are running.
    refused: bool,
    /// Attachments that may be in use.
    in_use: Vec<AttachmentReport>,
    /// Links without a record, whose pods may be running.
    links_in_use: Vec<String>,
    /// What was removed, or would be.
    removed: Vec<RemovedReport>,
    /// What ferrule does not remove, and how to do it.
    left: Vec<Leftover>,
    problems: Vec<String>,
}

#[derive(Serialize)]
struct RemovedReport {
    /// `link`, `route`, `table`, `rule`, `sysctl` or `store`.
    kind: &'static str,
    what: String,
}

#[derive(Serialize)]
struct Leftover {
    what: String,
    remedy: String,
}

/// Removes everything, if no pod is running or pods may lose their network.
///
/// # Errors
/// Where conf directory, store or kernel cannot be read. What cannot be removed is a problem, and does not stop the rest.
pub async fn uninstall(
    common: &Common,
    dry_run: bool,
    pods_may_lose_their_network: bool,
) -> Result<UninstallReport, CniError> {
    let networks = common.find_networks(None)?;
    let node = NodeView::read().await?;
    let plan = Uninstall::plan(&networks, &node).await?;
    let refused = plan.is_in_use() && !pods_may_lose_their_network;
    let Removed { objects, problems } = match (dry_run, refused) {
        (true, _) => plan.foresee(&node).await,
        (false, true) => Removed::default(),
        (false, false) => plan.carry_out(&node).await,
    };
    let on_lo = node.netlink.addresses(Some(LOOPBACK)).await?;
    Ok(UninstallReport {
        version: 1,
        dry_run,
        refused,
        in_use: plan.in_use.iter().map(AttachmentReport::from).collect(),
        links_in_use: plan.unrecorded_links.iter().map(show_link).collect(),
        removed: objects.into_iter().map(|it| RemovedReport { kind: it.kind, what: it.name }).collect(),
        left: find_leftovers(&networks, &node, &on_lo),
        problems,
    })
}

/// What ferrule does not remove, because a person decides on it.
fn find_leftovers(networks: &Networks, node: &NodeView, on_lo: &[Address]) -> Vec<Leftover> {
    let mut left = Vec::new();
    let mut leave = |what: String, remedy: String| left.push(Leftover { what, remedy });
    let of_networks = networks.known.iter().filter_map(|network| network.conf.as_deref());
    let mains = networks.files.iter().filter(|file| !file.mains.is_empty()).map(|file| file.path.as_path());
    let unusable = networks.problems.iter().map(|problem| problem.path.as_path());
    for conf in of_networks.chain(mains).chain(unusable).collect::<BTreeSet<&Path>>() {
        let meta = networks.files.iter().find(|file| file.path == conf).and_then(|file| file.meta.as_ref());
        let remedy = match meta {
            Some(meta) => format!("let {} in it lead to another network", meta.plugin),
            None => format!("rm {}  (new pods need another conf)", conf.display()),
        };
        leave(conf.display().to_string(), remedy);
    }
    if Path::new(PLUGIN).exists() {
        leave(PLUGIN.to_owned(), format!("rm {PLUGIN}"));
    }
    let logs = networks.known.iter().filter_map(|network| network.meaning.as_ref()?.log.file.as_ref());
    for log in logs.collect::<BTreeSet<_>>() {
        leave(log.display().to_string(), format!("rm {}", log.display()));
    }
    let delegates = networks.known.iter().filter_map(|network| network.delegate.as_ref());
    for delegate in delegates.collect::<BTreeSet<_>>() {
        leave(format!("addresses that {delegate} reserved"), format!("see where {delegate} keeps them"));
    }
    // An address has no mark that would tell ours from an administrator's.
    for gateway in networks.known.iter().flat_map(KnownNetwork::named_gateways).collect::<BTreeSet<_>>() {
        if on_lo.iter().any(|it| it.network.ip() == gateway) {
            let length = if gateway.is_ipv4() { 32 } else { 128 };
            leave(format!("gateway {gateway} on lo"), format!("ip address delete {gateway}/{length} dev lo"));
        }
    }
    for key in [["net", "ipv4", "ip_forward"].as_slice(), &["net", "ipv6", "conf", "all", "forwarding"]] {
        if sysctl::read(key).is_ok_and(|value| value == "1") {
            let name = key.join(".");
            leave(format!("{name}=1"), format!("sysctl -w {name}=0  (unless something else forwards here)"));
        }
    }
    for link in &node.links {
        let key = ["net", "ipv6", "conf", &link.name, "accept_ra"];
        if sysctl::read(&key).is_ok_and(|value| value == "2") {
            let name = key.join("/");
            leave(format!("{name}=2"), format!("sysctl -w {name}=1  (once this node no longer forwards)"));
        }
    }
    left
}

impl Report for UninstallReport {
    fn is_success(&self) -> bool {
        !self.refused && self.problems.is_empty()
    }

    fn to_text(&self, colour: bool) -> String {
        let mut text = String::new();
        if !self.in_use.is_empty() || !self.links_in_use.is_empty() {
            let mut table = Table::new(["IN USE BY", "CONTAINER", "ADDRESSES", "STATE"]);
            for it in &self.in_use {
                let state = format!("{}: {}", it.state, it.reason);
                let pod = it.pod.as_deref().unwrap_or("-");
                table.push([
                    pod.into(),
                    it.short_container().into(),
                    it.addresses().into(),
                    Cell::toned(state, Tone::Odd),
                ]);
            }
            for link in &self.links_in_use {
                let state = Cell::toned("it has no record, its pod may be running", Tone::Odd);
                table.push([link.into(), "-".into(), "-".into(), state]);
            }
            let _ = writeln!(text, "{}", table.render(colour));
        }
        if self.refused {
            let verb = if self.dry_run { "would be refused" } else { "refused, nothing was removed" };
            let _ = writeln!(
                text,
                "{verb}: these pods would lose their network. Move them to other nodes first (kubectl drain), or \
                 pass --yes-pods-lose-their-network\n"
            );
        }
        let heading = if self.dry_run { "WOULD BE REMOVED" } else { "REMOVED" };
        let mut table = Table::new([heading, ""]);
        for it in &self.removed {
            table.push([it.kind.into(), (&it.what).into()]);
        }
        match table.render(colour).as_str() {
            "" if self.refused => {}
            "" => text.push_str("ferrule made nothing on this node\n\n"),
            table => {
                let _ = writeln!(text, "{table}");
            }
        }
        let mut table = Table::new(["NOT REMOVED", "TO REMOVE IT"]);
        for it in self.left.iter().filter(|_| !self.refused) {
            table.push([(&it.what).into(), (&it.remedy).into()]);
        }
        text.push_str(&table.render(colour));
        for problem in &self.problems {
            let _ = writeln!(text, "\n{}", escape(problem));
        }
        text.truncate(text.trim_end().len());
        text + "\n"
    }
}
