//! `ferrule import` takes over a node from ptp or bridge with host-local while its pods run: the real plugins, real
//! packets, and what stays as it was.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use super::{conf_dir, document, install, text, verb};
use crate::harness::answer::Answer;
use crate::harness::call::{Call, FERRULE, REFERENCE_PLUGINS};
use crate::harness::files::{listing, names_in};
use crate::harness::ip;
use crate::harness::netns::Namespace;
use crate::harness::node::{Node, SUBNET_V4, SUBNET_V6};
use crate::harness::packets::{answers_ping, answers_ping_in_time, source_seen_over_tcp};
use crate::harness::pod::{Pod, addresses_of, host_link_of};

/// A node that another plugin serves, with host-local and a runtime that remembers results as libcni does.
struct OldNode {
    node: Node,
    conf: Value,
}

impl OldNode {
    fn new(conf: Value) -> Self {
        let node = Node::new();
        let mut conf = conf;
        conf["ipam"]["dataDir"] = json!(node.scratch().path().join("networks"));
        Self { node, conf }
    }

    fn with_ptp() -> Self {
        Self::new(conf_of("ptp", json!([[{ "subnet": SUBNET_V4 }], [{ "subnet": SUBNET_V6 }]])))
    }

    fn with_bridge() -> Self {
        let mut conf = conf_of("bridge", json!([[{ "subnet": SUBNET_V4 }], [{ "subnet": SUBNET_V6 }]]));
        conf["bridge"] = json!("cni0");
        conf["isGateway"] = json!(true);
        conf["hairpinMode"] = json!(true);
        Self::new(conf)
    }

    /// host-local's directory.
    fn networks(&self) -> PathBuf {
        self.node.scratch().path().join("networks/podnet")
    }

    /// Where the runtime keeps its results.
    fn results(&self) -> PathBuf {
        self.node.scratch().path().join("results")
    }

    fn call(&self, command: &str, pod: &Pod) -> Call {
        let call = Call::reference(self.conf["type"].as_str().unwrap(), command).on(self.node.namespace());
        let call = call.env("CNI_PATH", REFERENCE_PLUGINS).conf(&self.conf);
        call.attachment(pod.container(), pod.namespace().path())
    }

    /// ADD by the old plugin, without a runtime that remembers it.
    fn add_in_secret(&self, pod: &Pod) -> Value {
        self.call("ADD", pod).run().result()
    }

    /// ADD by the old plugin, remembered as libcni does (`cacheAdd`, libcni/api.go).
    fn add(&self, pod: &Pod, name: &str) -> Value {
        let result = self.add_in_secret(pod);
        let cached = json!({
            "kind": "cniCacheV1", "containerId": pod.container(), "config": "e30=", "ifName": "eth0",
            "networkName": "podnet", "netns": pod.namespace().path(),
            "cniArgs": [["IgnoreUnknown", "1"], ["K8S_POD_NAMESPACE", "default"], ["K8S_POD_NAME", name]],
            "capabilityArgs": { "portMappings": [{ "hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": "" }] },
            "result": result,
        });
        fs::create_dir_all(self.results()).unwrap();
        fs::write(self.result_path(pod), cached.to_string()).unwrap();
        result
    }

    fn result_path(&self, pod: &Pod) -> PathBuf {
        self.results().join(format!("podnet-{}-eth0", pod.container()))
    }

    /// The conflist of ferrule takes the place of the old one. Returns the conf.
    fn install_ferrule(&self) -> Value {
        let conf = self.node.conf();
        install(&self.node, "10-ferrule.conflist", &conf);
        conf
    }

    /// The words of an import.
    fn words(&self) -> String {
        format!("import --from {} --results {}", self.networks().display(), self.results().display())
    }

    /// The document of an import that must end with `status`.
    fn import(&self, status: i32) -> Value {
        document(&self.node, &self.words(), status)
    }

    fn import_as_text(&self) -> Answer {
        verb(&self.node, &self.words()).run()
    }

    /// Runs a command that import told a person to.
    fn follow(&self, step: &Value) {
        let net = format!("--net={}", self.node.namespace().path().display());
        let command = step["command"].as_str().unwrap();
        let output = Command::new("nsenter").args([&net, "sh", "-c", command]).output().unwrap();
        assert!(output.status.success(), "{command}: {output:?}");
    }
}

