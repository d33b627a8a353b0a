//! A file of the runtime's conf directory: the plugins in it that ferrule has a part in, and what a meta plugin such as
//! multus hands pods on to.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::cni::conf::Conf;
use crate::cni::error::{CniError, Code};
use crate::cni::ids::NetworkName;
use crate::cni::request::CONF_MAX;
use crate::cni::version::SpecVersion;
use crate::config::role::PLUGIN_TYPE;

/// What libcni takes for a conf (`ConfFiles`, libcni/conf.go; containerd and CRI-O pass these).
const CONF_EXTENSIONS: [&str; 3] = ["conf", "conflist", "json"];

/// Where multus looks for confs, unless `confDir` names another directory.
const MULTUS_CONF_DIR: &str = "/etc/cni/multus/net.d";

/// The confs of a directory, in the order in which runtimes read them.
pub fn conf_files(directory: &Path) -> Result<Vec<PathBuf>, CniError> {
    let is_conf = |path: &PathBuf| {
        let extension = path.extension().and_then(|extension| extension.to_str());
        extension.is_some_and(|extension| CONF_EXTENSIONS.contains(&extension)) && path.is_file()
    };
    Ok(list(directory)?.into_iter().filter(is_conf).collect())
}

/// What is in a directory, in alphabetical order; nothing where there is no such directory.
pub fn list(directory: &Path) -> Result<Vec<PathBuf>, CniError> {
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

/// What of a conf file is of interest.
#[derive(Debug, Default)]
pub struct Content {
    /// The network's name.
    pub name: Option<String>,
    /// The plugins that ferrule has a part in, each as it gets its conf on stdin.
    pub confs: Vec<Conf>,
    /// A meta plugin.
    pub meta: Option<MetaPlugin>,
}

/// A plugin that makes no network, and has others make it: multus.
#[derive(Debug, Clone)]
pub struct MetaPlugin {
    /// Its type.
    pub plugin: String,
    /// Whether it contains confs of networks (`delegates`).
    pub has_inline: bool,
    /// Networks that it refers to by name or by path (`clusterNetwork`, `defaultNetworks`).
    pub references: Vec<String>,
    /// Where it looks for those that are no NetworkAttachmentDefinition.
    directory: PathBuf,
}

impl MetaPlugin {
    fn of(plugin: &Value) -> Option<Self> {
        let kind = plugin.get("type").and_then(Value::as_str)?;
        let delegates = plugin.get("delegates").and_then(Value::as_array);
        let cluster = plugin.get("clusterNetwork").and_then(Value::as_str);
        if delegates.is_none() && cluster.is_none() && !kind.starts_with("multus") {
            return None;
        }
        let defaults = plugin.get("defaultNetworks").and_then(Value::as_array).into_iter().flatten();
        let references = cluster.into_iter().chain(defaults.filter_map(Value::as_str));
        Some(Self {
            plugin: kind.to_owned(),
            has_inline: delegates.is_some_and(|delegates| !delegates.is_empty()),
            references: references.filter(|it| !it.is_empty()).map(str::to_owned).collect(),
            directory: plugin.get("confDir").and_then(Value::as_str).unwrap_or(MULTUS_CONF_DIR).into(),
        })
    }

    /// Files that may be what it refers to, outside of the runtime's conf directory.
    pub fn candidates(&self, reference: &str) -> Vec<PathBuf> {
        let named = Path::new(reference);
        if named.is_absolute() && named.is_dir() {
            return conf_files(named).unwrap_or_default().into_iter().take(1).collect();
        }
        if named.is_absolute() {
            return named.is_file().then(|| named.to_owned()).into_iter().collect();
        }
        conf_files(&self.directory).unwrap_or_default()
    }
}

/// Reads a file of the conf directory.
///
/// # Errors
/// What is wrong with a file that names ferrule. What is wrong with others' is theirs.
pub fn read(path: &Path) -> Result<Content, String> {
    let Some(document) = read_json(path)? else { return Ok(Content::default()) };
    let drop_ins = read_drop_ins(path, &document)?;
    let mut content = Content {
        name: document.get("name").and_then(Value::as_str).map(str::to_owned),
        confs: confs_of(&document, &document, drop_ins.iter())?,
        meta: None,
    };
    for plugin in inline_plugins(&document).iter().chain(&drop_ins) {
        let Some(meta) = MetaPlugin::of(plugin) else { continue };
        for delegate in plugin.get("delegates").and_then(Value::as_array).into_iter().flatten() {
            let has_version = delegate.get("cniVersion").or(delegate.get("cniVersions")).is_some();
            let versions = if has_version { delegate } else { &document };
            content.confs.extend(confs_of(delegate, versions, [].iter())?);
        }
        content.meta = Some(meta);
    }
    Ok(content)
}

/// The plugins of a list, or of a conf of one plugin, that ferrule has a part in, each as a runtime would write it to stdin.
fn confs_of<'a>(
    document: &'a Value,
    versions: &Value,
    more: impl Iterator<Item = &'a Value>,
) -> Result<Vec<Conf>, String> {
    let mut confs = Vec::new();
    for plugin in inline_plugins(document).iter().chain(more).filter(|plugin| has_a_part(plugin)) {
        let mut plugin = plugin.clone();
        if let (Some(plugin), Some(name)) = (plugin.as_object_mut(), document.get("name")) {
            plugin.insert("name".to_owned(), name.clone());
        }
        confs.push(Conf { version: choose_version(versions)?, document: plugin });
    }
    Ok(confs)
}

fn inline_plugins(document: &Value) -> &[Value] {
    let alone = std::slice::from_ref(document);
    document.get("plugins").and_then(Value::as_array).map_or(alone, Vec::as_slice)
}

/// The plugins that libcni (from 1.3 on) puts behind those of a conflist: `<network>/*.conf` beside the file.
fn read_drop_ins(path: &Path, conflist: &Value) -> Result<Vec<Value>, String> {
    let name = conflist.get("name").and_then(Value::as_str).and_then(|name| NetworkName::parse(name).ok());
    let is_list = path.extension().is_some_and(|extension| extension == "conflist");
    let is_alone = conflist.get("loadOnlyInlinedPlugins").and_then(Value::as_bool) == Some(true);
    let Some(name) = name.filter(|_| is_list && !is_alone) else { return Ok(Vec::new()) };
    let Ok(files) = list(&path.with_file_name(name.as_str())) else { return Ok(Vec::new()) };
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
