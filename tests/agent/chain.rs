//! The conflist belongs to others as well: they put their plugins behind ours.

use std::fs;
use std::os::unix::fs::MetadataExt;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::node::AgentNode;
use kit::call::Call;

const CONF: &str = "net.d/10-ferrule.conflist";

fn list(node: &AgentNode) -> Value {
    serde_json::from_str(&fs::read_to_string(node.path(CONF)).unwrap()).unwrap()
}

/// The types of the plugins in the list.
fn types(node: &AgentNode) -> Vec<String> {
    let list = list(node);
    let plugins = list["plugins"].as_array().unwrap().iter();
    plugins.map(|it| it["type"].as_str().unwrap_or_default().to_owned()).collect()
}

fn change(node: &AgentNode, change: impl FnOnce(&mut Value)) {
    let mut list = list(node);
    change(&mut list);
    // As jq and Go's programs write it: another form, another mode.
    fs::write(node.path("net.d/tmp"), list.to_string()).unwrap();
    fs::rename(node.path("net.d/tmp"), node.path(CONF)).unwrap();
}

fn has_event(node: &AgentNode, reason: &str, words: &[&str]) -> bool {
    node.api.written("/events").iter().any(|event| {
        let note = event["note"].as_str().unwrap_or_default();
        event["reason"] == reason && words.iter().all(|word| note.contains(word))
    })
}

#[test]
fn a_plugin_behind_ours_stays_through_restart_and_upgrade() {
    let mut node = AgentNode::new("chain");
    node.start_ready();
    let istio = json!({ "type": "istio-cni", "kubernetes": { "exclude_namespaces": ["kube-system"] } });
    let linkerd = json!({ "type": "linkerd-cni", "log_level": "info" });
    change(&node, |list| {
        list["plugins"].as_array_mut().unwrap().extend([istio.clone(), linkerd.clone()]);
        list["disableCheck"] = json!(true);
    });
    node.end(Signal::TERM);
    node.start_ready();
    assert_eq!(types(&node), ["ferrule", "istio-cni", "linkerd-cni"]);
    // An agent that says something else of its own entry.
    node.end(Signal::TERM);
    node.words = vec!["--mtu".into(), "1400".into()];
    node.start_ready();
    let after = list(&node);
    assert_eq!(after["plugins"][0]["mtu"], 1400);
    assert_eq!((&after["plugins"][1], &after["plugins"][2]), (&istio, &linkerd));
    assert_eq!((&after["disableCheck"], &after["name"]), (&json!(true), &json!("podnet")));
    // Its owner takes it away again, and it stays away.
    change(&node, |list| {
        list["plugins"].as_array_mut().unwrap().pop();
    });
    node.end(Signal::TERM);
    node.start_ready();
    assert_eq!(types(&node), ["ferrule", "istio-cni"]);
}

#[test]
fn name_and_version_and_own_entry_are_the_agents() {
    let mut node = AgentNode::new("own-entry");
    node.start_ready();
    let before = list(&node);
    change(&node, |list| {
        list["name"] = json!("other");
        list["cniVersion"] = json!("0.3.1");
        list["plugins"][0]["ipMasq"] = json!(false);
    });
    node.end(Signal::TERM);
    node.start_ready();
    assert_eq!(list(&node), before);
}

#[test]
fn a_plugin_before_ours_is_told_and_stays() {
    let mut node = AgentNode::new("in-front");
    node.start_ready();
    // It has its addresses from ferrule, and is no entry of the agent's for that.
    let bridge = json!({ "type": "bridge", "ipam": { "type": "ferrule" } });
    change(&node, |list| list["plugins"].as_array_mut().unwrap().insert(0, bridge.clone()));
    node.end(Signal::TERM);
    node.start_ready();
    assert_eq!(types(&node), ["bridge", "ferrule"]);
    assert_eq!(list(&node)["plugins"][0], bridge);
    node.wait("the event", || has_event(&node, "PluginBeforeFerrule", &["bridge", "10-ferrule.conflist"]));
}

#[test]
fn a_nudge_keeps_what_stands_behind() {
    let mut node = AgentNode::new("nudge-chain");
    let mut waiting = super::node::own();
    (waiting.ready, waiting.awaits_network) = (false, true);
    node.api.put(waiting);
    node.start_ready();
    change(&node, |list| list["plugins"].as_array_mut().unwrap().push(json!({ "type": "istio-cni" })));
    let inode = || fs::metadata(node.path(CONF)).unwrap().ino();
    let first = inode();
    node.wait("the conf to be written again", || inode() != first);
    assert_eq!(types(&node), ["ferrule", "istio-cni"]);
}

