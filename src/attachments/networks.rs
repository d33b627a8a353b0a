//! Which networks of ferrule there are on this node: those of the conflists, and those that only a store still
//! knows.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::attachments::conf_file::{self, MetaPlugin, conf_files, list};
use crate::cni::conf::Conf;
use crate::cni::env::Environment;
use crate::cni::error::{CniError, Code};
use crate::cni::ids::NetworkName;
use crate::config::{Network, Removal, Role};

/// A network that ferrule has a part in.
#[derive(Debug)]
pub struct KnownNetwork {
    /// Its name.
    pub name: NetworkName,
    /// Below which its store is.
    pub data_dir: PathBuf,
    /// The file that it was found in; `None` where only a store is left.
    pub conf: Option<PathBuf>,
    /// What the conf means; `None` without one, or if it is not usable.
    pub meaning: Option<Network>,
    /// The part that ferrule plays, as far as a conf tells.
    pub role: Option<Role>,
    /// The IPAM plugin that gives the addresses, where it is another.
    pub delegate: Option<String>,
}

impl KnownNetwork {
    /// The gateways that its conf gives a name to: the node answers for them, with an address of `lo` for IPv6.
    pub fn named_gateways(&self) -> impl Iterator<Item = IpAddr> {
        let meaning = self.meaning.iter().filter(|meaning| meaning.role == Role::Main);
        let ranges = meaning.flat_map(Network::range_sets).flat_map(|set| set.ranges());
        ranges.filter_map(|range| range.names_gateway())
    }
}

/// A file in the conf directory, as a runtime would take it.
#[derive(Debug)]
pub struct ConfFile {
    /// Where it is.
    pub path: PathBuf,
    /// The network's name in it.
    pub name: Option<String>,
    /// Networks whose main plugin is ferrule, in this file or where a meta plugin in it hands pods on to; with the conf of
    /// ferrule.
    pub mains: Vec<(NetworkName, Value)>,
    /// The meta plugin in it, such as multus.
    pub meta: Option<MetaPlugin>,
    /// Whether the meta plugin hands pods on to something that is not found here: a NetworkAttachmentDefinition, say.
    pub is_unclear: bool,
}

impl ConfFile {
    /// Whether pods get the network by this file.
    pub fn leads_to(&self, network: &NetworkName) -> bool {
        self.mains.iter().any(|(name, _)| name == network)
    }
}

/// A conf that cannot be used as it is.
#[derive(Debug)]
pub struct ConfProblem {
    /// The file.
    pub path: PathBuf,
    /// What is wrong.
    pub text: String,
}

/// All that was found.
#[derive(Debug, Default)]
pub struct Networks {
    /// In the order of the files, then those without a conf by name.
    pub known: Vec<KnownNetwork>,
    /// Files of the conf directory in the order in which runtimes read them.
    pub files: Vec<ConfFile>,
    /// Confs in which ferrule is named, and which cannot be used.
    pub problems: Vec<ConfProblem>,
}

impl Networks {
    /// Looks for conflists in `conf_dir`, and for stores in `data_dir` and wherever a conflist has its own. A directory
    /// that does not exist is empty.
    ///
    /// # Errors
    /// Where a directory cannot be read.
    pub fn find(conf_dir: &Path, data_dir: &Path) -> Result<Self, CniError> {
        let mut networks = Self::default();
        for path in conf_files(conf_dir)? {
            let file = networks.read_conf(path);
            networks.files.push(file);
        }
        networks.follow_references();
        for data_dir in networks.data_dirs(data_dir) {
            networks.read_data_dir(&data_dir)?;
        }
        Ok(networks)
    }

    /// The same for one network only.
    ///
    /// # Errors
    /// As [`Networks::find`], or if there is no such network.
    pub fn find_one(conf_dir: &Path, data_dir: &Path, name: &NetworkName) -> Result<Self, CniError> {
        let mut networks = Self::find(conf_dir, data_dir)?;
        let data_dirs = networks.data_dirs(data_dir);
        networks.known.retain(|network| network.name == *name);
        if networks.known.is_empty() {
            let details = format!(
                "neither a conf in {} nor a store in {} has that name",
                conf_dir.display(),
                data_dirs.iter().map(|dir| dir.display().to_string()).collect::<Vec<_>>().join(", ")
            );
            let message = format!("no network {:?} is known here", name.as_str());
            return Err(CniError::new(Code::InvalidConf, message).with_details(details));
        }
        Ok(networks)
    }

