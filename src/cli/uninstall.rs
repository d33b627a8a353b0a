//! `ferrule uninstall`: removes all that bears ferrule's mark, and says what is left and how to remove that.
//!
//! Links first, then routes, the nftables table, the node's settings, and the stores: whoever dies on the way runs it again. Where pods are running it
//! refuses, unless told that they may lose their network.

use std::collections::{BTreeSet, HashSet};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::attachments::{LOCK_DEADLINE, pod_rules};
use crate::cli::arguments::Arguments;
use crate::cli::attachments::{Told, judge_all};
use crate::cli::networks::{KnownNetwork, Networks};
use crate::cli::node::Node;
use crate::cli::text_table::{Cell, Table, Tone, escape};
use crate::cli::{Outcome, to_json};
use crate::cni::error::{CniError, Code};
use crate::cni::ids::{AttachmentKey, NetworkName};
use crate::datapath::{detach, nftables, overlay};
use crate::desired::names;
use crate::desired::names::ROUTE_PROTOCOL;
use crate::foreign_firewall;
use crate::foreign_firewall::legacy::LegacyTable;
use crate::linux::addr::Address;
use crate::linux::change::Change;
use crate::linux::error::KernelError;
use crate::linux::link::Link;
use crate::linux::nfnetlink::Nfnetlink;
use crate::linux::route::{Family, Route, RouteFilter};
use crate::linux::sysctl;
use crate::store::{Store, SysctlBackup};

/// The nftables table, in `nft`'s words.
const OWN_TABLE: &str = "inet ferrule";

/// Index of `lo` in every namespace (`LOOPBACK_IFINDEX`, include/net/flow.h).
const LOOPBACK: u32 = 1;

/// The document of `--json`. Fields are added in time, none is renamed or removed within a version.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    version: u32,
    dry_run: bool,
    /// Nothing was removed, because pods are running.
    refused: bool,
    /// Attachments that may be in use.
    in_use: Vec<Told>,
    /// Links without a record, whose pods may be running.
    links_in_use: Vec<String>,
    /// What was removed, or would be.
    removed: Vec<Removed>,
    /// What ferrule does not remove, and how it is done.
    left: Vec<Left>,
    problems: Vec<String>,
}

#[derive(Serialize)]
struct Removed {
    /// `link`, `route`, `table`, `rule`, `sysctl` or `store`.
    kind: &'static str,
    what: String,
}

#[derive(Serialize)]
struct Left {
    what: String,
    remedy: String,
}

/// What there is to be removed.
struct Plan {
    links: Vec<Link>,
    overlay: overlay::Leftovers,
    routes: Vec<Route>,
    /// Whether there is an nftables table of ours.
    has_table: bool,
    /// Settings that were changed, and still are what they were changed to; the last change first.
    changed: Vec<SysctlBackup>,
    stores: Vec<PlannedStore>,
}

/// A store as it was when it was judged.
struct PlannedStore {
    data_dir: PathBuf,
    network: NetworkName,
    keys: HashSet<AttachmentKey>,
}

/// Removes everything, if no pod is running or that does not matter.
///
/// # Errors
/// Where conf directory, store or kernel cannot be read. What cannot be removed is told, and stops nothing else.
pub async fn uninstall(arguments: &Arguments, colour: bool) -> Result<Outcome, CniError> {
    let networks = Networks::find(arguments)?;
    let node = Node::look().await?;
    let mut document = Document {
        version: 1,
        dry_run: arguments.dry_run,
        refused: false,
        in_use: Vec::new(),
        links_in_use: Vec::new(),
        removed: Vec::new(),
        left: Vec::new(),
        problems: Vec::new(),
    };
    let plan = document.plan(&networks, &node).await?;
    let is_in_use = !document.in_use.is_empty() || !document.links_in_use.is_empty();
    document.refused = is_in_use && !arguments.may_cut_pods_off;
    if arguments.dry_run {
        document.foresee(&plan, &node);
        document.remove_rules(true).await;
    } else if !document.refused {
        document.carry_out(&plan, &node).await?;
        document.remove_rules(false).await;
    }
    let on_lo = node.netlink.addresses(Some(LOOPBACK)).await?;
    document.tell_what_is_left(&networks, &node, &on_lo);
    let status = u8::from(document.refused || !document.problems.is_empty());
    let text = if arguments.json { to_json(&document) } else { document.render(colour) };
    Ok(Outcome { text, status, ..Outcome::default() })
}