#[test]
fn a_conf_that_is_damaged_or_anothers_is_written_anew() {
    let mut node = AgentNode::new("anew");
    node.start_ready();
    let before = list(&node);
    for content in ["{", "[]", r#"{"name":"cbr0","cniVersion":"1.0.0","plugins":[{"type":"bridge"}]}"#] {
        node.end(Signal::TERM);
        fs::write(node.path(CONF), content).unwrap();
        node.start_ready();
        assert_eq!(list(&node), before, "{content}");
    }
}

/// libcni 1.3 puts the plugins in `<network>/*.conf` behind those of the list.
#[test]
fn drop_ins_of_the_network_work_beside_the_list() {
    let mut node = AgentNode::new("drop-in");
    node.start_ready();
    let file = node.path("net.d/podnet/50-istio.conf");
    fs::create_dir(node.path("net.d/podnet")).unwrap();
    fs::write(&file, r#"{"type":"istio-cni"}"#).unwrap();
    node.end(Signal::TERM);
    node.start_ready();
    assert_eq!(types(&node), ["ferrule"]);
    assert_eq!(fs::read_to_string(&file).unwrap(), r#"{"type":"istio-cni"}"#);
    assert!(list(&node).get("loadOnlyInlinedPlugins").is_none());
    // Whose list says so has no drop-ins.
    change(&node, |list| list["loadOnlyInlinedPlugins"] = json!(true));
    node.end(Signal::TERM);
    node.start_ready();
    assert_eq!(list(&node)["loadOnlyInlinedPlugins"], true);
}

/// A list that has ferrule in a drop-in is a network of ferrule's for the verbs.
#[test]
fn the_verbs_find_ferrule_in_a_drop_in() {
    let mut node = AgentNode::new("found-there");
    node.start_ready();
    let plugin = list(&node)["plugins"][0].clone();
    node.end(Signal::TERM);
    fs::create_dir(node.path("net.d/podnet")).unwrap();
    fs::write(node.path("net.d/podnet/10-ferrule.conf"), plugin.to_string()).unwrap();
    change(&node, |list| list["plugins"] = json!([]));
    let inspect = || {
        let call = Call::ferrulectl("inspect --output json").on(&node.namespace);
        let call = call.argument("--conf-dir").argument(node.path("net.d"));
        call.argument("--data-dir").argument(node.path("data")).run().document().expect("a document")
    };
    let found = inspect();
    assert!(found.to_string().contains("10.244.1.0/24"), "{found:#}");
    change(&node, |list| list["loadOnlyInlinedPlugins"] = json!(true));
    let found = inspect();
    assert!(!found.to_string().contains("10.244.1.0/24"), "{found:#}");
}

#[test]
fn uninstall_removes_our_list_and_no_others() {
    let mut node = AgentNode::new("chain-away");
    node.start_ready();
    change(&node, |list| list["plugins"].as_array_mut().unwrap().push(json!({ "type": "istio-cni" })));
    node.end(Signal::TERM);
    assert!(node.uninstall(&[]));
    assert!(!node.has(CONF));
    let others = r#"{"name":"cbr0","cniVersion":"1.0.0","plugins":[{"type":"bridge"}]}"#;
    fs::write(node.path(CONF), others).unwrap();
    assert!(node.uninstall(&[]));
    assert_eq!(fs::read_to_string(node.path(CONF)).unwrap(), others);
}

/// It comes first on purpose.
#[test]
fn multus_that_leads_to_ferrule_is_not_reported() {
    let mut node = AgentNode::new("multus");
    fs::create_dir(node.path("net.d")).unwrap();
    let file = node.path("net.d/00-multus.conf");
    let multus =
        |members: &str| format!(r#"{{"name":"m","cniVersion":"0.3.1","type":"multus-shim",{members}}}"#);
    let is_reported = |node: &AgentNode| {
        node.api.written("/events").iter().any(|event| event["reason"] == "OtherNetworkFirst")
    };
    for members in [
        r#""clusterNetwork":"podnet""#,
        r#""clusterNetwork":"/host/etc/cni/net.d/10-ferrule.conflist""#,
        r#""clusterNetwork":"kube-system/main""#,
    ] {
        fs::write(&file, multus(members)).unwrap();
        node.start_ready();
        node.wait("word of multus", || node.log().contains("meta plugin comes first"));
        node.end(Signal::TERM);
        fs::remove_file(node.path("agent.log")).unwrap();
        assert!(!is_reported(&node), "{members}");
    }
    fs::write(&file, multus(r#""delegates":[{"name":"cbr0","type":"flannel"}]"#)).unwrap();
    node.start_ready();
    node.wait("the event", || {
        has_event(&node, "OtherNetworkFirst", &["00-multus.conf", "clusterNetwork", "podnet"])
    });
    assert!(!has_event(&node, "OtherNetworkFirst", &["remove"]));
}
