//! doctor where the agent's image has it: as root with CAP_NET_ADMIN alone. It does every check that can be done there, and
//! says what it could not look at.

use serde_json::{Value, json};

use super::{add_named, install, text, verb};
use kit::answer::Answer;
use kit::ip;
use kit::nft;
use kit::node::Node;
use kit::pod::{Pod, addresses_of, host_link_of};

/// As the DaemonSet gives it to its container.
const AGENTS: [&str; 4] =
    ["setpriv", "--no-new-privs", "--inh-caps=-all,+net_admin", "--bounding-set=-all,+net_admin"];

const OF_THE_MACHINE: &str = "networkd-foreign-routes";

/// A node with a peer and two running pods, one with an address and a hardware address that it asked for.
struct Patient {
    node: Node,
    link: String,
    addresses: Vec<String>,
    _pods: [Pod; 2],
}

impl Patient {
    fn new() -> Self {
        let node = Node::new();
        node.namespace().set_sysctl("net/ipv4/conf/all/rp_filter", "0");
        // The peer, which answers.
        node.outside().ip("address add 198.18.0.11/24 dev down");
        let mut conf = node.conf();
        conf["peers"] =
            json!([{ "node": "node-b", "podCIDRs": ["10.89.1.0/24"], "nodeIPs": ["198.18.0.11"] }]);
        install(&node, "10-ferrule.conflist", &conf);
        let pods = [Pod::new("pod"), Pod::new("wishes")];
        let result = add_named(&node, &conf, &pods[0], "web");
        conf["runtimeConfig"] = json!({ "mac": "02:11:22:33:44:55", "ips": ["10.88.0.77"],
            "bandwidth": { "ingressRate": 8_000_000, "ingressBurst": 8_000_000, "egressRate": 8_000_000, "egressBurst": 8_000_000 } });
        add_named(&node, &conf, &pods[1], "wishes");
        Self { node, link: host_link_of(&result), addresses: addresses_of(&result), _pods: pods }
    }

    fn doctor(&self) -> Answer {
        verb(&self.node, "doctor --output json").through(AGENTS).run()
    }

    /// The kinds of what is found, and what could not be looked at.
    fn found(&self) -> (Vec<Value>, String) {
        let answer = self.doctor();
        let document = answer.document().unwrap_or_else(|| panic!("{answer:?}"));
        let findings = document["findings"].as_array().unwrap().iter();
        let findings: Vec<Value> = findings.filter(|it| it["id"] != OF_THE_MACHINE).cloned().collect();
        let status = if findings.is_empty() { 3 } else { 1 };
        assert_eq!(answer.status.code(), Some(status), "{answer:?}");
        (findings, document["skipped"].to_string())
    }
}

#[test]
fn blind_to_pods_it_says_so_and_ends_with_3() {
    let patient = Patient::new();
    let (findings, skipped) = patient.found();
    assert_eq!(findings, Vec::<Value>::new());
    assert!(skipped.contains("inside of pods") && skipped.contains("CAP_SYS_ADMIN"), "{skipped}");
    let shown = verb(&patient.node, "doctor").through(AGENTS).run();
    assert!(text(&shown).contains("not looked at: "), "{}", text(&shown));
    // With all of root's rights there is nothing to be skipped.
    let root = verb(&patient.node, "doctor --output json").run();
    assert_eq!(root.document().unwrap()["skipped"], json!([]));
}

