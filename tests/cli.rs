//! The verbs for people, on nodes with pods.

mod bundle;
mod capture;
mod container;
mod cut_off;
mod doctor;
mod import;
mod inspect;
mod limits;
mod multus;
mod policy;
mod reclaim;
mod sync;
mod uninstall;
mod why;

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use kit::answer::Answer;
use kit::call::Call;
use kit::node::Node;
use kit::pod::Pod;

/// Where the conflists of a node are.
pub fn conf_dir(node: &Node) -> PathBuf {
    node.scratch().path().join("net.d")
}

/// Writes a conf as the conflist of the node.
pub fn install(node: &Node, file: &str, conf: &Value) {
    let directory = conf_dir(node);
    fs::create_dir_all(&directory).unwrap();
    let mut plugin = conf.clone();
    let plugin = plugin.as_object_mut().unwrap();
    let (name, version) = (plugin.remove("name").unwrap(), plugin.remove("cniVersion").unwrap());
    let list = json!({ "name": name, "cniVersion": "1.0.0", "cniVersions": ["0.4.0", version], "plugins": [plugin] });
    fs::write(directory.join(file), list.to_string()).unwrap();
}

/// A verb on a node, with its directories.
pub fn verb(node: &Node, words: &str) -> Call {
    let call = Call::ferrulectl(words).on(node.namespace());
    call.argument("--conf-dir").argument(conf_dir(node)).argument("--data-dir").argument(node.data_dir())
}

/// The document of a verb that must end with `status`.
pub fn document(node: &Node, words: &str, status: i32) -> Value {
    let answer = verb(node, &format!("{words} --output json")).run();
    assert_eq!(answer.status.code(), Some(status), "{answer:?}");
    assert_eq!(answer.stderr, "");
    answer.document().expect("a document")
}

fn text(answer: &Answer) -> &str {
    str::from_utf8(&answer.stdout).unwrap()
}

/// ADD of a pod with that name in Kubernetes.
fn add_named(node: &Node, conf: &Value, pod: &Pod, name: &str) -> Value {
    let args = format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={name}");
    node.call_for("ADD", pod, conf).args(&args).run().result()
}