fn conf_of(plugin: &str, ranges: Value) -> Value {
    json!({
        "cniVersion": "1.0.0", "name": "podnet", "type": plugin,
        "ipam": {
            "type": "host-local", "ranges": ranges,
            "routes": [{ "dst": "0.0.0.0/0" }, { "dst": "::/0" }],
        },
    })
}

/// The states that a document tells of the pods, in order.
fn states(document: &Value) -> Vec<&str> {
    document["pods"].as_array().unwrap().iter().map(|it| it["state"].as_str().unwrap()).collect()
}

/// Both reach each other by both families, and the source address is the sender's own.
fn expect_to_reach_each_other(one: (&Pod, &Value), other: (&Pod, &Value)) {
    for ((from, sender), (to, receiver)) in [(one, other), (other, one)] {
        for (source, address) in addresses_of(sender).iter().zip(addresses_of(receiver)) {
            assert!(answers_ping_in_time(from.namespace(), &address), "{source} -> {address}");
            let seen = source_seen_over_tcp(from.namespace(), to.namespace(), &address).unwrap();
            assert_eq!(seen, source.parse::<IpAddr>().unwrap());
        }
    }
}

/// From the node, and from beyond it.
fn expect_to_be_reached(node: &Node, result: &Value) {
    for address in addresses_of(result) {
        assert!(answers_ping_in_time(node.namespace(), &address), "node -> {address}");
        assert!(answers_ping_in_time(node.outside(), &address), "outside -> {address}");
    }
}

/// Waits until the kernel has taken down a link whose pod died.
fn wait_until_gone(node: &Node, link: &str) {
    let script = format!(
        "for _ in $(seq 500); do ip link show dev {link} >/dev/null 2>&1 || exit 0; sleep 0.01; done; exit 1"
    );
    let net = format!("--net={}", node.namespace().path().display());
    assert!(Command::new("nsenter").args([&net, "sh", "-c", &script]).status().unwrap().success());
}

/// What a person may look at, and nothing of it is a fault.
fn expect_all_is_well(node: &Node) {
    let answer = verb(node, "doctor").run();
    assert!(answer.status.success(), "{}", text(&answer));
}

#[test]
fn a_node_moves_from_ptp_with_its_pods_running() {
    let old = OldNode::with_ptp();
    let (node, pods) = (&old.node, [Pod::new("a"), Pod::new("b")]);
    let results = [old.add(&pods[0], "web-0"), old.add(&pods[1], "web-1")];
    expect_to_reach_each_other((&pods[0], &results[0]), (&pods[1], &results[1]));
    let (host_local, links) = (listing(&old.networks()), node.host_links());
    let conf = old.install_ferrule();
    let done = old.import(0);
    assert_eq!(states(&done), ["imported", "imported"]);
    assert_eq!((&done["dead"], &done["problems"], &done["steps"]), (&json!([]), &json!([]), &json!([])));
    for (n, name) in [(0, "default/web-0"), (1, "default/web-1")] {
        let told = &done["pods"][n];
        assert_eq!(told["pod"], name);
        assert_eq!(told["addresses"], json!(addresses_of(&results[n])));
        assert_eq!(told["netns"], json!(pods[n].namespace().path()));
        assert_eq!(told["hostLink"], host_link_of(&results[n]));
        assert_eq!(told["hostPorts"][0]["hostPort"], 8080);
        assert_eq!(told["notes"], json!([]));
        // One record for both families.
        let record = node.store().record(pods[n].container());
        assert_eq!(record["addresses"], told["addresses"]);
        assert_eq!(record["importedFrom"], json!(old.networks()));
    }
    assert_eq!((listing(&old.networks()), node.host_links()), (host_local, links));
    // A new pod has an address of its own, and everybody reaches everybody.
    let new = Pod::new("new");
    let result = node.add(&new, &conf);
    for (pod, old_result) in pods.iter().zip(&results) {
        assert!(addresses_of(old_result).iter().all(|it| !addresses_of(&result).contains(it)));
        expect_to_reach_each_other((pod, old_result), (&new, &result));
        expect_to_be_reached(node, old_result);
    }
    expect_to_reach_each_other((&pods[0], &results[0]), (&pods[1], &results[1]));
    // Whoever looks finds the old pods, and nothing wrong with them.
    let inspected = &document(node, "inspect", 0)["networks"][0]["attachments"];
    assert_eq!(inspected[0]["importedFrom"], json!(old.networks()));
    assert_eq!(
        (&inspected[0]["state"], &inspected[0]["hostLink"]),
        (&json!("alive"), &json!(host_link_of(&results[0])))
    );
    assert!(text(&verb(node, "inspect").run()).contains("alive, imported"));
    expect_all_is_well(node);
    for (pod, result) in pods.iter().zip(&results) {
        node.check(pod, &conf, result).success();
        assert!(node.try_add(pod, &conf).complaint(101).contains("attached already"));
    }
    // A second import has nothing to do, and does not take a pod of ferrule's for an old one.
    let before = listing(&node.data_dir());
    let again = old.import(0);
    assert_eq!(states(&again), ["already", "already"]);
    assert_eq!(listing(&node.data_dir()).len(), before.len());
    // They go as pods do: one by DEL, the other by GC.
    node.del(&pods[0], &conf);
    node.del(&pods[0], &conf);
    assert!(ip::link(pods[0].namespace(), "eth0").is_none());
    assert!(ip::link(node.namespace(), &host_link_of(&results[0])).is_none());
    node.gc(&conf, &[&new]).success();
    assert_eq!(node.known_attachments(), [format!("{}@eth0", new.container())]);
    assert_eq!(node.host_links(), [host_link_of(&result)]);
    assert_eq!(node.held_addresses().len(), 2);
    for address in results.iter().flat_map(addresses_of) {
        let family = if address.contains(':') { "-6" } else { "-4" };
        assert_eq!(ip::routes(node.namespace(), &format!("{family} exact {address}")), Vec::<Value>::new());
    }
    expect_all_is_well(node);
}

