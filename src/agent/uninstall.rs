//! `ferruled --uninstall`: removes ferrule from a node. Run once, after the agent is gone.
//!
//! The conf goes first, so that no pod comes meanwhile; then what [`Uninstall`] removes (links, overlay, routes, table,
//! sysctls, stores); then the plugin. Where pods are running it changes nothing and says so, unless it was told that they
//! may lose their network.

use std::path::Path;

use tracing::{error, info, warn};

use crate::agent::install::files::InstallError;
use crate::agent::install::runtime::CONF_MODE;
use crate::agent::install::{chain, drop_ins, files, loopback};
use crate::agent::settings::Settings;
use crate::attachments::block_on;
use crate::attachments::networks::Networks;
use crate::attachments::node_view::NodeView;
use crate::attachments::uninstall::{Removed, Uninstall, show_link};
use crate::cni::error::CniError;

/// Cleans the node; returns whether nothing of ferrule is left. Must not be called inside a tokio runtime.
pub fn uninstall(settings: &Settings) -> bool {
    match block_on(clean(settings)) {
        Ok(is_clean) => {
            if is_clean {
                info!("nothing of ferrule is left on this node");
            }
            is_clean
        }
        Err(reason) => {
            error!(%reason, "cannot uninstall");
            false
        }
    }
}

async fn clean(settings: &Settings) -> Result<bool, CniError> {
    let networks = Networks::find(&settings.conf_dir, &settings.data_dir)?;
    let is_refused = |plan: &Uninstall| plan.is_in_use() && !settings.yes_pods_lose_their_network;
    let (_, plan) = look(&networks).await?;
    if is_refused(&plan) {
        refuse(&plan);
        return Ok(false);
    }
    let conf = settings.conf_file();
    let content = std::fs::read(&conf).ok();
    // Plugins of others in our list go with it, since they have no network to work on without ferrule. A list of somebody
    // else under our file's name stays.
    let is_anothers = chain::read(&conf).is_some_and(|found| !found.is_of(settings.network.as_str()));
    let mut is_clean = is_anothers || remove(&conf, "network configuration");
    // A pod may have come before the conf was gone.
    let looked = look(&networks).await;
    if looked.as_ref().map_or(true, |(_, plan)| is_refused(plan))
        && let Some(Err(reason)) = content.map(|content| files::replace(&conf, &content, CONF_MODE))
    {
        error!(%reason, "the network configuration could not be put back");
    }
    let (node, plan) = looked?;
    if is_refused(&plan) {
        refuse(&plan);
        return Ok(false);
    }
    is_clean &= report(&plan.carry_out(&node).await);
    is_clean &=
        removed(&loopback::target(&settings.bin_dir), "loopback plugin", loopback::remove(&settings.bin_dir));
    is_clean &= remove(&settings.plugin_target(), "plugin");
    if let Some(Err(reason)) = settings.drop_ins.as_deref().map(drop_ins::remove) {
        error!(%reason, "drop-in not removed");
        is_clean = false;
    }
    Ok(is_clean)
}

async fn look(networks: &Networks) -> Result<(NodeView, Uninstall), CniError> {
    let node = NodeView::read().await?;
    let plan = Uninstall::plan(networks, &node).await?;
    Ok((node, plan))
}

fn refuse(plan: &Uninstall) {
    for it in &plan.in_use {
        let pod = it.pod().unwrap_or_else(|| "unknown".to_owned());
        warn!(pod, container = %it.key.container, "pod may be running");
    }
    for link in &plan.unrecorded_links {
        warn!(link = show_link(link), "link without a record, its pod may be running");
    }
    error!(
        "refused, nothing was removed: these pods would lose their network. Move them to other nodes first (kubectl \
         drain), or pass --yes-pods-lose-their-network"
    );
}

fn report(removed: &Removed) -> bool {
    for it in &removed.objects {
        info!(kind = it.kind, name = it.name, "removed");
    }
    for problem in &removed.problems {
        error!(problem, "not removed");
    }
    removed.problems.is_empty()
}

fn remove(path: &Path, what: &str) -> bool {
    removed(path, what, files::remove(path))
}

fn removed(path: &Path, what: &str, outcome: Result<bool, InstallError>) -> bool {
    match outcome {
        Ok(true) => info!(path = %path.display(), "{what} removed"),
        Ok(false) => {}
        Err(reason) => {
            error!(%reason, "{what} not removed");
            return false;
        }
    }
    true
}