impl Document {
    /// Finds what there is, and who uses it.
    async fn plan(&mut self, networks: &Networks, node: &Node) -> Result<Plan, CniError> {
        let mut stores = Vec::new();
        let mut recorded = HashSet::new();
        let mut changed: Vec<SysctlBackup> = Vec::new();
        for network in &networks.known {
            let Some(store) = Store::open_existing(&network.data_dir, &network.name)? else { continue };
            let judged = judge_all(&store, node, network).await?;
            recorded.extend(judged.iter().flat_map(|it| names::node_links(&it.key)));
            // What cannot be read may be a running pod's.
            self.in_use.extend(judged.iter().filter(|it| !it.is_dead() || it.has_link).map(|it| it.tell()));
            for change in store.sysctl_backup(&node.boot).unwrap_or_default() {
                if !changed.iter().any(|it| it.path == change.path) && still_stands(&change) {
                    changed.push(change);
                }
            }
            stores.push(PlannedStore {
                data_dir: network.data_dir.clone(),
                network: network.name.clone(),
                keys: judged.into_iter().map(|it| it.key).collect(),
            });
        }
        let links: Vec<Link> = node.marked_links().cloned().collect();
        let unrecorded = links.iter().filter(|link| !recorded.contains(&link.name));
        self.links_in_use.extend(unrecorded.map(show_link));
        let overlay = overlay::find(&node.netlink).await?;
        let has_table = nftables::is_there(&pod_rules::open()?).await?;
        changed.reverse();
        Ok(Plan { links, overlay, routes: own_routes(node).await?, has_table, changed, stores })
    }

    /// Says what [`Document::carry_out`] would do.
    fn foresee(&mut self, plan: &Plan, node: &Node) {
        let links: HashSet<u32> =
            plan.links.iter().chain(&plan.overlay.device).map(|link| link.index).collect();
        plan.links.iter().for_each(|link| self.tell_removed("link", show_link(link)));
        self.tell_overlay(&plan.overlay);
        // Those by a link of ours go with it.
        let of_its_own = |route: &&Route| route.device.is_none_or(|device| !links.contains(&device));
        plan.routes
            .iter()
            .filter(of_its_own)
            .for_each(|route| self.tell_removed("route", node.show_route(route)));
        if plan.has_table {
            self.tell_removed("table", OWN_TABLE.to_owned());
        }
        plan.changed.iter().for_each(|it| self.tell_removed("sysctl", show_restored(it)));
        plan.stores.iter().for_each(|store| self.tell_removed("store", store.path().display().to_string()));
    }

    async fn carry_out(&mut self, plan: &Plan, node: &Node) -> Result<(), CniError> {
        match detach::detach_all(&node.netlink, &plan.links).await {
            Ok(()) => plan.links.iter().for_each(|link| self.tell_removed("link", show_link(link))),
            // Their addresses may be in use: without the store nobody would know.
            Err(error) => {
                self.problems.push(error.to_string());
                return Ok(());
            }
        }
        match overlay::remove(&node.netlink).await {
            Ok(removed) => self.tell_overlay(&removed),
            Err(error) => self.problems.push(error.to_string()),
        }
        let routes = own_routes(node).await?;
        let removals = routes.iter().map(|route| Change::DeleteRoute(route.clone()));
        for (outcome, route) in node.netlink.submit(removals).await.iter().zip(&routes) {
            match outcome {
                Err(refusal) if !KernelError::is_not_found(refusal) => {
                    self.problems.push(refusal.to_string())
                }
                _ => self.tell_removed("route", node.show_route(route)),
            }
        }
        if plan.has_table {
            match nftables::remove_table(&pod_rules::open()?).await {
                Ok(()) => self.tell_removed("table", OWN_TABLE.to_owned()),
                Err(error) => self.problems.push(error.to_string()),
            }
        }
        for change in &plan.changed {
            match sysctl::write(&parts(change), &change.before) {
                Ok(()) => self.tell_removed("sysctl", show_restored(change)),
                Err(error) => self.problems.push(error.to_string()),
            }
        }
        let mut data_dirs = BTreeSet::new();
        for store in &plan.stores {
            match store.remove(node) {
                Ok(()) => self.tell_removed("store", store.path().display().to_string()),
                Err(error) => self.problems.push(format!("network {}: {error}", store.network)),
            }
            data_dirs.insert(&store.data_dir);
        }
        for data_dir in data_dirs {
            // Only if it is empty: what is in it otherwise is none of ours.
            let _ = fs::remove_dir(data_dir);
        }
        Ok(())
    }

    fn tell_overlay(&mut self, overlay: &overlay::Leftovers) {
        overlay.device.iter().for_each(|link| self.tell_removed("link", show_link(link)));
        overlay.rules.iter().for_each(|rule| self.tell_removed("rule", rule.to_string()));
    }

    /// The rules in iptables' chains that let pods pass.
    async fn remove_rules(&mut self, dry_run: bool) {
        if let Ok(nft) = Nfnetlink::open_here() {
            let rules = match dry_run {
                true => foreign_firewall::accept_rules(&nft, None).await,
                false => foreign_firewall::remove(&nft, None).await,
            };
            match rules {
                Ok(rules) => rules.into_iter().for_each(|rule| self.tell_removed("rule", rule)),
                Err(error) => self.problems.push(error.to_string()),
            }
        }
        for legacy in LegacyTable::find() {
            let rules =
                legacy.and_then(|it| if dry_run { Ok(it.accept_rules(None)) } else { it.remove(None) });
            match rules {
                Ok(rules) => rules.into_iter().for_each(|rule| self.tell_removed("rule", rule)),
                Err(error) => self.problems.push(error),
            }
        }
    }

    fn tell_removed(&mut self, kind: &'static str, what: String) {
        self.removed.push(Removed { kind, what });
    }

