//! The agent's directories are pulled away under it, and pods' records with them: `rm -rf /var/lib/cni` is a usual advice.

use std::fs;
use std::time::Duration;

use ferrule::cni::ids::{AttachmentKey, ContainerId, IfName, NetworkName};
use ferrule::config::bandwidth::Bandwidth;
use ferrule::store::{Claim, Store, current_boot_id};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::node::{AgentNode, own};
use kit::call::Call;
use kit::pod::{Pod, addresses_of};
use kit::traffic::{Server, tcp};

fn call(node: &AgentNode, command: &str, pod: &Pod, conf: &Value) -> Call {
    let call = Call::ferrule(command).on(&node.namespace).conf(conf);
    call.attachment(pod.container(), pod.namespace().path()).args(format!(
        "K8S_POD_NAMESPACE=default;K8S_POD_NAME={0};K8S_POD_UID=uid-of-{0}",
        pod.namespace().name()
    ))
}

fn has_event(node: &AgentNode, reason: &str, words: &str) -> bool {
    let events = node.api.written("/events");
    events.iter().any(|it| it["reason"] == reason && it["note"].to_string().contains(words))
}

#[test]
fn pods_whose_records_were_removed_get_them_again() {
    let mut node = AgentNode::new("lost");
    node.start_ready();
    let (web, next) = (Pod::new("web"), Pod::new("next"));
    let conf = node.conf();
    let mut with_port = conf.clone();
    with_port["runtimeConfig"] = json!({ "portMappings": [{ "hostPort": 443, "containerPort": 8080 }] });
    let addresses = addresses_of(&call(&node, "ADD", &web, &with_port).run().result());
    assert_eq!(addresses, ["10.244.1.2", "fd00:10:1::2"]);
    let record = format!("data/podnet/by-id/{}@eth0", web.container());
    let before: Value = serde_json::from_slice(&fs::read(node.path(&record)).unwrap()).unwrap();
    node.end(Signal::TERM);
    fs::remove_dir_all(node.path("data")).unwrap();
    // An ADD meanwhile gets another address.
    let others = addresses_of(&call(&node, "ADD", &next, &conf).run().result());
    assert_eq!(others, ["10.244.1.3", "fd00:10:1::3"]);
    let mut asks = conf.clone();
    asks["runtimeConfig"] = json!({ "ips": ["fd00:10:1::2"] });
    let said = call(&node, "ADD", &Pod::new("asks"), &asks).run().complaint(101);
    assert!(said.contains("fd00:10:1::2 is a running pod's") && said.contains("default/"), "{said}");

    node.start_ready();
    node.wait_for_metric("ferrule_records_restored_total", 1.0);
    let restored: Value = serde_json::from_slice(&fs::read(node.path(&record)).unwrap()).unwrap();
    for field in [
        "network",
        "container",
        "ifname",
        "bootId",
        "hostLink",
        "addresses",
        "pod",
        "masquerade",
        "hostPorts",
    ] {
        assert_eq!(restored[field], before[field], "{field}");
    }
    for field in ["dev", "ino"] {
        assert_eq!(restored["netns"][field], before["netns"][field], "{field}");
    }
    node.wait("the event", || has_event(&node, "PodRecordRestored", "10.244.1.2"));
    // Its elements stay, and its hostPort works.
    let _server = Server::tcp(web.namespace(), 8080, "web");
    assert_eq!(tcp(&node.namespace, "192.0.2.10", 443).map(|it| it.server).as_deref(), Some("web"));
    for set in ["sources4", "sources6", "masquerade4", "any_hostports4", "any_hostports6"] {
        let lists = ["set", "map"].map(|kind| node.nft(&format!("list {kind} inet ferrule {set}")));
        assert!(lists.concat().contains(web.namespace().name()), "{set}");
    }
    // A second look finds nothing to do; a DEL finds all.
    call(&node, "DEL", &web, &conf).run().success();
    assert!(!node.has(&record) && !node.has("data/podnet/by-ip/10.244.1.2"));
    assert_eq!(node.metric("ferrule_records_restored_total"), Some(1.0));
    assert_eq!(node.metric("ferrule_pods_without_record"), Some(0.0));
}