#[test]
fn what_is_wrong_on_the_node_is_found_from_there() {
    type Harm = fn(&Patient);
    let harms: [(&str, Harm); 9] = [
        ("attachment-differs", |it| _ = it.node.namespace().ip(&format!("route delete {}", it.addresses[0]))),
        ("attachment-differs", |it| _ = it.node.namespace().ip(&format!("route delete {}", it.addresses[1]))),
        ("attachment-differs", |it| {
            it.node.namespace().ip(&format!("neighbour delete {} dev {}", it.addresses[0], it.link));
        }),
        ("attachment-differs", |it| {
            it.node.namespace().set_sysctl(&format!("net/ipv4/conf/{}/rp_filter", it.link), "0");
        }),
        ("attachment-differs", |it| _ = it.node.namespace().ip(&format!("link delete {}", it.link))),
        ("table-differs", |it| _ = nft::run(it.node.namespace(), "flush ruleset").unwrap()),
        ("forwarding-off", |it| it.node.namespace().set_sysctl("net/ipv4/ip_forward", "0")),
        ("peer-route-wrong", |it| _ = it.node.namespace().ip("route delete 10.89.1.0/24")),
        ("foreign-route", |it| {
            it.node.namespace().ip("route add 10.89.1.0/25 via 198.18.0.1 proto static");
        }),
    ];
    for (number, (id, harm)) in harms.into_iter().enumerate() {
        let patient = Patient::new();
        harm(&patient);
        let (findings, skipped) = patient.found();
        let ids: Vec<&str> = findings.iter().map(|it| it["id"].as_str().unwrap()).collect();
        // What is switched off for all links is off for those of pods.
        assert!(ids.contains(&id), "{number}: {findings:#?}");
        assert!(ids.iter().all(|it| [id, "attachment-differs"].contains(it)), "{number}: {findings:#?}");
        assert!(skipped.contains("inside of pods"), "{number}: {skipped}");
    }
}

/// Each end of the pair that the node has, with the wishes of the other pod as they are.
#[test]
fn a_pods_link_that_is_down_is_found_from_there() {
    let patient = Patient::new();
    assert!(ip::link(patient.node.namespace(), &patient.link).is_some());
    patient.node.namespace().ip(&format!("link set {} down", patient.link));
    let (findings, _) = patient.found();
    assert!(findings.iter().any(|it| it["found"].to_string().contains("it is down")), "{findings:#?}");
    assert!(findings.iter().all(|it| it["found"].to_string().contains("default/web")), "{findings:#?}");
}

/// Neither is it said that something is wrong.
#[test]
fn without_any_capability_it_says_what_it_did_not_see() {
    let patient = Patient::new();
    let nothing = ["setpriv", "--inh-caps=-all", "--bounding-set=-all"];
    let answer = verb(&patient.node, "doctor").through(nothing).run();
    assert_eq!(answer.status.code(), Some(3), "{answer:?}");
    assert!(
        text(&answer).contains("not looked at: ") && text(&answer).contains("CAP_NET_ADMIN"),
        "{answer:?}"
    );
}

/// From the agent's container `why` finds what is wrong on the node, and says that it does not see into pods.
#[test]
fn why_answers_from_there_but_for_the_inside_of_pods() {
    let patient = Patient::new();
    let [address, _] = &patient.addresses[..] else { panic!("two addresses") };
    let why =
        || verb(&patient.node, &format!("why 10.88.0.77 {address}:80 --output json")).through(AGENTS).run();
    let answer = why();
    assert_eq!(answer.status.code(), Some(3), "{answer:?}");
    let steps = answer.document().unwrap()["answer"]["flows"][0]["steps"].clone();
    let unknown: Vec<&Value> = steps.as_array().unwrap().iter().filter(|it| it["state"] != "ok").collect();
    let kinds: Vec<&Value> = unknown.iter().map(|it| &it["kind"]).collect();
    assert_eq!(kinds, ["pod", "pod", "listener"], "{unknown:#?}");
    assert!(unknown.iter().all(|it| it["sentence"].to_string().contains("CAP_SYS_ADMIN")), "{unknown:#?}");
    patient.node.namespace().ip(&format!("route delete {address}"));
    let answer = why();
    assert_eq!(answer.status.code(), Some(1), "{answer:?}");
    assert!(
        answer.document().unwrap()["answer"]["sentence"].to_string().contains("no route to its pod"),
        "{answer:?}"
    );
}