#[test]
fn a_node_moves_from_a_bridge_with_the_steps_that_import_names() {
    let old = OldNode::with_bridge();
    let (node, pods) = (&old.node, [Pod::new("a"), Pod::new("b")]);
    let results = [old.add(&pods[0], "web-0"), old.add(&pods[1], "web-1")];
    expect_to_reach_each_other((&pods[0], &results[0]), (&pods[1], &results[1]));
    let conf = old.install_ferrule();
    let done = old.import(0);
    assert_eq!(states(&done), ["imported", "imported"]);
    assert_eq!(done["pods"][0]["hostLink"], results[0]["interfaces"][1]["name"], "not the bridge");
    let new = Pod::new("new");
    let result = node.add(&new, &conf);
    // Without the steps they do not reach each other, which is why they are named.
    let steps = done["steps"].as_array().unwrap();
    assert_eq!(steps.len(), 3, "one for IPv4, one for each pod's IPv6: {steps:?}");
    for (one, other) in [(&pods[0], &result), (&new, &results[0])] {
        for address in addresses_of(other) {
            assert!(!answers_ping(one.namespace(), &address), "the step for {address} is not needed");
        }
    }
    assert!(text(&old.import_as_text()).contains("sysctl -w net.ipv4.conf.cni0.proxy_arp=1"));
    let findings = document(node, "doctor", 1)["findings"].clone();
    assert_eq!(findings.as_array().unwrap().len(), 1, "{findings}");
    assert_eq!(findings[0]["id"], "imported-cut-off");
    steps.iter().for_each(|step| old.follow(step));
    for (pod, old_result) in pods.iter().zip(&results) {
        expect_to_reach_each_other((pod, old_result), (&new, &result));
        expect_to_be_reached(node, old_result);
    }
    expect_to_reach_each_other((&pods[0], &results[0]), (&pods[1], &results[1]));
    expect_to_be_reached(node, &result);
    expect_all_is_well(node);
    assert_eq!(old.import(0)["steps"], json!([]));
    for (pod, result) in pods.iter().zip(&results) {
        node.check(pod, &conf, result).success();
        node.del(pod, &conf);
    }
    let mut left = node.host_links();
    left.sort();
    let mut wanted = ["cni0".to_owned(), host_link_of(&result)];
    wanted.sort();
    assert_eq!(left, wanted);
    assert_eq!(node.held_addresses().len(), 2);
    // And without imported pods the bridge is a leftover again.
    assert_eq!(document(node, "doctor", 1)["findings"][0]["id"], "foreign-route");
}

