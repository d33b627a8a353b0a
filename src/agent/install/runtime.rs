//! The container runtime: the files that it reads, and whether it read them.

use std::fs::File;
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

use crate::agent::cluster::desired_state::Own;
use crate::agent::install::conflist;
use crate::agent::install::files;
use crate::agent::install::files::{InstallError, Installed};
use crate::agent::k8s::events::Herald;
use crate::agent::settings::Settings;

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
    /// The conf that stands, once it does.
    standing: Option<String>,
    /// When to look whether the runtime took it, and how long to wait then.
    look: Option<(Instant, Duration)>,
    /// Confs of others that come before ours.
    before: Vec<PathBuf>,
}

/// Why the files are not what they should be.
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
    /// Knows where the files are to be.
    pub fn new(settings: &Settings) -> Self {
        Self {
            plugin: settings.plugin.clone(),
            plugin_target: settings.plugin_target(),
            conf: settings.conf_file(),
            standing: None,
            look: None,
            before: Vec::new(),
        }
    }

    /// Installs the plugin, then the conf: as soon as the conf stands, pods come. Idempotent.
    ///
    /// # Errors
    /// Names the file, the reason and the remedy.
    pub fn install(&mut self, settings: &Settings, own: &Own, mtu: Option<u32>) -> Result<(), RuntimeError> {
        let mut plugin = File::open(&self.plugin)
            .map_err(|source| RuntimeError::Plugin { path: self.plugin.clone(), source })?;
        if files::install_from(&self.plugin_target, &mut plugin, 0o755)? == Installed::Written {
            info!(path = %self.plugin_target.display(), "plugin installed");
        }
        let conf = conflist::render(&settings.wishes(mtu), own);
        conflist::check(&conf).map_err(RuntimeError::Conf)?;
        if files::install(&self.conf, conf.as_bytes(), CONF_MODE)? == Installed::Written {
            info!(path = %self.conf.display(), "network configuration written");
        }
        if self.standing.as_ref() != Some(&conf) {
            self.standing = Some(conf);
            self.look = Some((Instant::now() + PATIENCE, PATIENCE));
        }
        Ok(())
    }

    /// Whether the files stand.
    pub fn is_installed(&self) -> bool {
        self.standing.is_some()
    }

    /// The conf that stands.
    pub fn conf(&self) -> Option<&str> {
        self.standing.as_deref()
    }

    /// Writes the conf once more where the runtime has not taken it: its watch may have been late, or lost
    /// (containerd#11715). `awaits_network` is what the Node says.
    pub fn nudge(&mut self, now: Instant, awaits_network: bool, herald: Option<&Herald>) {
        let Some((at, pause)) = self.look.filter(|(at, _)| *at <= now) else { return };
        if !awaits_network {
            self.look = None;
            return;
        }
        let waited = now.duration_since(at) + pause;
        warn!(?waited, "the runtime has not taken the network configuration; writing it again");
        if let Some(herald) = herald {
            let file = self.conf.display();
            herald.warn(
                "RuntimeIgnoresConf",
                format!("the runtime has not taken {file}; it was written again. Does the runtime read that directory?"),
            );
        }
        let content = self.standing.clone().unwrap_or_default();
        if let Err(error) = files::replace(&self.conf, content.as_bytes(), CONF_MODE) {
            warn!(%error, "the network configuration could not be written again");
        }
        let pause = (pause * 2).min(LONGEST);
        self.look = Some((now + pause, pause));
    }

    /// The runtime says that it has no network configuration: look soon whether that goes on.
    pub fn expect_soon(&mut self) {
        if self.is_installed() && self.look.is_none() {
            self.look = Some((Instant::now() + PATIENCE, PATIENCE));
        }
    }

    /// Reports confs of others that the runtime takes before ours. They are left alone: whose they are is for people to
    /// say.
    pub fn report_others(&mut self, herald: Option<&Herald>) {
        let before = files::files_before(&self.conf).unwrap_or_default();
        if before != self.before {
            for path in &before {
                warn!(path = %path.display(), "another network configuration comes before ours: the runtime uses that one");
            }
            self.before = before;
        }
        for path in &self.before {
            if let Some(herald) = herald {
                let (path, ours) = (path.display(), self.conf.display());
                let note =
                    format!("the runtime uses {path}, which comes before {ours}; remove it to use ferrule");
                herald.warn("OtherNetworkFirst", note);
            }
        }
    }
}
