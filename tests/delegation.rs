//! ferrule as main plugin with the addresses of another IPAM plugin: the distribution's host-local, and
//! programs that do everything wrong that such a plugin can do.

mod claimed;
mod failure;
mod host_local;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use kit::binaries::REFERENCE_PLUGINS;
use kit::call::Call;
use kit::ip;
use kit::netns::Namespace;
use kit::network::Network;

/// A network whose addresses come from `plugin`, looked for in the scratch directory and then among the reference
/// plugins.
fn network(plugin: &str) -> Network {
    let mut network = Network::new(plugin);
    network.conf["dataDir"] = network.conf["ipam"]["dataDir"].take();
    network.conf["ipam"]["type"] = json!(plugin);
    network.conf["ipam"]["dataDir"] = json!(network.node.scratch().path().join(plugin).with_extension("d"));
    network
}

fn call(network: &Network, command: &str, container: &str, pod: &Namespace) -> Call {
    let path = format!("{}:{REFERENCE_PLUGINS}", network.node.scratch().path().display());
    network.call_for(command, container, pod).env("CNI_PATH", path)
}

/// A network whose IPAM plugin is a shell script. It writes its commands to `commands`; `on_add` is what it
/// does for ADD, anything else it grants.
fn scripted(role: &str, on_add: &str) -> Network {
    let network = network(role);
    let log = network.node.scratch().path().join("commands");
    let script = format!(
        "#!/bin/sh\necho $CNI_COMMAND >>{}\n[ $CNI_COMMAND = ADD ] || exit 0\n{on_add}\n",
        log.display()
    );
    let program = network.node.scratch().path().join(role);
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    network
}

/// The commands that the script was given.
fn commands(network: &Network) -> Vec<String> {
    let text = fs::read_to_string(network.node.scratch().path().join("commands")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// An ADD that fails with `code`, after which nothing is left and the plugin was asked to take back
/// (SPEC section 4: it must be executed with DEL before the failure is returned).
fn expect_taken_back(network: &Network, code: u64) -> String {
    let pod = Namespace::new("pod");
    let answer = call(network, "ADD", "c1", &pod).run();
    let complaint = answer.complaint(code);
    assert!(answer.stdout.len() < 8192, "an answer that nobody can read: {} bytes", answer.stdout.len());
    assert_eq!(commands(network), ["ADD", "DEL"], "{complaint}");
    network.assert_nothing_remains();
    assert_eq!(ip::links(&pod).len(), 1);
    complaint
}

#[test]
fn a_missing_plugin_is_named_with_the_searched_places() {
    let network = network("no-such-ipam");
    let pod = Namespace::new("pod");
    let complaint = call(&network, "ADD", "c1", &pod).run().complaint(4);
    for told in [
        "no-such-ipam",
        "ipam.type",
        REFERENCE_PLUGINS,
        network.node.scratch().path().to_str().unwrap(),
        "install",
    ] {
        assert!(complaint.contains(told), "{told}: {complaint}");
    }
    let complaint = call(&network, "ADD", "c1", &pod).without("CNI_PATH").run().complaint(4);
    assert!(complaint.contains("CNI_PATH"), "{complaint}");
    network.assert_nothing_remains();
}

#[test]
fn a_plugins_name_cannot_lead_out_of_cni_path() {
    let mut network = network("escape");
    let pod = Namespace::new("pod");
    for name in ["../bin/sh", "/bin/sh", "..", ".", "a/b"] {
        network.conf["ipam"]["type"] = json!(name);
        let complaint = call(&network, "ADD", "c1", &pod).run().complaint(7);
        assert!(complaint.contains("ipam.type"), "{name}: {complaint}");
    }
}

/// The delegate works with the same parameters and the same conf, whatever is in it.
#[test]
fn the_plugin_gets_our_environment_and_the_whole_conf() {
    let mut network = scripted(
        "faithful",
        "cd \"$(dirname \"$0\")\"; cat >conf; env >environment; echo '{\"ips\":[{\"address\":\"10.77.1.9/24\"}]}'",
    );
    network.conf["ipam"]["x-own"] = json!({"of": ["the", "plugin", 1.5, null]});
    let pod = Namespace::new("pod");
    call(&network, "ADD", "c1", &pod).env("CNI_ARGS", "FOO=bar").env("OTHER", "kept").run().success();
    let read = |name: &str| fs::read_to_string(network.node.scratch().path().join(name)).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&read("conf")).unwrap(), network.conf);
    let environment = read("environment");
    let netns = format!("CNI_NETNS={}", pod.path().display());
    for line in
        ["CNI_COMMAND=ADD", "CNI_CONTAINERID=c1", "CNI_IFNAME=eth0", "CNI_ARGS=FOO=bar", "OTHER=kept", &netns]
    {
        assert!(environment.lines().any(|found| found == line), "{line}: {environment}");
    }
    assert!(environment.contains("CNI_PATH="), "{environment}");
}

/// A pipe holds 64 KiB: whoever waits for a plugin to read more than that waits for ever.
#[test]
fn a_plugin_need_not_read_a_large_conf() {
    let mut network = scripted(
        "deaf",
        "exec <&-; echo '{\"cniVersion\":\"1.0.0\",\"ips\":[{\"address\":\"10.77.1.9/24\"}]}'",
    );
    network.conf["x-large"] = json!("x".repeat(1 << 20));
    let pod = Namespace::new("pod");
    let result = call(&network, "ADD", "c1", &pod).run().success();
    assert_eq!(result["ips"][0]["address"], "10.77.1.9/32");
    call(&network, "DEL", "c1", &pod).run().success();
    assert_eq!(commands(&network), ["ADD", "DEL"]);
    network.assert_nothing_remains();
}

#[test]
fn gc_and_status_reach_the_plugin() {
    let mut network = scripted("keeper", "echo '{\"ips\":[{\"address\":\"10.77.1.9/24\"}]}'");
    network.conf["cniVersion"] = json!("1.1.0");
    let pod = Namespace::new("pod");
    call(&network, "ADD", "c1", &pod).run().success();
    call(&network, "STATUS", "c1", &pod).run().success();
    network.conf["cni.dev/valid-attachments"] = json!([{"containerID": "c1", "ifname": "eth0"}]);
    call(&network, "GC", "c1", &pod).run().success();
    assert_eq!(network.known(), ["c1@eth0"]);
    network.conf["cni.dev/valid-attachments"] = json!([]);
    call(&network, "GC", "c1", &pod).run().success();
    assert_eq!(commands(&network), ["ADD", "STATUS", "GC", "GC"]);
    network.assert_nothing_remains();

    let program = network.node.scratch().path().join("keeper");
    fs::write(&program, "#!/bin/sh\necho '{\"code\": 50, \"msg\": \"not today\"}'; exit 1\n").unwrap();
    for command in ["STATUS", "GC"] {
        assert_eq!(call(&network, command, "c1", &pod).run().complaint(50), "not today: ");
    }
}
