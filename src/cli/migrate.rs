//! `ferrulectl migrate`: what `kubectl ferrule migrate` has done on each node, one step after another, so that the node moves
//! from a plugin with host-local to ferrule under its running pods.
//!
//! | step  | does                                                                                            |
//! |-------|-------------------------------------------------------------------------------------------------|
//! | look  | finds the old network, says what import would do, and what keeps the node from moving            |
//! | stage | gives the old conflist a name that comes before ferrule's, so that the agent can write its own   |
//! | take  | moves the old conflist away and imports its pods, while neither plugin can give out an address   |
//!
//! Between `stage` and `take` the agent comes: it has installed plugin and conflist, and made the node's part of the network,
//! while the runtime still uses the old conflist. So `take` needs one rename for the swap, the runtime always has a conf that
//! works, and the node stays Ready. From before the rename until all is imported `take` holds the lock of ferrule's store,
//! which ADD and DEL wait for; what the old plugin was about to do meanwhile it lets come to its end, see [`quiet`].
//!
//! Each step may be done again, from any state that another one left.

mod carry;
mod old;
mod quiet;
mod report;

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ipnetwork::IpNetwork;
use serde_json::json;

use crate::attachments::LOCK_DEADLINE;
use crate::attachments::node_view::NodeView;
use crate::cli::arguments::{Common, MigrateStep};
use crate::cli::bridges::ManualStep;
use crate::cli::import::report::ImportReport;
use crate::cli::import::{ImportRequest, Target, choose_network, import_into};
use crate::cni::conf::Conf;
use crate::cni::env::Environment;
use crate::cni::error::{CniError, Code};
use crate::cni::ids::NetworkName;
use crate::cni::version::SpecVersion;
use crate::config::Network;
use crate::config::role::PLUGIN_TYPE;
use crate::store::Store;
use old::{Found, InUse, OldNetwork};
use report::{Followed, MigrateReport};

/// What the old conflist is called while ferrule's stands beside it: before anything that others name.
const STAGED_PREFIX: &str = "00-ferrule-migrate-";

/// What is appended to its name where the runtime does not read it.
const AWAY_SUFFIX: &str = ".was";

/// What moves, and how.
pub struct MigrateRequest<'a> {
    pub step: MigrateStep,
    /// The network, which has the name of the old one.
    pub network: &'a NetworkName,
    /// File name of ferrule's conflist.
    pub conf_name: &'a str,
    /// The node's.
    pub pod_cidrs: &'a [IpNetwork],
    /// host-local's directory; `None`: where the old conflist says.
    pub from: Option<&'a Path>,
    /// libcni's cache of results.
    pub results: &'a Path,
}

/// Makes the node's root directory this process' own: what it does then, it does as a process of the node.
///
/// # Errors
/// The system's reason.
pub fn enter(root: &Path) -> Result<(), CniError> {
    let entered = rustix::process::chroot(root).and_then(|()| rustix::process::chdir("/"));
    entered.map_err(|error| {
        CniError::new(Code::Io, format!("cannot enter {}", root.display())).with_details(error.to_string())
    })
}

/// Does the step.
///
/// # Errors
/// Where something cannot be read or written. What is in the way of the move is a problem of the report.
pub async fn migrate(common: &Common, request: &MigrateRequest<'_>) -> Result<MigrateReport, CniError> {
    let found = Found::find(&common.conf_dir, request.network)?;
    let mut report = MigrateReport::new(request.step, request.network, &found);
    report.problems.extend(found.problems.iter().cloned());
    let Some(from) = host_local_of(request, &found) else { return Ok(report) };
    report.host_local = Some(from.display().to_string());
    refuse_other_ranges(request, found.old.as_ref(), &mut report);
    let import = Import { request, from: &from };
    if request.step == MigrateStep::Take {
        if report.problems.is_empty() {
            import.take(common, &found, &mut report).await?;
        }
        return Ok(report);
    }
    if !import.has_none(&mut report) {
        let target = match &found.ours {
            Some(_) => choose_network(common, request.network)?,
            None => foresee_network(common, request)?,
        };
        import.run(&target, &mut report, true).await?;
    }
    if request.step == MigrateStep::Stage && report.problems.is_empty() {
        stage(common, request, &found, &mut report)?;
    }
    Ok(report)
}

/// Where host-local has the old network's addresses; `None` where there is nothing to take over.
fn host_local_of(request: &MigrateRequest<'_>, found: &Found) -> Option<PathBuf> {
    let said = found.old.as_ref().and_then(|old| old.host_local.clone());
    request.from.map(Path::to_owned).or(said)
}

