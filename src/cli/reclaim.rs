//! `ferrulectl reclaim`: releases addresses that belong to dead pods or to no pod.
//!
//! Dead attachments are those that an ADD would reclaim when it runs out of addresses, judged by the same rule.
//! Nothing that may be alive is touched, and nothing that another command is working on.

use std::collections::HashSet;
use std::fmt::Write;
use std::net::IpAddr;

use serde::Serialize;

use crate::attachments::judged::{JudgedAttachment, judge_network};
use crate::attachments::networks::KnownNetwork;
use crate::attachments::node_view::NodeView;
use crate::attachments::teardown::Removed;
use crate::attachments::{LOCK_DEADLINE, pod_rules, reclaim};
use crate::cli::Report;
use crate::cli::arguments::Common;
use crate::cli::attachment_report::AttachmentReport;
use crate::cni::error::CniError;
use crate::cni::ids::NetworkName;
use crate::desired::names;
use crate::linux::limits;
use crate::store::Store;
use crate::text_table::{Table, escape};

/// What was released, or would be.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReclaimReport {
    version: u32,
    dry_run: bool,
    networks: Vec<Reclaimed>,
    /// What kept a network from being looked at.
    problems: Vec<String>,
}

/// What became of one network.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Reclaimed {
    name: String,
    /// Dead attachments that were released.
    dead: Vec<AttachmentReport>,
    /// Addresses that belonged to no attachment, and were released.
    orphans: Vec<IpAddr>,
    /// Addresses of attachments that were not held, and are held again.
    restored: Vec<IpAddr>,
    /// Attachments whose record had no name but those of its addresses, and has it again.
    relisted: Vec<String>,
    /// What is not as it should be, and was not touched.
    skipped: Vec<Skipped>,
}

/// Something that was not touched, and why.
#[derive(Serialize)]
struct Skipped {
    what: String,
    reason: String,
}

/// Releases what is dead, or only says what that is.
///
/// # Errors
/// Where conf directory or kernel cannot be read. What fails with one network does not stop the others.
pub async fn reclaim(
    common: &Common,
    only: Option<&NetworkName>,
    dry_run: bool,
) -> Result<ReclaimReport, CniError> {
    let networks = common.find_networks(only)?;
    let node = NodeView::read().await?;
    let mut report = ReclaimReport { version: 1, dry_run, networks: Vec::new(), problems: Vec::new() };
    for network in &networks.known {
        match reclaim_network(network, &node, dry_run).await {
            Ok(reclaimed) => report.networks.push(reclaimed),
            Err(error) => report.problems.push(format!("network {}: {error}", network.name)),
        }
    }
    Ok(report)
}

async fn reclaim_network(
    network: &KnownNetwork,
    node: &NodeView,
    dry_run: bool,
) -> Result<Reclaimed, CniError> {
    let mut reclaimed = Reclaimed { name: network.name.to_string(), ..Reclaimed::default() };
    let (store, judged) = judge_network(network, node).await?;
    let recorded: HashSet<String> = judged.iter().flat_map(|it| names::node_links(&it.key)).collect();
    for link in node.unrecorded_links(&network.name, &recorded) {
        let alias = link.alias.as_deref().unwrap_or("no alias");
        reclaimed.skip(
            format!("link {} ({alias})", link.name),
            "it has no record, and its pod may be running; the runtime's next GC removes it".to_owned(),
        );
    }
    let Some(store) = store else { return Ok(reclaimed) };
    let mut stale = Vec::new();
    for it in judged {
        match (&it.state, &network.delegate) {
            (Err(error), _) => reclaimed.skip(it.key.to_string(), error.to_string()),
            (Ok(_), Some(delegate)) if it.is_dead() => reclaimed.skip(
                it.key.to_string(),
                format!(
                    "it is dead, but its addresses are {delegate}'s; the runtime's next GC releases them there"
                ),
            ),
            (Ok(_), _) if it.is_dead() && it.has_link => {
                reclaimed.skip(it.key.to_string(), "from an earlier boot, but its link is there".to_owned());
            }
            (Ok(_), _) if it.is_dead() => stale.push(it),
            (Ok(_), _) => {}
        }
    }
    if dry_run {
        reclaimed.foresee(&store, &stale)?;
    } else {
        reclaimed.release(&store, node, &stale).await?;
        // No table outlives a boot; unless somebody keeps it in a file, as nftables.service does.
        if stale.iter().any(|it| it.state.as_ref().is_ok_and(|(record, _)| !record.is_from(&node.boot))) {
            pod_rules::sweep(&network.data_dir, &network.name, &node.boot).await?;
        }
    }
    Ok(reclaimed)
}