    fn tell_what_is_left(&mut self, networks: &Networks, node: &Node, on_lo: &[Address]) {
        let mut leave = |what: String, remedy: String| self.left.push(Left { what, remedy });
        let confs: BTreeSet<&Path> = networks
            .known
            .iter()
            .filter_map(|network| network.conf.as_deref())
            .chain(networks.problems.iter().map(|problem| problem.path.as_path()))
            .collect();
        for conf in confs {
            leave(conf.display().to_string(), format!("rm {}  (the next pod needs another)", conf.display()));
        }
        if let Ok(program) = std::env::current_exe() {
            leave(program.display().to_string(), format!("rm {}", program.display()));
        }
        let logs = networks.known.iter().filter_map(|network| network.meaning.as_ref()?.log.file.as_ref());
        for log in logs.collect::<BTreeSet<_>>() {
            leave(log.display().to_string(), format!("rm {}", log.display()));
        }
        for delegate in
            networks.known.iter().filter_map(|network| network.delegate.as_ref()).collect::<BTreeSet<_>>()
        {
            leave(format!("addresses that {delegate} has given"), format!("see where {delegate} keeps them"));
        }
        // An address has no mark that would tell ours from an administrator's.
        for gateway in networks.known.iter().flat_map(KnownNetwork::named_gateways).collect::<BTreeSet<_>>() {
            if on_lo.iter().any(|it| it.network.ip() == gateway) {
                let remedy = format!(
                    "ip address delete {gateway}/{} dev lo",
                    if gateway.is_ipv4() { 32 } else { 128 }
                );
                leave(format!("gateway {gateway} on lo"), remedy);
            }
        }
        for key in [["net", "ipv4", "ip_forward"].as_slice(), &["net", "ipv6", "conf", "all", "forwarding"]] {
            if sysctl::read(key).is_ok_and(|value| value == "1") {
                let name = key.join(".");
                leave(
                    format!("{name}=1"),
                    format!("sysctl -w {name}=0  (unless something else forwards here)"),
                );
            }
        }
        for link in &node.links {
            let key = ["net", "ipv6", "conf", &link.name, "accept_ra"];
            if sysctl::read(&key).is_ok_and(|value| value == "2") {
                let name = key.join("/");
                leave(format!("{name}=2"), format!("sysctl -w {name}=1  (once this node forwards no more)"));
            }
        }
    }

    fn render(&self, colour: bool) -> String {
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
                 say --yes-pods-lose-their-network\n"
            );
        }
        let heading = if self.dry_run { "WOULD BE REMOVED" } else { "REMOVED" };
        let mut table = Table::new([heading, ""]);
        for it in &self.removed {
            table.push([it.kind.into(), (&it.what).into()]);
        }
        match table.render(colour).as_str() {
            "" if self.refused => {}
            "" => text.push_str("nothing of ferrule's was here to be removed\n\n"),
            table => {
                let _ = writeln!(text, "{table}");
            }
        }
        let mut table = Table::new(["LEFT AS IT IS", "TO REMOVE IT"]);
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

/// Whether it was changed, and nobody has set it to something else since.
fn still_stands(change: &SysctlBackup) -> bool {
    change.before != change.after && sysctl::read(&parts(change)).is_ok_and(|value| value == change.after)
}

fn show_restored(change: &SysctlBackup) -> String {
    format!("{} is {} again", change.path.join("/"), change.before)
}

fn parts(change: &SysctlBackup) -> Vec<&str> {
    change.path.iter().map(String::as_str).collect()
}

impl PlannedStore {
    fn path(&self) -> PathBuf {
        self.data_dir.join(self.network.as_str())
    }

    /// Removes the store, unless a pod was added since it was judged.
    fn remove(&self, node: &Node) -> Result<(), CniError> {
        let Some(store) = Store::open_existing(&self.data_dir, &self.network)? else { return Ok(()) };
        // An ADD that waits for the lock finds the store gone, and fails without a trace.
        let _locked = store.lock(&node.boot, LOCK_DEADLINE)?;
        if let Some(entry) = store.attachments()?.iter().find(|entry| !self.keys.contains(&entry.key)) {
            let message = format!("{} was attached meanwhile, so its store stays", entry.key);
            let details = "take the conf away first, then run this again";
            return Err(CniError::new(Code::TryAgain, message).with_details(details));
        }
        let path = self.path();
        fs::remove_dir_all(&path).map_err(|error| {
            CniError::new(Code::Io, format!("cannot remove {}", path.display()))
                .with_details(error.to_string())
        })
    }
}

/// Every route of ferrule's protocol, in every table.
async fn own_routes(node: &Node) -> Result<Vec<Route>, CniError> {
    let mut routes = Vec::new();
    for family in [Family::V4, Family::V6] {
        let filter = RouteFilter { protocol: Some(ROUTE_PROTOCOL), ..RouteFilter::all(family) };
        routes.extend(node.netlink.routes(filter).await?);
    }
    Ok(routes)
}

fn show_link(link: &Link) -> String {
    match &link.alias {
        Some(alias) => format!("{} ({alias})", link.name),
        None => link.name.clone(),
    }
}