/// A pod of the node must have its address from where ferrule gives them on this node.
fn refuse_other_ranges(request: &MigrateRequest<'_>, old: Option<&OldNetwork>, report: &mut MigrateReport) {
    let is_within = |subnet: &IpNetwork| {
        request
            .pod_cidrs
            .iter()
            .any(|cidr| cidr.contains(subnet.network()) && cidr.prefix() <= subnet.prefix())
    };
    for subnet in old.iter().flat_map(|old| &old.subnets).filter(|subnet| !is_within(subnet)) {
        report.problems.push(format!(
            "the old network gives addresses of {subnet}, which is not in the Node's podCIDRs, {}: pods of ferrule would be \
             elsewhere",
            list(request.pod_cidrs)
        ));
    }
}

/// The network that the agent will write a conflist for, as far as an import needs it.
fn foresee_network(common: &Common, request: &MigrateRequest<'_>) -> Result<Target, CniError> {
    let ranges = |ipv4: bool| {
        let cidrs = request.pod_cidrs.iter().filter(|cidr| cidr.is_ipv4() == ipv4);
        cidrs.map(|cidr| json!({ "subnet": cidr.to_string() })).collect::<Vec<_>>()
    };
    let sets: Vec<_> = [ranges(true), ranges(false)].into_iter().filter(|set| !set.is_empty()).collect();
    let document = json!({
        "name": request.network.as_str(), "type": PLUGIN_TYPE,
        "ipam": { "type": PLUGIN_TYPE, "dataDir": common.data_dir, "ranges": sets },
    });
    let conf = Conf { version: SpecVersion::V1_0_0, document };
    let environment = Environment::read(|name| (name == "CNI_COMMAND").then(|| "STATUS".into()))?;
    Target::new(Network::read(&conf, &environment)?)
}

/// Gives the old conflist a name that comes before ferrule's, where it has none.
fn stage(
    common: &Common,
    request: &MigrateRequest<'_>,
    found: &Found,
    report: &mut MigrateReport,
) -> Result<(), CniError> {
    let ours = common.conf_dir.join(request.conf_name);
    let Some(first) = found.files.first().filter(|first| found.in_use == InUse::Old && **first > ours) else {
        return Ok(());
    };
    let staged = common.conf_dir.join(format!("{STAGED_PREFIX}{}", file_name(first)));
    rename(first, &staged)?;
    report.moved.push(format!("{} -> {}", first.display(), staged.display()));
    Ok(())
}

/// What is imported, and from where.
struct Import<'a> {
    request: &'a MigrateRequest<'a>,
    from: &'a Path,
}

impl Import<'_> {
    /// A node that never had a pod has no directory of host-local.
    fn has_none(&self, report: &mut MigrateReport) -> bool {
        if self.from.exists() {
            return false;
        }
        let prefix = format!("{}-", self.request.network);
        let entries = fs::read_dir(self.request.results).into_iter().flatten().flatten();
        if entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix)).count() > 0 {
            report.problems.push(format!(
                "there is no directory {}, but {} has results of pods: name host-local's directory with --from",
                self.from.display(),
                self.request.results.display()
            ));
        }
        true
    }

    fn words(&self, dry_run: bool) -> ImportRequest<'_> {
        let Self { request, from } = self;
        ImportRequest { from, network: Some(request.network), results: request.results, dry_run }
    }

    async fn run(&self, target: &Target, report: &mut MigrateReport, dry_run: bool) -> Result<(), CniError> {
        let done = import_into(target, &self.words(dry_run), None).await?;
        report.note(done, self.request.pod_cidrs);
        Ok(())
    }

    /// Swaps the conflists and takes over the pods.
    async fn take(&self, common: &Common, found: &Found, report: &mut MigrateReport) -> Result<(), CniError> {
        let Some(ours) = &found.ours else {
            let dir = common.conf_dir.display();
            report.problems.push(format!("{dir} has no conflist of ferrule's yet: its agent has not come"));
            return Ok(());
        };
        let target = choose_network(common, self.request.network)?;
        let has_none = self.has_none(report);
        // Most of it now, while nobody waits; what comes from here to the rename is left for then.
        if !has_none {
            self.run(&target, report, false).await?;
        }
        if !report.problems.is_empty() {
            return Ok(());
        }
        let has_ports = report.has_host_ports();
        if let Some(old) = &found.old {
            report.carried = carry::carry(ours, &old.behind, has_ports)?;
        }
        let node = NodeView::read().await?;
        let store = Store::open(&target.network.data_dir, &target.network.name)?;
        let mut locked = store.lock(&node.boot, LOCK_DEADLINE)?;
        let moved = move_away(&common.conf_dir, &found.files)?;
        let taken = async {
            quiet::wait().await?;
            match has_none && !self.from.exists() {
                true => Ok(None),
                false => {
                    import_into(&target, &self.words(false), Some((&store, &mut locked))).await.map(Some)
                }
            }
        };
        match taken.await {
            Ok(done) => {
                if let Some(done) = done {
                    report.note(done, self.request.pod_cidrs);
                }
            }
            Err(error) => {
                for (before, after) in moved.iter().rev() {
                    rename(after, before)?;
                }
                return Err(error);
            }
        }
        drop(locked);
        let told = moved.iter().map(|(before, after)| format!("{} -> {}", before.display(), after.display()));
        report.moved.extend(told);
        report.in_use = InUse::Ferrule;
        for step in report.take_steps() {
            report.followed.push(follow(step).await);
        }
        Ok(())
    }
}

