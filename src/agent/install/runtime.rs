//! The files for the container runtime, and whether it has loaded the conf.

use std::fs::File;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::agent::cluster::desired_state::OwnNode;
use crate::agent::install::chain;
use crate::agent::install::conflist;
use crate::agent::install::files;
use crate::agent::install::files::{InstallError, Installed};
use crate::agent::k8s::events::EventRecorder;
use crate::agent::serve::log::milliseconds;
use crate::agent::settings::Settings;
use crate::attachments::networks::Networks;
use crate::attachments::readiness;
use crate::attachments::timing::Steps;
use crate::cni::ids::NetworkName;
use crate::config::Network;
use crate::config::range::RangeSet;

/// How long a runtime and its kubelet may take to notice a conf. Kubelet asks the runtime every five seconds.
const PATIENCE: Duration = Duration::from_secs(15);

/// Longest pause between two nudges.
const LONGEST: Duration = Duration::from_secs(300);

/// Mode of the conf. Runtimes are root, and nobody else has to know (CIS Kubernetes benchmark, 1.1.9).
pub const CONF_MODE: u32 = 0o600;

/// What is installed for the runtime.
#[derive(Debug)]
pub struct Runtime {
    plugin: PathBuf,
    plugin_target: PathBuf,
    conf: PathBuf,
    /// Our part of the conf that is installed, once it is.
    installed: Option<Value>,
    /// Types of the plugins before and behind ours in the list.
    chained: (Vec<String>, Vec<String>),
    /// When to look whether the runtime has loaded it, and how long to wait then.
    look: Option<(Instant, Duration)>,
    /// Confs of others that come before ours, with the remedy.
    before: Vec<(PathBuf, Option<String>)>,
    network: NetworkName,
    data_dir: PathBuf,
    /// MTU of new pods, in bytes, where it is not the uplink's.
    pod_mtu: Option<u32>,
    /// What the conf that is installed means.
    meaning: Option<Network>,
}

