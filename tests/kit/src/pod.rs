//! A pod's sandbox: a namespace and a container id, as a runtime makes them before it calls a plugin.

use serde_json::Value;

use crate::ip;
use crate::netns::Namespace;
use crate::process::expect;

/// A sandbox, gone with the guard.
pub struct Pod {
    namespace: Namespace,
    container: String,
}

impl Pod {
    /// One without any network, as all are. `role` shows in its namespace's name, which is its container id.
    pub fn new(role: &str) -> Self {
        let namespace = Namespace::new(role);
        Self { container: namespace.name().to_owned(), namespace }
    }

    /// One whose container id the test chooses.
    pub fn with_container(container: &str) -> Self {
        Self { namespace: Namespace::new("pod"), container: container.to_owned() }
    }

    /// Its network namespace.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Its container id.
    pub fn container(&self) -> &str {
        &self.container
    }

    /// Its own addresses on eth0, as the kernel has them: "10.88.0.1/32". Without link-local ones.
    pub fn addresses(&self) -> Vec<String> {
        let global = ip::addresses(&self.namespace, "eth0");
        let global = global.iter().filter(|address| address["scope"] == "global");
        global.map(|it| format!("{}/{}", it["local"].as_str().unwrap(), it["prefixlen"])).collect()
    }

    /// Ends the sandbox without a word to the plugin, as a crash does.
    pub fn die(&self) {
        expect("ip", &["netns", "delete", self.namespace.name()]);
    }
}

/// The addresses of a result, without their prefixes, in order.
pub fn addresses_of(result: &Value) -> Vec<String> {
    let ips = result["ips"].as_array().expect("ips").iter();
    ips.map(|ip| ip["address"].as_str().unwrap().split('/').next().unwrap().to_owned()).collect()
}

/// The name of the node's end of the pair in a result.
pub fn host_link_of(result: &Value) -> String {
    let interfaces = result["interfaces"].as_array().expect("interfaces");
    let host = interfaces.iter().find(|interface| interface.get("sandbox").is_none_or(|it| it == ""));
    host.expect("the node's end")["name"].as_str().unwrap().to_owned()
}