/// The bridge has the gateway's addresses, and the conf of ferrule names the same: both answer for them.
#[test]
fn a_gateway_with_a_name_serves_old_and_new_pods() {
    let old = OldNode::with_bridge();
    let (node, pod) = (&old.node, Pod::new("old"));
    let old_result = old.add(&pod, "web");
    let conf = node.conf_with(json!([
        [{ "subnet": SUBNET_V4, "gateway": "10.88.0.1" }],
        [{ "subnet": SUBNET_V6, "gateway": "fd00:88::1" }],
    ]));
    install(node, "10-ferrule.conflist", &conf);
    old.import(0)["steps"].as_array().unwrap().iter().for_each(|step| old.follow(step));
    let new = Pod::new("new");
    let result = node.add(&new, &conf);
    expect_to_reach_each_other((&pod, &old_result), (&new, &result));
    for namespace in [pod.namespace(), new.namespace()] {
        for gateway in ["10.88.0.1", "fd00:88::1"] {
            assert!(answers_ping_in_time(namespace, gateway), "{gateway}");
        }
    }
    expect_to_be_reached(node, &old_result);
    expect_all_is_well(node);
}

/// Three of the five addresses are old pods'.
#[test]
fn the_address_of_a_running_old_pod_is_never_given_away() {
    let ranges = json!([[{ "subnet": "10.88.0.0/29" }]]);
    let old = OldNode::new(conf_of("ptp", ranges.clone()));
    let (node, pods) = (&old.node, ["a", "b", "c"].map(Pod::new));
    let results = [old.add(&pods[0], "a"), old.add(&pods[1], "b"), old.add_in_secret(&pods[2])];
    let conf = node.conf_with(ranges);
    install(node, "10-ferrule.conflist", &conf);
    assert_eq!(states(&old.import(0)), ["imported", "imported", "imported"]);
    let olds: Vec<String> = results.iter().flat_map(addresses_of).collect();
    let news = ["d", "e"].map(Pod::new);
    for pod in &news {
        let given = addresses_of(&node.add(pod, &conf));
        assert!(!olds.contains(&given[0]), "{given:?} of {olds:?}");
    }
    let late = Pod::new("late");
    node.try_add(&late, &conf).failure(100);
    // One that dies without a word makes room, as every pod does. Of the one that nobody knows it cannot be told.
    pods[2].die();
    node.try_add(&late, &conf).failure(100);
    pods[0].die();
    wait_until_gone(node, &host_link_of(&results[0]));
    assert_eq!(addresses_of(&node.add(&late, &conf)), addresses_of(&results[0]));
}

#[test]
fn what_host_local_leaked_is_not_taken_over() {
    let old = OldNode::with_ptp();
    let (node, pods) = (&old.node, [Pod::new("dead"), Pod::new("alive")]);
    let results = [old.add(&pods[0], "dead"), old.add(&pods[1], "alive")];
    pods[0].die();
    wait_until_gone(node, &host_link_of(&results[0]));
    old.install_ferrule();
    let done = old.import(0);
    assert_eq!(states(&done), ["imported"]);
    assert_eq!(done["dead"][0]["addresses"], json!(addresses_of(&results[0])));
    assert_eq!(node.known_attachments(), [format!("{}@eth0", pods[1].container())]);
    assert!(text(&old.import_as_text()).contains("dead: its namespace is gone; not imported"));
}

/// No results: a pod that may be running is taken over, and only its DEL tells that it is not.
#[test]
fn a_pod_of_which_the_runtime_remembers_nothing_is_held_until_its_del() {
    let old = OldNode::with_ptp();
    let (node, pod) = (&old.node, Pod::new("pod"));
    let result = old.add_in_secret(&pod);
    let conf = old.install_ferrule();
    let done = old.import(0);
    assert_eq!((states(&done), &done["pods"][0]["netns"]), (vec!["imported"], &json!(null)));
    assert!(done["pods"][0]["notes"][0].as_str().unwrap().contains("crictl pods"), "{done}");
    assert!(done["leftAlone"].to_string().contains("--results"), "{done}");
    let inspected = document(node, "inspect", 0);
    assert_eq!(inspected["networks"][0]["attachments"][0]["state"], "alive");
    node.check(&pod, &conf, &result).success();
    node.del(&pod, &conf);
    node.store().expect_empty();
    // Whose link it is nobody knows, so it goes with its namespace.
    assert!(ip::link(pod.namespace(), "eth0").is_some());
}

