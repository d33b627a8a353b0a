//! The conflists in `conf/`, each executed as it lies there: what a user copies works.
//!
//! As a runtime does it, plugin by plugin, the result of one handed to the next. The reference plugins are those of
//! the distribution. Only `dataDir` is changed, so that the store of the machine is left alone.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use ipnetwork::IpNetwork;
use serde_json::{Value, json};

use kit::binaries::{FERRULE, REFERENCE_PLUGINS};
use kit::call::Call;
use kit::ip;
use kit::netns::Namespace;
use kit::node::Node;

#[test]
fn every_conflist_in_conf_attaches_and_detaches_a_pod() {
    for (name, list) in conflists() {
        let place = Place::new(&list);
        let pod = Namespace::new("pod");

        place.execute_all("ADD", &pod, plugins_of(&list).collect());
        let given: Vec<IpNetwork> = ip::addresses(&pod, "eth0")
            .iter()
            .filter(|address| address["scope"] == "global")
            .map(|address| address["local"].as_str().unwrap().parse().unwrap())
            .collect();
        let subnets = subnets(&list);
        assert_eq!(given.len(), subnets.len(), "{name}: {given:?}");
        for address in &given {
            assert!(subnets.iter().any(|subnet| subnet.contains(address.ip())), "{name}: {address}");
        }

        place.execute_all("DEL", &pod, plugins_of(&list).rev().collect());
        let held = fs::read_dir(place.by_ip()).unwrap().count();
        assert_eq!(held, 0, "{name}: addresses are still held");
        assert_eq!(ip::link(&pod, "eth0"), None, "{name}");
    }
}

#[test]
fn a_node_with_a_conflist_of_conf_is_ready() {
    for (name, list) in conflists() {
        let place = Place::new(&list);
        for mut plugin in plugins_of(&list).filter(|plugin| plugin["type"] == "ferrule") {
            plugin["cniVersion"] = json!("1.1.0");
            assert_eq!(place.execute("STATUS", None, &plugin), Ok(None), "{name}");
        }
    }
}

#[test]
fn the_versions_offered_are_spoken_by_every_plugin_of_the_list() {
    for (name, list) in conflists() {
        let mut offered: Vec<Value> = list["cniVersions"].as_array().cloned().unwrap_or_default();
        offered.push(list["cniVersion"].clone());
        for plugin in plugins_of(&list) {
            let place = Place::new(&list);
            let answer = place.execute("VERSION", None, &plugin).unwrap().unwrap();
            let spoken = answer["supportedVersions"].as_array().unwrap();
            for version in &offered {
                assert!(spoken.contains(version), "{name}: {} does not speak {version}", plugin["type"]);
            }
        }
    }
}

#[test]
fn every_conflist_is_explained_in_the_docs() {
    let page = fs::read_to_string(root().join("docs/configuration.md")).unwrap();
    for name in conflists().keys() {
        assert!(
            page.contains(&format!("conf/{name}")),
            "docs/configuration.md does not say what conf/{name} is for"
        );
    }
}

/// A node that the conflist could be for, with an uplink and a store of its own.
struct Place {
    node: Node,
    // The other end of the uplink.
    _outside: Namespace,
    network: String,
}

impl Place {
    /// Its addresses are those that the list says it has, if it says any.
    fn new(list: &Value) -> Self {
        let own = |at: usize| list["plugins"][0]["nodeIPs"][at].as_str();
        let (ipv4, ipv6) = (own(0).unwrap_or("192.168.1.11"), own(1).unwrap_or("fd00:1::11"));
        let (node, outside) = (Node::bare("node"), Namespace::new("outside"));
        node.namespace().ip_batch(&format!(
            "link add uplink type veth peer name down netns {}\n\
             address add {ipv4}/24 dev uplink\n\
             address add {ipv6}/64 dev uplink nodad\n\
             link set uplink up\n",
            outside.name()
        ));
        outside.ip("link set dev down up");
        node.namespace().ip_batch("route add default via 192.168.1.1\nroute add default via fd00:1::1\n");
        let network = list["name"].as_str().unwrap().to_owned();
        Self { node, _outside: outside, network }
    }

    fn by_ip(&self) -> PathBuf {
        self.node.data_dir().join(&self.network).join("by-ip")
    }

    /// Executes `command` for `pod` with each of `plugins`, which must succeed.
    fn execute_all(&self, command: &str, pod: &Namespace, plugins: Vec<Value>) {
        let mut result = None;
        for mut plugin in plugins {
            if let Some(result) = &result {
                plugin["prevResult"] = Value::clone(result);
            }
            let answer = self.execute(command, Some(pod), &plugin);
            result = answer.unwrap_or_else(|error| panic!("{command} of {plugin}: {error}")).or(result);
        }
    }

    /// Executes `command` with the plugin that `conf` names; what it answered, or its error.
    fn execute(&self, command: &str, pod: Option<&Namespace>, conf: &Value) -> Result<Option<Value>, Value> {
        let mut conf = conf.clone();
        if conf["ipam"]["type"] == "ferrule" {
            conf["ipam"]["dataDir"] = json!(self.node.data_dir());
        }
        let call = match conf["type"].as_str().unwrap() {
            "ferrule" => Call::ferrule(command),
            other => Call::reference(other, command),
        };
        let netns = pod.map(Namespace::path).unwrap_or(Path::new(""));
        let beside_ferrule = FERRULE.parent().unwrap().display();
        let call = call.env("CNI_PATH", format!("{beside_ferrule}:{REFERENCE_PLUGINS}"));
        let answer = call.on(self.node.namespace()).attachment("pod-1", netns).conf(&conf).run();
        let document = answer.document();
        if answer.status.success() { Ok(document) } else { Err(document.unwrap_or_default()) }
    }
}

/// Every conflist below `conf`, by its path there.
fn conflists() -> BTreeMap<String, Value> {
    let conf = root().join("conf");
    let mut found = BTreeMap::new();
    let mut pending = vec![conf.clone()];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                pending.push(path);
                continue;
            }
            if path.extension().is_none_or(|extension| extension != "conflist") {
                continue;
            }
            let name = path.strip_prefix(&conf).unwrap().to_str().unwrap().to_owned();
            let list = serde_json::from_slice(&fs::read(&path).unwrap());
            found.insert(name.clone(), list.unwrap_or_else(|error| panic!("conf/{name}: {error}")));
        }
    }
    assert!(found.len() >= 5, "conf/ is not where it was: {found:?}");
    found
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The confs that a runtime hands to the plugins of a list.
fn plugins_of(list: &Value) -> impl DoubleEndedIterator<Item = Value> {
    list["plugins"].as_array().unwrap().iter().map(|plugin| {
        let mut plugin = plugin.clone();
        plugin["name"] = list["name"].clone();
        plugin["cniVersion"] = list["cniVersion"].clone();
        plugin
    })
}

/// The subnets of a list, one for each address that a pod gets.
fn subnets(list: &Value) -> Vec<IpNetwork> {
    let sets = list["plugins"][0]["ipam"]["ranges"].as_array().unwrap();
    sets.iter().map(|set| set[0]["subnet"].as_str().unwrap().parse().unwrap()).collect()
}
