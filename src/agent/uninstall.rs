//! `ferruled --uninstall`: a node as if ferrule had never been there. Run once, after the agent is gone.
//!
//! The conf goes first, so that no pod comes meanwhile; then what `ferrule uninstall` removes (links, overlay, routes,
//! table, settings, stores); then the plugin. Where pods are running it changes nothing and says so, unless it was told
//! that they may lose their network.

use std::path::Path;

use serde::Deserialize;
use tracing::{error, info, warn};

use crate::agent::install::runtime::CONF_MODE;
use crate::agent::install::{drop_ins, files};
use crate::agent::settings::Settings;
use crate::cli;

/// What is read of the operator verb's answer.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Answer {
    refused: bool,
    in_use: Vec<InUse>,
    links_in_use: Vec<String>,
    removed: Vec<Removed>,
    problems: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct InUse {
    pod: Option<String>,
    container: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Removed {
    kind: String,
    what: String,
}

/// Cleans the node; returns whether nothing of ferrule is left. Must not be called inside a tokio runtime.
pub fn uninstall(settings: &Settings) -> bool {
    let Some(found) = ask(settings, &["--dry-run"]) else { return false };
    if found.refused && !settings.yes_pods_lose_their_network {
        for it in &found.in_use {
            warn!(
                pod = it.pod.as_deref().unwrap_or("unknown"),
                container = it.container,
                "it is running here"
            );
        }
        for link in &found.links_in_use {
            warn!(link, "it has no record, its pod may be running");
        }
        error!(
            "refused, nothing was removed: these pods would lose their network. Move them to other nodes first \
             (kubectl drain), or say --yes-pods-lose-their-network"
        );
        return false;
    }
    let conf = settings.conf_file();
    let content = std::fs::read(&conf).ok();
    let mut is_clean = remove(&conf, "network configuration");
    let words: &[&str] =
        if settings.yes_pods_lose_their_network { &["--yes-pods-lose-their-network"] } else { &[] };
    let done = ask(settings, words).unwrap_or(Answer { refused: true, ..Answer::default() });
    for it in &done.removed {
        info!(kind = it.kind, what = it.what, "removed");
    }
    for problem in &done.problems {
        error!(problem, "not removed");
    }
    if done.refused {
        error!("a pod came meanwhile; the network configuration stays, nothing else was removed");
        if let Some(Err(reason)) = content.map(|content| files::replace(&conf, &content, CONF_MODE)) {
            error!(%reason, "the network configuration could not be put back");
        }
        return false;
    }
    is_clean &= done.problems.is_empty();
    is_clean &= remove(&settings.plugin_target(), "plugin");
    if let Some(Err(reason)) = settings.drop_ins.as_deref().map(drop_ins::remove) {
        error!(%reason, "drop-in not removed");
        is_clean = false;
    }
    if is_clean {
        info!("nothing of ferrule is left on this node");
    }
    is_clean
}

/// Runs the operator verb. `None` if it could not be carried out at all; that is told.
fn ask(settings: &Settings, words: &[&str]) -> Option<Answer> {
    let directory = |flag: &str, path: &Path| [flag.into(), path.as_os_str().to_owned()];
    let arguments = ["uninstall".into(), "--json".into()]
        .into_iter()
        .chain(directory("--conf-dir", &settings.conf_dir))
        .chain(directory("--data-dir", &settings.data_dir))
        .chain(words.iter().map(Into::into));
    let outcome = cli::run(arguments, false);
    match serde_json::from_str(&outcome.text) {
        Ok(answer) => Some(answer),
        Err(_) => {
            error!(reason = outcome.complaint.trim(), "the node cannot be looked at");
            None
        }
    }
}

fn remove(path: &Path, what: &str) -> bool {
    match files::remove(path) {
        Ok(true) => info!(path = %path.display(), "{what} removed"),
        Ok(false) => {}
        Err(reason) => {
            error!(%reason, "{what} not removed");
            return false;
        }
    }
    true
}
