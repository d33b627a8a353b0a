//! `ferrule reclaim`: frees what nobody uses any more.
//!
//! Dead attachments are those that an ADD would reclaim when it runs out of addresses, judged by the same rule.
//! Nothing that may be alive is touched, and nothing that another command is working on.

use std::collections::HashSet;
use std::fmt::Write;
use std::net::IpAddr;

use serde::Serialize;

use crate::attachments::{LOCK_DEADLINE, pod_rules, reclaim};
use crate::cli::arguments::Arguments;
use crate::cli::attachments::{Judged, Told, judge_all};
use crate::cli::networks::{KnownNetwork, Networks};
use crate::cli::node::Node;
use crate::cli::text_table::{Table, escape};
use crate::cli::{Outcome, to_json};
use crate::cni::error::CniError;
use crate::desired::names;
use crate::store::Store;

/// The document of `--json`. Fields are added in time, none is renamed or removed within a version.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document {
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
    /// Dead attachments that were freed.
    dead: Vec<Told>,
    /// Addresses that were held for no attachment, and were freed.
    orphans: Vec<IpAddr>,
    /// Addresses of attachments that were not held, and are held again.
    restored: Vec<IpAddr>,
    /// Attachments whose record had no name but those of its addresses, and has it again.
    relisted: Vec<String>,
    /// What was not touched, though it is not as it should be.
    left_alone: Vec<LeftAlone>,
}

/// Something that was not touched, and why.
#[derive(Serialize)]
struct LeftAlone {
    what: String,
    reason: String,
}

/// Frees what is dead.
///
/// # Errors
/// Where conf directory or kernel cannot be read. What fails with one network does not stop the others.
pub async fn reclaim(arguments: &Arguments, colour: bool) -> Result<Outcome, CniError> {
    let networks = Networks::find(arguments)?;
    let node = Node::look().await?;
    let mut document =
        Document { version: 1, dry_run: arguments.dry_run, networks: Vec::new(), problems: Vec::new() };
    for network in &networks.known {
        match reclaim_network(network, &node, arguments.dry_run).await {
            Ok(reclaimed) => document.networks.push(reclaimed),
            Err(error) => document.problems.push(format!("network {}: {error}", network.name)),
        }
    }
    let status = u8::from(!document.problems.is_empty());
    let text = if arguments.json { to_json(&document) } else { document.render(colour) };
    Ok(Outcome { text, status, ..Outcome::default() })
}

async fn reclaim_network(network: &KnownNetwork, node: &Node, dry_run: bool) -> Result<Reclaimed, CniError> {
    let mut reclaimed = Reclaimed { name: network.name.to_string(), ..Reclaimed::default() };
    let store = Store::open_existing(&network.data_dir, &network.name)?;
    let judged = match &store {
        Some(store) => judge_all(store, node, network).await?,
        None => Vec::new(),
    };
    let recorded: HashSet<String> = judged.iter().flat_map(|it| names::node_links(&it.key)).collect();
    for link in node.unrecorded_links(&network.name, &recorded) {
        let alias = link.alias.as_deref().unwrap_or("no alias");
        reclaimed.leave(
            format!("link {} ({alias})", link.name),
            "it has no record, and its pod may be alive; GC by the runtime removes it".to_owned(),
        );
    }
    let Some(store) = store else { return Ok(reclaimed) };
    let mut doomed = Vec::new();
    for it in judged {
        match (&it.state, &network.delegate) {
            (Err(error), _) => reclaimed.leave(it.key.to_string(), error.to_string()),
            (Ok(_), Some(delegate)) if it.is_dead() => reclaimed.leave(
                it.key.to_string(),
                format!(
                    "it is dead, but its addresses are {delegate}'s; GC by the runtime tells that plugin"
                ),
            ),
            (Ok(_), _) if it.is_dead() && it.has_link => {
                reclaimed.leave(it.key.to_string(), "from an earlier boot, but its link is there".to_owned());
            }
            (Ok(_), _) if it.is_dead() => doomed.push(it),
            (Ok(_), _) => {}
        }
    }
    if dry_run {
        reclaimed.foresee(&store, &doomed)?;
    } else {
        reclaimed.free(&store, node, &doomed).await?;
        // No table outlives a boot; unless somebody keeps it in a file, as nftables.service does.
        if doomed.iter().any(|it| it.state.as_ref().is_ok_and(|(record, _)| !record.is_from(&node.boot))) {
            pod_rules::sweep(&network.data_dir, &network.name, &node.boot).await?;
        }
    }
    Ok(reclaimed)
}