#[test]
fn a_pod_that_gets_no_record_is_named() {
    let mut node = AgentNode::new("doubled");
    node.start_ready();
    let (web, other) = (Pod::new("web"), Pod::new("other"));
    let conf = node.conf();
    call(&node, "ADD", &web, &conf).run().result();
    node.end(Signal::TERM);
    fs::remove_dir_all(node.path("data")).unwrap();
    // Somebody else has its address by now, who asks the kernel nothing.
    let network = NetworkName::parse("podnet").unwrap();
    let store = Store::open(&node.path("data"), &network).unwrap();
    let claim = Claim {
        key: AttachmentKey {
            network,
            container: ContainerId::parse(other.container()).unwrap(),
            ifname: IfName::parse("eth0").unwrap(),
        },
        netns: None,
        host_link: None,
        pod: None,
        masquerade: false,
        host_ports: Vec::new(),
        mac: None,
        bandwidth: Bandwidth::default(),
        imported_from: None,
    };
    let mut locked = store.lock(&current_boot_id().unwrap(), Duration::from_secs(5)).unwrap();
    drop(locked.adopt(claim, &["10.244.1.2".parse().unwrap()]).unwrap());
    drop(locked);
    node.start_ready();
    node.wait_for_metric("ferrule_pods_without_record", 1.0);
    node.wait("the event", || has_event(&node, "PodWithoutRecord", other.container()));
    assert!(node.log().contains("running pod has no record"), "{}", node.log());
}

/// The words of a program that has the agent's data directory as a mount, as a container has it.
fn mounted(node: &AgentNode) -> Vec<String> {
    for directory in ["host/ferrule", "data"] {
        fs::create_dir_all(node.path(directory)).unwrap();
    }
    let (source, target) = (node.path("host/ferrule"), node.path("data"));
    let script = format!("mount --bind {} {} && exec \"$@\"", source.display(), target.display());
    ["unshare", "--mount", "sh", "-c", &script, "sh"].map(str::to_owned).to_vec()
}

#[test]
fn it_ends_where_only_a_new_mount_helps() {
    for (role, how) in [("removed", "rm"), ("moved", "mv")] {
        let mut node = AgentNode::new(role);
        node.through = mounted(&node);
        node.start_ready();
        let host = node.path("host");
        if how == "rm" {
            fs::remove_dir_all(host).unwrap();
        } else {
            fs::rename(&host, node.path("host.old")).unwrap();
        }
        assert!(!node.wait_for_end(), "it says that something is wrong");
        assert!(node.log().contains("data was removed or moved on the node"), "{}", node.log());
        // As kubelet starts it, with a new mount.
        node.through = mounted(&node);
        node.start_ready();
        assert!(node.has("host/ferrule/podnet"));
    }
}

#[test]
fn it_is_not_ready_while_it_cannot_do_its_duties() {
    let mut node = AgentNode::new("unready");
    node.start_ready();
    fs::rename(node.path("data/podnet"), node.path("aside")).unwrap();
    fs::write(node.path("data/podnet"), "").unwrap();
    node.nft("flush ruleset");
    node.wait("it to say so", || {
        node.page("/readyz").is_some_and(|page| page.contains(" 503 ") && page.contains("step table failed"))
    });
    assert!(node.page("/healthz").unwrap().contains(" 200 "), "a restart would not help");
    fs::remove_file(node.path("data/podnet")).unwrap();
    fs::rename(node.path("aside"), node.path("data/podnet")).unwrap();
    node.wait("it to be ready again", || node.page("/readyz").is_some_and(|page| page.contains(" 200 ")));
}

/// Its Node was deleted and made again: pods keep addresses that lead elsewhere now.
#[test]
fn pods_outside_of_the_nodes_ranges_are_named() {
    let mut node = AgentNode::new("outside");
    node.start_ready();
    let (before, after) = (Pod::new("before"), Pod::new("after"));
    let old_conf = node.conf();
    call(&node, "ADD", &before, &old_conf).run().result();
    let mut another = own();
    another.pod_cidrs = vec!["10.244.7.0/24".into(), "fd00:10:7::/64".into()];
    node.api.put(another);
    node.wait_for_metric("ferrule_pods_outside_pod_cidrs", 1.0);
    let name = before.namespace().name();
    node.wait("the event", || has_event(&node, "PodOutsideNodeRange", &format!("{name} has 10.244.1.2")));
    node.wait("the conf", || node.conf().to_string().contains("10.244.7.0/24"));
    call(&node, "ADD", &after, &node.conf()).run().result();
    let doctor = || {
        let call = Call::ferrulectl("doctor --output json").on(&node.namespace);
        let call = call.argument("--conf-dir").argument(node.path("net.d"));
        let report = call.argument("--data-dir").argument(node.path("data")).run().document().unwrap();
        let findings = report["findings"].as_array().unwrap().clone();
        findings.into_iter().find(|it| it["id"] == "pod-outside-ranges").map(|it| it.to_string())
    };
    let found = doctor().unwrap();
    assert!(found.contains(name) && !found.contains(after.namespace().name()), "{found}");
    call(&node, "DEL", &before, &old_conf).run().success();
    assert_eq!(doctor(), None);
    // It looks once a minute, and at its start.
    node.end(Signal::TERM);
    node.start_ready();
    assert_eq!(node.metric("ferrule_pods_outside_pod_cidrs"), Some(0.0));
}