#[test]
fn junk_is_named_and_never_followed() {
    let old = OldNode::with_ptp();
    let (node, pod) = (&old.node, Pod::new("pod"));
    let result = old.add(&pod, "web");
    let at = |name: &str| old.networks().join(name);
    let secret = node.scratch().path().join("secret");
    fs::write(&secret, "c0ffee\r\neth0").unwrap();
    fs::write(at("10.88.0.40"), "").unwrap();
    fs::write(at("10.88.0.41"), "\0\0\0\0").unwrap();
    symlink(&secret, at("10.88.0.42")).unwrap();
    fs::create_dir(at("10.88.0.43")).unwrap();
    assert!(Command::new("mkfifo").arg(at("10.88.0.44")).status().unwrap().success());
    fs::write(at("notes.txt"), "mine").unwrap();
    fs::write(old.results().join("podnet-torn-eth0"), "{").unwrap();
    symlink(&secret, old.results().join("podnet-link-eth0")).unwrap();
    let before = (listing(&old.networks()), listing(&old.results()));
    old.install_ferrule();
    let done = old.import(0);
    assert_eq!(states(&done), ["imported"]);
    let left = done["leftAlone"].to_string();
    for word in [
        "10.88.0.40",
        "is empty",
        "10.88.0.41",
        "10.88.0.42",
        "a symbolic link",
        "10.88.0.43",
        "a directory",
        "10.88.0.44",
        "a FIFO",
        "notes.txt",
        "2 files of podnet",
    ] {
        assert!(left.contains(word), "{word}: {left}");
    }
    let mut held = addresses_of(&result);
    held.sort();
    assert_eq!(node.held_addresses(), held);
    assert_eq!((listing(&old.networks()), listing(&old.results())), before);
}

/// A disk that was full, or somebody's rm: the pods run all the same.
#[test]
fn a_running_pod_whose_file_is_empty_or_gone_is_found_by_what_the_runtime_remembers() {
    let old = OldNode::with_ptp();
    let (node, pods) = (&old.node, [Pod::new("empty"), Pod::new("gone")]);
    let results = [old.add(&pods[0], "empty"), old.add(&pods[1], "gone")];
    for address in addresses_of(&results[0]) {
        fs::write(old.networks().join(address), "").unwrap();
    }
    for address in addresses_of(&results[1]) {
        fs::remove_file(old.networks().join(address)).unwrap();
    }
    old.install_ferrule();
    let done = old.import(0);
    assert_eq!((states(&done), &done["leftAlone"]), (vec!["imported", "imported"], &json!([])));
    for (pod, result) in pods.iter().zip(&results) {
        assert_eq!(node.store().record(pod.container())["addresses"], json!(addresses_of(result)));
    }
    assert!(
        done["pods"][0]["notes"][0].as_str().unwrap().contains("not in host-local's directory"),
        "{done}"
    );
}

#[test]
fn a_dry_run_says_all_of_it_and_changes_nothing() {
    let old = OldNode::with_bridge();
    let (node, pods) = (&old.node, [Pod::new("a"), Pod::new("b")]);
    old.add(&pods[0], "web-0");
    let dead = old.add(&pods[1], "web-1");
    pods[1].die();
    wait_until_gone(node, dead["interfaces"][1]["name"].as_str().unwrap());
    old.install_ferrule();
    let picture = || {
        let proxy_arp = node.namespace().sysctl("net/ipv4/conf/cni0/proxy_arp");
        (listing(node.scratch().path()), proxy_arp, node.host_links(), node.namespace().ip("route"))
    };
    let before = picture();
    let mut foreseen = document(node, &format!("{} --dry-run", old.words()), 0);
    assert_eq!(picture(), before);
    assert_eq!(foreseen["dryRun"], true);
    assert!(!node.data_dir().exists());
    foreseen["dryRun"] = json!(false);
    assert_eq!(foreseen, old.import(0));
}