impl Reclaimed {
    fn skip(&mut self, what: String, reason: String) {
        self.skipped.push(Skipped { what, reason });
    }

    fn skip_contested(&mut self, address: IpAddr, key: &impl std::fmt::Display) {
        let reason = format!("{key} and another attachment both may be using it; delete one of the two pods");
        self.skip(format!("address {address}"), reason);
    }

    /// Says what [`Reclaimed::release`] would do.
    fn foresee(&mut self, store: &Store, stale: &[JudgedAttachment]) -> Result<(), CniError> {
        self.dead = stale.iter().map(AttachmentReport::from).collect();
        let audit = store.audit()?;
        self.orphans = audit.orphans;
        self.restored = audit.unheld.into_iter().map(|(address, _)| address).collect();
        self.relisted = audit.unlisted.into_iter().map(|(_, key)| key.to_string()).collect();
        self.relisted.dedup();
        for (address, key) in &audit.contested {
            self.skip_contested(*address, key);
        }
        for stranger in audit.strangers {
            self.skip(stranger.display().to_string(), "not a file of the store".to_owned());
        }
        Ok(())
    }

    /// Releases the dead that are still what was judged, then the addresses that belong to no attachment.
    async fn release(
        &mut self,
        store: &Store,
        node: &NodeView,
        stale: &[JudgedAttachment],
    ) -> Result<(), CniError> {
        // This alone releases all of an earlier boot.
        store.discard_previous_boots(&node.boot, LOCK_DEADLINE)?;
        // Each of them keeps its lock open.
        limits::raise_open_files();
        let mut taken_down = Removed::default();
        for it in stale {
            let Ok((judged, _)) = &it.state else { continue };
            if !judged.is_from(&node.boot) {
                if matches!(store.find(&it.key), Ok(None)) {
                    self.dead.push(it.into());
                }
            } else if let Some(dead) =
                reclaim::take_down(store, judged, &node.boot, Some(&node.netlink)).await?
            {
                taken_down.join(dead);
                self.dead.push(it.into());
            } else {
                self.skip(it.key.to_string(), "another command is working on it".to_owned());
            }
        }
        let mut locked = store.lock(&node.boot, LOCK_DEADLINE)?;
        reclaim::release_dead(&mut locked, taken_down)?;
        let mut repairs = locked.repair()?;
        repairs.freed.sort_unstable();
        self.orphans = repairs.freed;
        self.restored = repairs.restored;
        self.relisted = repairs.relisted.iter().map(ToString::to_string).collect();
        for (address, key) in &repairs.contested {
            self.skip_contested(*address, key);
        }
        for stranger in repairs.strangers {
            self.skip(stranger.display().to_string(), "not a file of the store".to_owned());
        }
        Ok(())
    }
}

impl Report for ReclaimReport {
    fn is_success(&self) -> bool {
        self.problems.is_empty()
    }

    fn to_text(&self, colour: bool) -> String {
        let released = if self.dry_run { "WOULD BE RELEASED" } else { "RELEASED" };
        let mut table = Table::new(["NETWORK", "POD", "CONTAINER", released, "REASON"]);
        let mut rest = String::new();
        for network in &self.networks {
            let name = network.name.as_str();
            for it in &network.dead {
                table.push([
                    name.into(),
                    it.pod.as_deref().unwrap_or("-").into(),
                    it.short_container().into(),
                    it.addresses().into(),
                    it.reason.as_str().into(),
                ]);
            }
            for orphan in &network.orphans {
                let (orphan, why) = (orphan.to_string(), "belongs to no pod");
                table.push([name.into(), "-".into(), "-".into(), orphan.into(), why.into()]);
            }
            for address in &network.restored {
                let verb = if self.dry_run { "would be" } else { "is" };
                let _ = writeln!(rest, "{name}: {address} {verb} reserved again for the pod that uses it");
            }
            for key in &network.relisted {
                let verb = if self.dry_run { "would be" } else { "is" };
                let _ = writeln!(rest, "{name}: the record of {key} {verb} listed again");
            }
            for it in &network.skipped {
                let _ = writeln!(rest, "{name}: skipped: {}: {}", escape(&it.what), escape(&it.reason));
            }
        }
        for problem in &self.problems {
            let _ = writeln!(rest, "{}", escape(problem));
        }
        let table = table.render(colour);
        let table = if table.is_empty() { "nothing to reclaim\n".to_owned() } else { table };
        if rest.is_empty() { table } else { format!("{table}\n{rest}") }
    }
}