/// Moves the files to where no runtime reads them, under their first names. All or none.
fn move_away(conf_dir: &Path, files: &[PathBuf]) -> Result<Vec<(PathBuf, PathBuf)>, CniError> {
    let keep = old::keep_dir(conf_dir);
    if !files.is_empty() {
        fs::create_dir_all(&keep).map_err(|error| refuse("make", &keep, &error))?;
    }
    let mut moved: Vec<(PathBuf, PathBuf)> = Vec::new();
    // The first in the end: until then the runtime uses it.
    for file in files.iter().rev() {
        let name = file_name(file);
        let first = name.strip_prefix(STAGED_PREFIX).unwrap_or(name);
        // An old plugin that was started in between has written its own once more.
        let is_taken =
            moved.iter().any(|(_, after)| file_name(after).strip_suffix(AWAY_SUFFIX) == Some(first));
        let after = keep.join(format!("{}{AWAY_SUFFIX}", if is_taken { name } else { first }));
        if let Err(error) = rename(file, &after) {
            for (before, after) in moved.iter().rev() {
                rename(after, before)?;
            }
            return Err(error);
        }
        moved.push((file.clone(), after));
    }
    Ok(moved)
}

/// Does what import leaves to a person. Nobody's network but that of imported pods depends on it.
async fn follow(step: ManualStep) -> Followed {
    let ran = tokio::process::Command::new("sh").arg("-c").arg(&step.command).output().await;
    let problem = match ran {
        Ok(done) if done.status.success() => None,
        Ok(done) => Some(String::from_utf8_lossy(&done.stderr).trim().to_owned()),
        Err(error) => Some(error.to_string()),
    };
    Followed { command: step.command, reason: step.reason, problem }
}

/// Within one file system, at once.
fn rename(before: &Path, after: &Path) -> Result<(), CniError> {
    fs::rename(before, after).map_err(|error| refuse("rename", before, &error))
}

fn refuse(verb: &str, path: &Path, error: &io::Error) -> CniError {
    CniError::new(Code::Io, format!("cannot {verb} {}", path.display())).with_details(error.to_string())
}

fn file_name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

fn list(cidrs: &[IpNetwork]) -> String {
    match cidrs {
        [] => "of which it has none".to_owned(),
        cidrs => cidrs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    }
}

/// Addresses that are in none of the networks.
fn outside<'a>(addresses: &'a [IpAddr], cidrs: &[IpNetwork]) -> Vec<&'a IpAddr> {
    addresses.iter().filter(|address| !cidrs.iter().any(|cidr| cidr.contains(**address))).collect()
}

impl MigrateReport {
    /// Takes in what an import said; of an earlier one only who was imported then.
    fn note(&mut self, mut done: ImportReport, pod_cidrs: &[IpNetwork]) {
        for pod in &done.pods {
            for address in outside(&pod.addresses, pod_cidrs) {
                let name = pod.pod.as_deref().unwrap_or(&pod.container);
                self.problems.push(format!(
                    "{name} has the address {address}, which is not in the Node's podCIDRs, {}: remove that pod first",
                    list(pod_cidrs)
                ));
            }
        }
        self.problems.append(&mut done.problems.clone());
        if let Some(before) = self.import.take() {
            let new = before.pods.iter().filter(|pod| pod.state == "imported");
            let new: Vec<(&str, &str)> =
                new.map(|pod| (pod.container.as_str(), pod.ifname.as_str())).collect();
            for pod in &mut done.pods {
                if new.contains(&(pod.container.as_str(), pod.ifname.as_str())) {
                    pod.state = "imported";
                }
            }
        }
        self.import = Some(done);
    }
}
