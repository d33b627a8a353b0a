//! Which networks of ferrule there are on this node: those of the conflists, and those that only a store still
//! knows.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::cni::conf::Conf;
use crate::cni::env::Environment;
use crate::cni::error::{CniError, Code};
use crate::cni::ids::NetworkName;
use crate::cni::request::CONF_MAX;
use crate::cni::version::SpecVersion;
use crate::config::role::PLUGIN_TYPE;
use crate::config::{Network, Removal, Role};

/// What libcni takes for a conf (`ConfFiles`, libcni/conf.go; containerd and CRI-O pass these).
const CONF_EXTENSIONS: [&str; 3] = ["conf", "conflist", "json"];

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
    /// Whether ferrule is the main plugin of a network in it.
    pub is_ours: bool,
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
            networks.read_conf(path);
        }
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
    fn read_conf(&mut self, path: PathBuf) {
        let confs = match read_plugins(&path) {
            Ok(confs) => confs,
            Err(text) => {
                self.problems.push(ConfProblem { path: path.clone(), text });
                Vec::new()
            }
        };
        let mut is_ours = false;
        for conf in confs {
            let removal = match Removal::read(&conf) {
                Ok(removal) => removal,
                Err(error) => {
                    self.problems.push(ConfProblem { path: path.clone(), text: error.to_string() });
                    continue;
                }
            };
            is_ours |= removal.role == Role::Main;
            let meaning = Environment::read(|name| (name == "CNI_COMMAND").then(|| "STATUS".into()))
                .and_then(|environment| Network::read(&conf, &environment));
            if let Err(error) = &meaning {
                self.problems.push(ConfProblem { path: path.clone(), text: error.to_string() });
            }
            let is_known =
                |known: &KnownNetwork| (&known.name, &known.data_dir) == (&removal.name, &removal.data_dir);
            // A second conf of a network is another form of it: runtimes take the first.
            if !self.known.iter().any(is_known) {
                self.known.push(KnownNetwork {
                    name: removal.name,
                    data_dir: removal.data_dir,
                    conf: Some(path.clone()),
                    meaning: meaning.ok(),
                    role: Some(removal.role),
                    delegate: removal.delegate,
                });
            }
        }
        self.files.push(ConfFile { path, is_ours });
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

/// The confs of a directory, in the order in which runtimes read them.
fn conf_files(directory: &Path) -> Result<Vec<PathBuf>, CniError> {
    let is_conf = |path: &PathBuf| {
        let extension = path.extension().and_then(|extension| extension.to_str());
        extension.is_some_and(|extension| CONF_EXTENSIONS.contains(&extension)) && path.is_file()
    };
    Ok(list(directory)?.into_iter().filter(is_conf).collect())
}

/// What is in a directory, in alphabetical order; nothing where there is no such directory.
fn list(directory: &Path) -> Result<Vec<PathBuf>, CniError> {
    let refuse = |error: std::io::Error| {
        CniError::new(Code::Io, format!("cannot read {}", directory.display()))
            .with_details(format!("{error}; ferrule runs as root"))
    };
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(refuse)?,
    };
    let mut paths = Vec::new();
    for entry in entries {
        paths.push(entry.map_err(refuse)?.path());
    }
    paths.sort();
    Ok(paths)
}

/// The plugins of a file that ferrule has a part in, each as a runtime would write it to stdin.
///
/// # Errors
/// What is wrong with a file that names ferrule. What is wrong with others' is theirs.
fn read_plugins(path: &Path) -> Result<Vec<Conf>, String> {
    let Some(document) = read_json(path)? else { return Ok(Vec::new()) };
    let alone = std::slice::from_ref(&document);
    let mut plugins = document.get("plugins").and_then(Value::as_array).map_or(alone, Vec::as_slice).to_vec();
    plugins.extend(read_drop_ins(path, &document)?);
    let mut confs = Vec::new();
    for mut plugin in plugins.into_iter().filter(has_a_part) {
        if let (Some(plugin), Some(name)) = (plugin.as_object_mut(), document.get("name")) {
            plugin.insert("name".to_owned(), name.clone());
        }
        confs.push(Conf { version: choose_version(&document)?, document: plugin });
    }
    Ok(confs)
}

/// The plugins that libcni (from 1.3 on) puts behind those of a conflist: `<network>/*.conf` beside the file.
fn read_drop_ins(path: &Path, list: &Value) -> Result<Vec<Value>, String> {
    let name = list.get("name").and_then(Value::as_str).and_then(|name| NetworkName::parse(name).ok());
    let is_list = path.extension().is_some_and(|extension| extension == "conflist");
    let is_alone = list.get("loadOnlyInlinedPlugins").and_then(Value::as_bool) == Some(true);
    let Some(name) = name.filter(|_| is_list && !is_alone) else { return Ok(Vec::new()) };
    let Ok(files) = self::list(&path.with_file_name(name.as_str())) else { return Ok(Vec::new()) };
    let mut plugins = Vec::new();
    for file in files.iter().filter(|file| file.extension().is_some_and(|it| it == "conf")) {
        let plugin = read_json(file).map_err(|reason| format!("{}: {reason}", file.display()))?;
        plugins.extend(plugin);
    }
    Ok(plugins)
}

/// `None` for a file that is not JSON and does not name ferrule.
fn read_json(path: &Path) -> Result<Option<Value>, String> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(CONF_MAX).read_to_string(&mut text));
    read.map_err(|error| format!("cannot be read: {error}"))?;
    match serde_json::from_str(&text) {
        Ok(document) => Ok(Some(document)),
        Err(_) if !text.contains(PLUGIN_TYPE) => Ok(None),
        Err(error) => Err(format!("is not JSON: {error}")),
    }
}

fn has_a_part(plugin: &Value) -> bool {
    let names_us = |value: &Value| value.get("type").and_then(Value::as_str) == Some(PLUGIN_TYPE);
    names_us(plugin) || plugin.get("ipam").is_some_and(names_us)
}

/// The newest version that both the conf and ferrule speak, as libcni chooses it.
fn choose_version(document: &Value) -> Result<SpecVersion, String> {
    let listed = document.get("cniVersions").and_then(Value::as_array).into_iter().flatten();
    let given: Vec<&str> =
        document.get("cniVersion").into_iter().chain(listed).filter_map(Value::as_str).collect();
    if given.is_empty() {
        return Ok(SpecVersion::V0_1_0);
    }
    let spoken = given.iter().filter_map(|text| SpecVersion::parse(text)).max();
    spoken.ok_or_else(|| format!("cniVersion {} is not spoken by this ferrule", given.join(", ")))
}
