//! Chains: ferrule before and behind other plugins, as a runtime executes a conflist.
//!
//! ADD goes from plugin to plugin, the result of one handed to the next. CHECK gives each of them the result of the
//! whole chain, and DEL goes the other way (SPEC, section 3). The other plugins are the reference ones, of the
//! distribution, in each version of the specification that they speak.

mod before;
mod behind;
mod routes;

use serde_json::{Value, json};

use kit::answer::Answer;
use kit::binaries::REFERENCE_PLUGINS;
use kit::call::Call;
use kit::node::Node;
use kit::pod::Pod;

/// Versions in which a chain is tried, as far as all of its plugins speak them.
const VERSIONS: [&str; 3] = ["0.4.0", "1.0.0", "1.1.0"];

/// A conflist on a node, for one pod.
struct Chain {
    node: Node,
    pod: Pod,
    plugins: Vec<Value>,
}

impl Chain {
    /// One of `plugins` in `version`. Each gets the network's name, as a runtime gives it.
    fn new(node: Node, version: &str, plugins: Vec<Value>) -> Self {
        let named = plugins.into_iter().map(|mut plugin| {
            plugin["cniVersion"] = json!(version);
            plugin["name"] = json!("podnet");
            plugin
        });
        Self { plugins: named.collect(), node, pod: Pod::new("pod") }
    }

    fn call(&self, command: &str, plugin: &Value, previous: Option<&Value>) -> Answer {
        let mut conf = plugin.clone();
        if let Some(previous) = previous {
            conf["prevResult"] = previous.clone();
        }
        let call = match conf["type"].as_str().unwrap() {
            "ferrule" => Call::ferrule(command),
            other => Call::reference(other, command),
        };
        let call = call.on(self.node.namespace()).env("CNI_PATH", REFERENCE_PLUGINS).conf(&conf);
        call.attachment(self.pod.container(), self.pod.namespace().path()).run()
    }

    /// ADD of each; the result of the chain.
    fn add(&self) -> Value {
        let add =
            |previous: Option<Value>, plugin| Some(self.call("ADD", plugin, previous.as_ref()).result());
        self.plugins.iter().fold(None, add).expect("a plugin")
    }

    /// CHECK of each against the result of the chain; all must agree. Not of portmap: that of release 1.1.1 looks for
    /// each rule in both families, and so fails for every pod of any plugin where there is an ip6tables.
    fn check(&self, result: &Value) {
        for plugin in self.plugins.iter().filter(|plugin| plugin["type"] != "portmap") {
            self.call("CHECK", plugin, Some(result)).success();
        }
    }

    /// CHECK of ferrule alone.
    fn check_ferrule(&self, result: &Value) -> Answer {
        let ferrule = self.plugins.iter().find(|plugin| plugin["type"] == "ferrule").expect("ferrule");
        self.call("CHECK", ferrule, Some(result))
    }

    /// DEL of each, the last one first.
    fn del(&self, result: &Value) {
        for plugin in self.plugins.iter().rev() {
            self.call("DEL", plugin, Some(result)).success();
        }
    }
}

/// Those of [`VERSIONS`] that all of `plugins` speak; the two older ones are spoken by every release of them.
fn versions(plugins: &[&str]) -> Vec<&'static str> {
    let speaks = |plugin: &str, version: &str| {
        let answer = Call::reference(plugin, "VERSION").run().result();
        answer["supportedVersions"].as_array().unwrap().contains(&json!(version))
    };
    let spoken: Vec<_> =
        VERSIONS.into_iter().filter(|version| plugins.iter().all(|it| speaks(it, version))).collect();
    assert!(spoken.starts_with(&VERSIONS[..2]), "{plugins:?} speak {spoken:?}");
    spoken
}

/// The index of the interface `name` inside the sandbox.
fn index_of(result: &Value, name: &str) -> usize {
    let interfaces = result["interfaces"].as_array().unwrap();
    let is_it =
        |it: &Value| it["name"] == name && it["sandbox"].as_str().is_some_and(|path| !path.is_empty());
    interfaces.iter().position(is_it).unwrap_or_else(|| panic!("{name} is not in {result}"))
}