impl Reclaimed {
    fn leave(&mut self, what: String, reason: String) {
        self.left_alone.push(LeftAlone { what, reason });
    }

    fn leave_contested(&mut self, address: IpAddr, key: &impl std::fmt::Display) {
        let reason = format!("{key} and another attachment both may be using it; delete one of the two pods");
        self.leave(format!("address {address}"), reason);
    }

    /// Says what [`Reclaimed::free`] would do.
    fn foresee(&mut self, store: &Store, doomed: &[Judged]) -> Result<(), CniError> {
        self.dead = doomed.iter().map(Judged::tell).collect();
        let audit = store.audit()?;
        self.orphans = audit.orphans;
        self.restored = audit.unheld.into_iter().map(|(address, _)| address).collect();
        self.relisted = audit.unlisted.into_iter().map(|(_, key)| key.to_string()).collect();
        self.relisted.dedup();
        for (address, key) in &audit.contested {
            self.leave_contested(*address, key);
        }
        for stranger in audit.strangers {
            self.leave(stranger.display().to_string(), "no file of the store".to_owned());
        }
        Ok(())
    }

    /// Frees the doomed that are still what was judged, then what is held for nobody.
    async fn free(&mut self, store: &Store, node: &Node, doomed: &[Judged]) -> Result<(), CniError> {
        // This alone frees all of an earlier boot.
        store.discard_previous_boots(&node.boot, LOCK_DEADLINE)?;
        let mut dead = Vec::new();
        for it in doomed {
            let Ok((judged, _)) = &it.state else { continue };
            if !judged.is_from(&node.boot) {
                if matches!(store.find(&it.key), Ok(None)) {
                    self.dead.push(it.tell());
                }
            } else if let Some(taken) = reclaim::take_down(store, judged, Some(&node.netlink)).await? {
                dead.push(taken);
                self.dead.push(it.tell());
            } else {
                self.leave(it.key.to_string(), "another command is working on it".to_owned());
            }
        }
        let mut locked = store.lock(&node.boot, LOCK_DEADLINE)?;
        reclaim::release_dead(&mut locked, dead)?;
        let mut mended = locked.repair()?;
        mended.freed.sort_unstable();
        self.orphans = mended.freed;
        self.restored = mended.restored;
        self.relisted = mended.relisted.iter().map(ToString::to_string).collect();
        for (address, key) in &mended.contested {
            self.leave_contested(*address, key);
        }
        for stranger in mended.strangers {
            self.leave(stranger.display().to_string(), "no file of the store".to_owned());
        }
        Ok(())
    }
}

impl Document {
    fn render(&self, colour: bool) -> String {
        let freed = if self.dry_run { "WOULD BE FREED" } else { "FREED" };
        let mut table = Table::new(["NETWORK", "POD", "CONTAINER", freed, "WHY"]);
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
                let (orphan, why) = (orphan.to_string(), "held for no attachment");
                table.push([name.into(), "-".into(), "-".into(), orphan.into(), why.into()]);
            }
            for address in &network.restored {
                let verb = if self.dry_run { "would be" } else { "is" };
                let _ = writeln!(rest, "{name}: {address} {verb} held again for the attachment that has it");
            }
            for key in &network.relisted {
                let verb = if self.dry_run { "would be" } else { "is" };
                let _ = writeln!(rest, "{name}: the record of {key} {verb} known again");
            }
            for it in &network.left_alone {
                let _ = writeln!(rest, "{name}: left alone: {}: {}", escape(&it.what), escape(&it.reason));
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