    fn data_dirs(&self, default: &Path) -> BTreeSet<PathBuf> {
        self.known.iter().map(|network| network.data_dir.clone()).chain([default.to_owned()]).collect()
    }

    /// Takes in the networks of one file.
    fn read_conf(&mut self, path: PathBuf) -> ConfFile {
        let content = conf_file::read(&path).unwrap_or_else(|text| {
            self.problems.push(ConfProblem { path: path.clone(), text });
            conf_file::Content::default()
        });
        let mut mains = Vec::new();
        for conf in content.confs {
            mains.extend(self.take_in(&path, conf));
        }
        ConfFile { path, name: content.name, mains, meta: content.meta, is_unclear: false }
    }

    /// Takes in one network; returns it if ferrule is its main plugin.
    fn take_in(&mut self, path: &Path, conf: Conf) -> Option<(NetworkName, Value)> {
        let mut report = |error: CniError| {
            self.problems.push(ConfProblem { path: path.to_owned(), text: error.to_string() });
        };
        let removal = Removal::read(&conf).map_err(&mut report).ok()?;
        let meaning = Environment::read(|name| (name == "CNI_COMMAND").then(|| "STATUS".into()))
            .and_then(|environment| Network::read(&conf, &environment));
        let meaning = meaning.map_err(report).ok();
        let is_known =
            |known: &KnownNetwork| (&known.name, &known.data_dir) == (&removal.name, &removal.data_dir);
        let mut document = conf.document;
        // It stands in the plugin or in the list around it.
        if let Some(members) = document.as_object_mut() {
            members.retain(|name, _| name != "cniVersion" && name != "cniVersions");
        }
        let main = (removal.role == Role::Main).then(|| (removal.name.clone(), document));
        // A second conf of a network is another form of it: runtimes take the first.
        if !self.known.iter().any(is_known) {
            self.known.push(KnownNetwork {
                name: removal.name,
                data_dir: removal.data_dir,
                conf: Some(path.to_owned()),
                meaning,
                role: Some(removal.role),
                delegate: removal.delegate,
            });
        }
        main
    }

    /// Finds what meta plugins refer to: by the name of a network or of a file in the conf directory, or in the directory
    /// that the meta plugin has for it.
    fn follow_references(&mut self) {
        for place in 0..self.files.len() {
            let Some(meta) = self.files[place].meta.clone() else { continue };
            let mut mains = Vec::new();
            let mut is_unclear = meta.references.is_empty() && !meta.has_inline;
            for reference in &meta.references {
                let beside = self.files.iter().find(|file| file.meta.is_none() && is_meant(file, reference));
                if let Some(file) = beside {
                    mains.extend(file.mains.clone());
                    continue;
                }
                let elsewhere = meta.candidates(reference).into_iter().map(|path| self.read_conf(path));
                match elsewhere.collect::<Vec<_>>().into_iter().find(|file| is_meant(file, reference)) {
                    Some(file) => mains.extend(file.mains),
                    None => is_unclear = true,
                }
            }
            self.files[place].mains.extend(mains);
            self.files[place].is_unclear = is_unclear;
        }
    }

    /// Takes in the stores whose network has no conf any more.
    fn read_data_dir(&mut self, data_dir: &Path) -> Result<(), CniError> {
        for path in list(data_dir)? {
            let name = path.file_name().and_then(|name| NetworkName::parse(name.to_str()?).ok());
            let Some(name) = name.filter(|_| path.join("by-id").is_dir()) else { continue };
            if !self.known.iter().any(|known| known.name == name && known.data_dir == data_dir) {
                self.known.push(KnownNetwork {
                    name,
                    data_dir: data_dir.to_owned(),
                    conf: None,
                    meaning: None,
                    role: None,
                    delegate: None,
                });
            }
        }
        Ok(())
    }
}

/// By the network's name, by that of the file, or by a path: the conf directory has another one in the meta plugin's
/// container.
fn is_meant(file: &ConfFile, reference: &str) -> bool {
    let named = Path::new(reference);
    let is_of_file = named.file_name().is_some_and(|name| file.path.file_name() == Some(name));
    let is_stem = file.path.file_stem().is_some_and(|stem| stem == reference);
    file.name.as_deref() == Some(reference) || is_of_file || is_stem || file.path.parent() == Some(named)
}