/// ferrule was switched on first, and gave away what an old pod has.
#[test]
fn an_address_that_two_pods_have_is_told_and_the_others_are_taken_over() {
    let ranges = json!([[{ "subnet": SUBNET_V4 }]]);
    let old = OldNode::new(conf_of("ptp", ranges.clone()));
    let (node, pods) = (&old.node, [Pod::new("a"), Pod::new("b")]);
    let results = [old.add(&pods[0], "a"), old.add(&pods[1], "b")];
    let conf = node.conf_with(ranges);
    install(node, "10-ferrule.conflist", &conf);
    // As the IPAM plugin of another it does not look for routes, so it gives what it thinks is free.
    let mut as_ipam = conf.clone();
    as_ipam["type"] = json!("ptp");
    let other = Pod::new("other");
    let given = node.call_for("ADD", &other, &as_ipam).run().result();
    assert_eq!(addresses_of(&given), addresses_of(&results[0]));
    for words in [format!("{} --dry-run", old.words()), old.words()] {
        let done = document(node, &words, 1);
        assert_eq!(states(&done), ["imported"], "{done}");
        let problem = done["problems"][0].as_str().unwrap();
        assert!(
            problem.contains(&addresses_of(&results[0])[0]) && problem.contains(other.container()),
            "{problem}"
        );
    }
    assert_eq!(node.held_addresses().len(), 2);
}

/// The path that was recorded is another pod's namespace by now.
#[test]
fn a_del_never_touches_a_namespace_that_is_not_the_recorded_one() {
    let old = OldNode::with_ptp();
    let (node, pod) = (&old.node, Pod::new("pod"));
    old.add(&pod, "web");
    let conf = old.install_ferrule();
    old.import(0);
    node.store().rewrite_records(|record| record["netns"]["ino"] = json!(1));
    node.del(&pod, &conf);
    node.store().expect_empty();
    assert!(ip::link(pod.namespace(), "eth0").is_some());
}

#[test]
fn what_is_no_use_is_refused_with_the_remedy() {
    let old = OldNode::with_ptp();
    old.add(&Pod::new("pod"), "web");
    let node = &old.node;
    let complaint = |words: &str| {
        let answer = verb(node, words).run();
        assert_eq!(answer.status.code(), Some(1), "{answer:?}");
        assert!(!node.data_dir().exists());
        answer.stderr
    };
    assert!(complaint(&old.words()).contains("no usable conf of a network \"podnet\""));
    let mut conf = node.conf();
    conf["ipam"] = json!({ "type": "host-local", "ranges": [[{ "subnet": SUBNET_V4 }]] });
    install(node, "10-ferrule.conflist", &conf);
    assert!(complaint(&old.words()).contains("addresses from host-local"));
    old.install_ferrule();
    assert!(complaint("import --from /nonexistent/podnet").contains("/var/lib/cni/networks"));
    assert!(complaint("import --from /nonexistent/podnet --network other").contains("\"other\""));
}

/// The text of docs/OPERATE.md, as a person would paste it.
fn way_back() -> String {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/OPERATE.md")).unwrap();
    let (_, rest) =
        text.split_once("<!-- executed by tests/operator/import.rs -->\n```sh\n").expect("the snippet");
    rest.split_once("\n```").expect("its end").0.to_owned()
}