/// Why the files could not be installed.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// A file could not be written.
    #[error(transparent)]
    Install(#[from] InstallError),
    /// The plugin's binary could not be read.
    #[error("cannot read the plugin {}: {source}; --plugin names it", path.display())]
    Plugin {
        /// Where it should be.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The plugin would refuse the conf.
    #[error("the conf for this node is not usable: {0}")]
    Conf(String),
}

impl Runtime {
    /// Nothing is installed yet.
    pub fn new(settings: &Settings) -> Self {
        Self {
            plugin: settings.plugin.clone(),
            plugin_target: settings.plugin_target(),
            conf: settings.conf_file(),
            installed: None,
            chained: Default::default(),
            look: None,
            before: Vec::new(),
            network: settings.network.clone(),
            data_dir: settings.data_dir.clone(),
            pod_mtu: None,
            meaning: None,
        }
    }

    /// Sets the MTU of new pods; returns whether it changed, and the conf with it.
    pub fn set_pod_mtu(&mut self, mtu: Option<u32>) -> bool {
        std::mem::replace(&mut self.pod_mtu, mtu) != mtu
    }

    /// The MTU of new pods, in bytes; `None` if it is the uplink's.
    pub fn pod_mtu(&self, settings: &Settings) -> Option<u32> {
        settings.conf_options(self.pod_mtu).mtu
    }

    /// Range sets of the conf that is installed.
    pub fn range_sets(&self) -> &[RangeSet] {
        self.meaning.as_ref().map(Network::range_sets).unwrap_or_default()
    }

    /// Installs the plugin, then the conf: as soon as the conf exists, pods come. Idempotent.
    ///
    /// # Errors
    /// Names the file, the reason and the remedy.
    pub fn install(&mut self, settings: &Settings, own: &OwnNode) -> Result<(), RuntimeError> {
        let mut plugin = File::open(&self.plugin)
            .map_err(|source| RuntimeError::Plugin { path: self.plugin.clone(), source })?;
        if files::install_from(&self.plugin_target, &mut plugin, 0o755)? == Installed::Written {
            info!(path = %self.plugin_target.display(), "plugin installed");
        }
        let conf = conflist::render(&settings.conf_options(self.pod_mtu), own);
        let network = conflist::check(&conf).map_err(RuntimeError::Conf)?;
        let merged = chain::merge(&conf, chain::read(&self.conf));
        if files::install(&self.conf, merged.text.as_bytes(), CONF_MODE)? == Installed::Written {
            info!(path = %self.conf.display(), "conf written");
        }
        let chained = merged.others();
        if self.chained != chained {
            let (before, behind) = (chained.0.join(","), chained.1.join(","));
            info!(before, behind, "plugins of others in the conf changed");
            self.chained = chained;
        }
        if self.installed.as_ref() != Some(&conf) {
            self.meaning = Some(network);
            self.installed = Some(conf);
            self.look = Some((Instant::now() + PATIENCE, PATIENCE));
        }
        Ok(())
    }

    /// Looks after a Node that says that it awaits its network. Where ferrule's own STATUS says no, the runtime repeats just
    /// that, and the cause is told. Else the runtime has not loaded the conf: its watch may have been late, or lost
    /// (containerd#11715), so it is written once more. `awaits_network` is what the Node says.
    pub async fn nudge(&mut self, now: Instant, awaits_network: bool, recorder: Option<&EventRecorder>) {
        let Some((at, pause)) = self.look.filter(|(at, _)| *at <= now) else { return };
        if !awaits_network {
            self.look = None;
            return;
        }
        let waited = now.duration_since(at) + pause;
        let pause = (pause * 2).min(LONGEST);
        self.look = Some((now + pause, pause));
        if let Some(meaning) = &self.meaning
            && let Err(reason) = readiness::judge(meaning, None, &Steps::default()).await
        {
            warn!(waited = milliseconds(waited), %reason, "node awaits its network, STATUS says that no pod can be added");
            if let Some(recorder) = recorder {
                let note = format!("the node is not Ready because no pod can be added: {reason}");
                recorder.warn("NoPodCanBeAdded", note);
            }
            return;
        }
        warn!(waited = milliseconds(waited), "runtime has not loaded the conf, writing it again");
        if let Some(recorder) = recorder {
            let file = self.conf.display();
            recorder.warn(
                "RuntimeIgnoresConf",
                format!("the runtime has not loaded {file}; it was written again. Does the runtime read that directory?"),
            );
        }
        if let Some(ours) = &self.installed {
            let merged = chain::merge(ours, chain::read(&self.conf));
            if let Err(error) = files::replace(&self.conf, merged.text.as_bytes(), CONF_MODE) {
                warn!(reason = %error, "conf not written again");
            }
        }
    }

    /// The runtime says that it has no network configuration: look soon whether that goes on.
    pub fn expect_soon(&mut self) {
        if self.installed.is_some() && self.look.is_none() {
            self.look = Some((Instant::now() + PATIENCE, PATIENCE));
        }
    }

    /// Reports confs of others that the runtime takes before ours, and plugins that stand before ours in the list. They
    /// are not removed: whose they are is for people to say.
    pub fn report_others(&mut self, recorder: Option<&EventRecorder>) {
        let (before, _) = &self.chained;
        if let Some(recorder) = recorder.filter(|_| !before.is_empty()) {
            let (file, types) = (self.conf.display(), before.join(", "));
            let note = format!(
                "in {file} {types} stands before ferrule, which makes the pods' network and belongs first; move it behind"
            );
            recorder.warn("PluginBeforeFerrule", note);
        }
        let before = self.confs_before();
        if before != self.before {
            for (path, word) in &before {
                match word {
                    None => {
                        info!(path = %path.display(), "meta plugin comes first and leads to this network")
                    }
                    Some(remedy) => {
                        warn!(path = %path.display(), remedy, "another conf takes precedence, the runtime uses that one");
                    }
                }
            }
            self.before = before;
        }
        for (path, remedy) in &self.before {
            if let (Some(recorder), Some(remedy)) = (recorder, remedy) {
                let (path, ours) = (path.display(), self.conf.display());
                let note = format!("the runtime uses {path}, which comes before {ours}; {remedy}");
                recorder.warn("OtherNetworkFirst", note);
            }
        }
    }

    /// Confs that the runtime takes before ours, each with what to do about it; with nothing where it is multus, which
    /// comes first on purpose and leads to ours, or to an object of the API that may be ours.
    fn confs_before(&self) -> Vec<(PathBuf, Option<String>)> {
        let paths = files::files_before(&self.conf).unwrap_or_default();
        if paths.is_empty() {
            return Vec::new();
        }
        let directory = self.conf.parent().unwrap_or(&self.conf);
        let found = Networks::find(directory, &self.data_dir).unwrap_or_default();
        let remedy = |path: &PathBuf| {
            let file = found.files.iter().find(|file| file.path == *path);
            match file.and_then(|file| Some((file, file.meta.as_ref()?))) {
                Some((file, _)) if file.is_unclear || file.leads_to(&self.network) => None,
                Some((_, meta)) => Some(format!(
                    "{} in it does not lead to ferrule: let its clusterNetwork, or the first of its delegates, be {}",
                    meta.plugin, self.network
                )),
                None => Some("remove it to use ferrule".to_owned()),
            }
        };
        paths.into_iter().map(|path| (path.clone(), remedy(&path))).collect()
    }
}