#[test]
fn the_way_back_is_the_old_conflist_and_the_documented_lines() {
    let old = OldNode::with_ptp();
    let (node, pods) = (&old.node, [Pod::new("stays"), Pod::new("goes")]);
    let results = [old.add(&pods[0], "stays"), old.add(&pods[1], "goes")];
    let conf = old.install_ferrule();
    old.import(0);
    let new = Pod::new("new");
    let new_result = node.add(&new, &conf);
    node.del(&pods[1], &conf);
    fs::write(old.networks().join("notes.txt"), "mine").unwrap();
    // The snippet says `ferrule`, as on a node whose directories are the usual ones.
    let wrapper = node.scratch().path().join("ferrule");
    let program = format!(
        "#!/bin/sh\nexec {FERRULE} \"$@\" --conf-dir {} --data-dir {}\n",
        conf_dir(node).display(),
        node.data_dir().display()
    );
    fs::write(&wrapper, program).unwrap();
    assert!(Command::new("chmod").arg("+x").arg(&wrapper).status().unwrap().success());
    for _ in 0..2 {
        let path = format!("{}:{}", node.scratch().path().display(), std::env::var("PATH").unwrap());
        let net = format!("--net={}", node.namespace().path().display());
        let mut shell = Command::new("nsenter");
        shell.args([&net, "sh", "-c", &way_back()]).env("PATH", path);
        let output = shell.env("network", "podnet").env("dir", old.networks()).output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    }
    let mut wanted: Vec<String> = [&results[0], &new_result].into_iter().flat_map(addresses_of).collect();
    wanted.extend(["last_reserved_ip.0", "last_reserved_ip.1", "lock", "notes.txt"].map(str::to_owned));
    wanted.sort();
    assert_eq!(names_in(&old.networks()), wanted);
    // The old plugin gives none of them away, and takes ferrule's pod down as its own.
    fs::remove_file(conf_dir(node).join("10-ferrule.conflist")).unwrap();
    let newest = Pod::new("newest");
    let newest_result = old.add(&newest, "newest");
    assert!(addresses_of(&newest_result).iter().all(|address| !wanted.contains(address)));
    expect_to_reach_each_other((&newest, &newest_result), (&new, &new_result));
    expect_to_reach_each_other((&pods[0], &results[0]), (&new, &new_result));
    old.call("DEL", &new).run().success();
    assert!(ip::link(new.namespace(), "eth0").is_none());
    assert!(ip::link(node.namespace(), &host_link_of(&new_result)).is_none());
    assert!(addresses_of(&new_result).iter().all(|address| !old.networks().join(address).exists()));
}

/// As from a container that does not see the node's /run: no path is there, but the links are.
#[test]
fn a_pod_whose_namespace_cannot_be_seen_lives_as_long_as_its_link() {
    let old = OldNode::with_ptp();
    let (node, pod) = (&old.node, Pod::new("pod"));
    let result = old.add(&pod, "web");
    let text = fs::read_to_string(old.result_path(&pod)).unwrap();
    fs::write(old.result_path(&pod), text.replace("/run/netns/", "/nonexistent/")).unwrap();
    let conf = old.install_ferrule();
    assert_eq!(states(&old.import(0)), ["imported"]);
    let state = |document: &Value| document["networks"][0]["attachments"][0]["state"].clone();
    assert_eq!(state(&document(node, "inspect", 0)), "alive");
    expect_all_is_well(node);
    pod.die();
    wait_until_gone(node, &host_link_of(&result));
    assert_eq!(state(&document(node, "inspect", 0)), "dead");
    node.del(&pod, &conf);
    node.store().expect_empty();
}

/// The runtime's path is a living pod's, but not that of the pod whose address it is: paths below /proc come again.
#[test]
fn another_pods_namespace_is_never_taken_for_the_old_pods() {
    let old = OldNode::with_ptp();
    let (node, pods) = (&old.node, [Pod::new("gone"), Pod::new("alive")]);
    let results = [old.add(&pods[0], "gone"), old.add(&pods[1], "alive")];
    let of = |pod: &Pod| pod.namespace().path().to_str().unwrap().to_owned();
    let text = fs::read_to_string(old.result_path(&pods[0])).unwrap();
    fs::write(old.result_path(&pods[0]), text.replace(&of(&pods[0]), &of(&pods[1]))).unwrap();
    let conf = old.install_ferrule();
    let done = old.import(0);
    assert_eq!(done["pods"][0]["netns"], json!(null));
    assert!(done["pods"][0]["notes"][0].as_str().unwrap().contains("another pod's by now"), "{done}");
    node.del(&pods[0], &conf);
    expect_to_be_reached(node, &results[1]);
}

/// Not a pod's: a namespace that only has the name of one.
#[test]
fn the_nodes_own_namespace_is_no_pods() {
    let old = OldNode::with_ptp();
    let (node, pod) = (&old.node, Pod::new("pod"));
    old.add(&pod, "web");
    let text = fs::read_to_string(old.result_path(&pod)).unwrap();
    let of = |namespace: &Namespace| namespace.path().to_str().unwrap().to_owned();
    fs::write(old.result_path(&pod), text.replace(&of(pod.namespace()), &of(node.namespace()))).unwrap();
    old.install_ferrule();
    let done = old.import(0);
    assert_eq!((states(&done), &done["pods"][0]["netns"]), (vec!["imported"], &json!(null)));
}
