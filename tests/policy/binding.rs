//! What ADD and DEL do for a pod's policies, on tables made by hand: `nft` writes what the agent would.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::Stdio;

use kit::at_once;
use kit::call::Call;
use kit::netns::Namespace;
use kit::nft;
use kit::node::{Node, OUTSIDE_V4};
use kit::pod::{Pod, addresses_of, host_link_of};
use kit::traffic::{Server, reply, tcp};
use serde_json::{Value, json};

use super::first_packets::FirstPackets;
use super::scene::{denied, uid};

/// The table's skeleton, as docs/design/policy.md has it.
const SKELETON: &str = "
table inet ferrule-policy {
    set own4 { type ifname . ipv4_addr; flags timeout; }
    set own6 { type ifname . ipv6_addr; flags timeout; }
    map from_pod { type ifname : verdict; flags timeout; }
    map to_pod { type ifname : verdict; flags timeout; }
    chain denied_in { counter drop; }
    chain denied_out { counter drop; }
    chain policy_out {
        type filter hook forward priority 10;
        ct state established,related accept
        oifname . ip saddr @own4 accept
        oifname . ip6 saddr @own6 accept
        iifname vmap @from_pod
    }
    chain policy_node {
        type filter hook input priority 10;
        ct state established,related accept
        iifname vmap @from_pod
    }
    chain policy_in {
        type filter hook forward priority 11;
        ct state established,related accept
        oifname . ip saddr @own4 accept
        oifname . ip6 saddr @own6 accept
        oifname vmap @to_pod
    }
}
";

/// Makes the table, with chains that deny all.
pub fn make_table(node: &Namespace, chains: &[&str]) {
    nft::load(node, SKELETON);
    chains.iter().for_each(|chain| add_chain(node, chain));
}

fn add_chain(node: &Namespace, chain: &str) {
    let denied = if chain.contains("in-") { "denied_in" } else { "denied_out" };
    nft::load(node, &format!("table inet ferrule-policy {{\nchain {chain} {{ goto {denied}; }}\n}}"));
}

/// A call for the pod `name` of the namespace `shop`.
pub fn call(node: &Node, command: &str, pod: &Pod, conf: &Value, name: &str) -> Call {
    let args = format!("K8S_POD_NAMESPACE=shop;K8S_POD_NAME={name};K8S_POD_UID={}", uid(name));
    node.call_for(command, pod, conf).args(args)
}

pub fn add(node: &Node, pod: &Pod, conf: &Value, name: &str) -> Value {
    call(node, "ADD", pod, conf, name).run().result()
}

/// Map and link, and the chain that packets are led to; set, link and address of what a pod sends to itself.
pub fn led(node: &Namespace) -> BTreeMap<String, String> {
    let Ok(listed) = nft::json(node, "list table inet ferrule-policy") else { return BTreeMap::new() };
    let mut found = BTreeMap::new();
    for object in listed["nftables"].as_array().unwrap() {
        let Some(set) = object.get("map").or(object.get("set")) else { continue };
        let name = set["name"].as_str().unwrap();
        if !["to_pod", "from_pod", "own4", "own6"].contains(&name) {
            continue;
        }
        for element in set["elem"].as_array().into_iter().flatten() {
            let (key, data) = match element.as_array() {
                Some(pair) => (&pair[0], pair[1]["goto"]["target"].as_str().unwrap()),
                None => (element, ""),
            };
            let key = key.get("elem").map_or(key, |elem| &elem["val"]);
            let words: Vec<&str> = match key.get("concat").and_then(Value::as_array) {
                Some(words) => words.iter().map(|word| word.as_str().unwrap()).collect(),
                None => vec![key.as_str().unwrap()],
            };
            found.insert(format!("{name} {}", words.join(" ")), data.to_owned());
        }
    }
    found
}

/// What must be there of a pod that is led to these chains.
fn leading(result: &Value, to_pod: Option<&str>, from_pod: Option<&str>) -> BTreeMap<String, String> {
    let link = host_link_of(result);
    let leading = [("to_pod", to_pod), ("from_pod", from_pod)];
    let leading = leading.into_iter().filter_map(|(map, chain)| Some((map, chain?)));
    let mut found: BTreeMap<String, String> =
        leading.map(|(map, chain)| (format!("{map} {link}"), chain.to_owned())).collect();
    if !found.is_empty() {
        for address in addresses_of(result) {
            let set = if address.contains(':') { "own6" } else { "own4" };
            found.insert(format!("{set} {link} {address}"), String::new());
        }
    }
    found
}

/// POLICY.md's second measure: no forbidden packet of a new pod, nor to it. Beside it, that the same packets come through
/// where nobody forbids them.
#[test]
fn a_known_pods_first_packets_are_judged() {
    for (chains, comes_through) in [(&["in-X", "out-X"][..], false), (&[][..], true)] {
        let (node, pod) = (Node::new(), Pod::new("pod"));
        let chains: Vec<String> = chains.iter().map(|chain| chain.replace('X', &uid("a"))).collect();
        make_table(node.namespace(), &chains.iter().map(String::as_str).collect::<Vec<_>>());
        let mut conf = node.conf();
        conf["runtimeConfig"] = json!({ "ips": ["10.88.0.77", "fd00:88::77"] });
        let watched = FirstPackets::watch(&node, &pod, &["10.88.0.77", "fd00:88::77"]);
        let result = add(&node, &pod, &conf, "a");
        let counts = watched.end(comes_through);
        if comes_through {
            assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
            assert_eq!(led(node.namespace()), BTreeMap::new());
        } else {
            assert_eq!(counts, [0, 0, 0, 0], "from the pod by IPv4 and IPv6, to it by IPv4 and IPv6");
            assert_eq!(led(node.namespace()), leading(&result, Some(&chains[0]), Some(&chains[1])));
        }
        call(&node, "DEL", &pod, &conf, "a").run().success();
        assert_eq!(led(node.namespace()), BTreeMap::new());
        node.expect_nothing_left();
    }
}

#[test]
fn an_unknown_pod_is_held_where_policies_are() {
    let (node, pod, known) = (Node::new(), Pod::new("pod"), Pod::new("known"));
    let own = format!("in-{}", uid("b"));
    make_table(node.namespace(), &["hold-in-shop", "hold-out-shop", "hold-in-other", &own]);
    let result = add(&node, &pod, &node.conf(), "a");
    let held = leading(&result, Some("hold-in-shop"), Some("hold-out-shop"));
    assert_eq!(led(node.namespace()), held);
    let _server = Server::tcp(pod.namespace(), 80, "pod");
    assert!(denied(node.outside(), &addresses_of(&result)[0], 80));
    assert!(denied(pod.namespace(), OUTSIDE_V4, 80));
    // Of one that is known in one direction, the other is the hold's.
    let result = add(&node, &known, &node.conf(), "b");
    let mut both = held;
    both.extend(leading(&result, Some(&own), Some("hold-out-shop")));
    assert_eq!(led(node.namespace()), both);
}

#[test]
fn an_unknown_pod_starts_open_if_the_conf_says_so() {
    let (node, pod, known) = (Node::new(), Pod::new("pod"), Pod::new("known"));
    let own = format!("in-{}", uid("b"));
    make_table(node.namespace(), &["hold-in-shop", "hold-out-shop", &own]);
    let mut conf = node.conf();
    conf["policyUnknown"] = json!("open");
    let result = add(&node, &pod, &conf, "a");
    assert_eq!(led(node.namespace()), BTreeMap::new());
    let _server = Server::tcp(pod.namespace(), 80, "pod");
    assert_eq!(tcp(node.outside(), &addresses_of(&result)[0], 80), reply(OUTSIDE_V4, "pod"));
    let result = add(&node, &known, &conf, "b");
    assert_eq!(led(node.namespace()), leading(&result, Some(&own), None), "a known one is not asked about");
}

#[test]
fn where_no_policy_isolates_anybody_nothing_is_made() {
    let (node, pod, other) = (Node::new(), Pod::new("pod"), Pod::new("other"));
    add(&node, &pod, &node.conf(), "a");
    assert!(nft::run(node.namespace(), "list table inet ferrule-policy").is_err());
    make_table(node.namespace(), &["hold-in-elsewhere", "hold-out-elsewhere"]);
    add(&node, &other, &node.conf(), "b");
    assert_eq!(led(node.namespace()), BTreeMap::new());
    for (pod, name) in [(&pod, "a"), (&other, "b")] {
        call(&node, "DEL", pod, &node.conf(), name).run().success();
    }
    node.expect_nothing_left();
}

/// What no chain can be named by is no reason to fail a pod; nor is a runtime that does not tell the uid.
#[test]
fn a_pod_without_a_uid_of_use_is_attached_unbound() {
    let node = Node::new();
    make_table(node.namespace(), &["hold-in-shop"]);
    let long = format!(";K8S_POD_UID={}", "u".repeat(253));
    for uid in ["", &long] {
        let pod = Pod::new("pod");
        let args = format!("K8S_POD_NAMESPACE=shop;K8S_POD_NAME=a{uid}");
        node.call_for("ADD", &pod, &node.conf()).args(args).run().result();
        assert_eq!(led(node.namespace()), BTreeMap::new());
        node.del(&pod, &node.conf());
    }
    node.expect_nothing_left();
}

/// The policies of a pod are in force on each of its interfaces.
#[test]
fn the_second_interface_of_a_pod_is_bound_too() {
    let (node, pod) = (Node::new(), Pod::new("pod"));
    make_table(node.namespace(), &["hold-in-shop"]);
    let first = add(&node, &pod, &node.conf(), "a");
    let mut conf = node.conf_with(json!([[{ "subnet": "10.88.9.0/24" }]]));
    conf["name"] = json!("second");
    conf["ipam"]["routes"] = json!([]);
    let second = call(&node, "ADD", &pod, &conf, "a").ifname("net1").run().result();
    let mut both = leading(&first, Some("hold-in-shop"), None);
    both.extend(leading(&second, Some("hold-in-shop"), None));
    assert_eq!((led(node.namespace()), both.len()), (both.clone(), 5));
    call(&node, "DEL", &pod, &conf, "a").ifname("net1").run().success();
    assert_eq!(led(node.namespace()), leading(&first, Some("hold-in-shop"), None));
}

#[test]
fn a_del_leaves_no_element_whatever_is_lost() {
    let node = Node::new();
    let conf = node.conf();
    make_table(node.namespace(), &["hold-in-shop", "hold-out-shop"]);
    let damage = |pod: &Pod| std::fs::write(node.record_path(pod), "damaged").unwrap();
    let lose = |pod: &Pod| std::fs::remove_file(node.record_path(pod)).unwrap();
    let lead_on = |_: &Pod| {
        // The agent has seen it.
        add_chain(node.namespace(), &format!("in-{}", uid("a")));
        let element = led(node.namespace()).into_keys().find(|it| it.starts_with("to_pod")).unwrap();
        let link = element.split(' ').next_back().unwrap().to_owned();
        nft::load(
            node.namespace(),
            &format!(
                "delete element inet ferrule-policy to_pod {{ {link} }}
                 add element inet ferrule-policy to_pod {{ {link} : goto in-{} }}",
                uid("a")
            ),
        );
    };
    let flush = |_: &Pod| drop(nft::run(node.namespace(), "delete table inet ferrule").unwrap());
    let nothing = |_: &Pod| {};
    let cases: [&dyn Fn(&Pod); 5] = [&nothing, &damage, &lose, &lead_on, &flush];
    for (case, before) in cases.iter().enumerate() {
        let pod = Pod::new("pod");
        add(&node, &pod, &conf, "a");
        assert_eq!(led(node.namespace()).len(), 4, "{case}");
        before(&pod);
        for _ in 0..2 {
            // containerd's DEL tells the same as its ADD, others nothing.
            node.del(&pod, &conf);
            assert_eq!(led(node.namespace()), BTreeMap::new(), "{case}");
        }
    }
}

#[test]
fn an_add_that_fails_leaves_no_element() {
    let (node, pod) = (Node::new(), Pod::new("pod"));
    make_table(node.namespace(), &["hold-in-shop", "hold-out-shop"]);
    let add = || call(&node, "ADD", &pod, &node.conf(), "a");
    assert_eq!(add().unread().run().status.code(), Some(1));
    assert_eq!(led(node.namespace()), BTreeMap::new());
    node.expect_nothing_left();
    // What one leaves that was killed leads elsewhere; the next one takes its place.
    let result = add().run().result();
    let link = host_link_of(&result);
    node.del(&pod, &node.conf());
    nft::load(
        node.namespace(),
        &format!("add element inet ferrule-policy to_pod {{ {link} : goto hold-out-shop }}"),
    );
    let result = add().run().result();
    assert_eq!(led(node.namespace()), leading(&result, Some("hold-in-shop"), Some("hold-out-shop")));
}

#[test]
fn gc_removes_elements_of_links_that_are_gone() {
    let (node, kept, stale) = (Node::new(), Pod::new("kept"), Pod::new("stale"));
    make_table(node.namespace(), &["hold-in-shop"]);
    let result = add(&node, &kept, &node.conf(), "a");
    add(&node, &stale, &node.conf(), "b");
    nft::load(
        node.namespace(),
        "add element inet ferrule-policy to_pod { \"vethdeadbeef000\" : goto hold-in-shop }
         add element inet ferrule-policy own4 { \"vethdeadbeef000\" . 10.88.0.9 }",
    );
    node.gc(&node.conf(), &[&kept]).success();
    assert_eq!(led(node.namespace()), leading(&result, Some("hold-in-shop"), None));
    // Without a table it has nothing to look for.
    nft::run(node.namespace(), "delete table inet ferrule-policy").unwrap();
    node.gc(&node.conf(), &[]).success();
    node.expect_nothing_left();
}

#[test]
fn check_names_what_leads_past_a_policy() {
    let (node, pod) = (Node::new(), Pod::new("pod"));
    let (own, conf) = (format!("in-{}", uid("a")), node.conf());
    make_table(node.namespace(), &["hold-in-shop"]);
    let result = add(&node, &pod, &conf, "a");
    let link = host_link_of(&result);
    let check = || {
        let mut conf = conf.clone();
        conf["prevResult"] = result.clone();
        call(&node, "CHECK", &pod, &conf, "a").run()
    };
    check().success();
    add_chain(node.namespace(), &own);
    let complaint = check().complaint(105);
    let place = format!("nft: inet ferrule-policy to_pod {{ \"{link}\" }}");
    assert!(complaint.contains(&format!("{place} leads past the pod's policies")), "{complaint}");
    for element in [format!("to_pod {{ {link} }}"), format!("own4 {{ {link} . 10.88.0.2 }}")] {
        nft::run(node.namespace(), &format!("delete element inet ferrule-policy {element}")).unwrap();
    }
    let complaint = check().complaint(105);
    for part in [format!("{place} is missing"), format!("own4 {{ \"{link}\" . 10.88.0.2 }} is missing")] {
        assert!(complaint.contains(&part), "{complaint}");
    }
    let conf_dir = node.scratch().path().join("net.d");
    std::fs::create_dir(&conf_dir).unwrap();
    std::fs::write(conf_dir.join("10-podnet.conf"), conf.to_string()).unwrap();
    let sync = Call::ferrulectl("sync").on(node.namespace());
    let done = sync.argument("--conf-dir").argument(&conf_dir).run();
    assert!(done.status.success() && done.text().contains("2 elements added"), "{done:?}");
    assert_eq!(led(node.namespace()), leading(&result, Some(&own), None));
    check().success();
}

/// Decided on what was asked, and committed only if nobody changed anything: here somebody always does.
#[test]
fn pods_are_bound_while_others_change_tables() {
    let node = Node::new();
    make_table(node.namespace(), &["hold-in-shop"]);
    // The node's own table is there already: to make one takes longer than the others leave.
    let first = Pod::new("first");
    call(&node, "ADD", &first, &node.conf(), "a").run().success();
    call(&node, "DEL", &first, &node.conf(), "a").run().success();
    let mut busy = node.namespace().command("nft");
    let mut busy = busy.args(["-i"]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut input = busy.stdin.take().unwrap();
    let writer = std::thread::spawn(move || {
        for round in 0..100_000 {
            let verb = if round % 2 == 0 { "add" } else { "delete" };
            if writeln!(input, "{verb} table inet other").is_err() {
                return;
            }
        }
    });
    let pods: Vec<Pod> = (0..8).map(|_| Pod::new("pod")).collect();
    let answers = at_once(8, 8, |n| call(&node, "ADD", &pods[n], &node.conf(), "a").run());
    let mut wanted = BTreeMap::new();
    for answer in &answers {
        wanted.extend(leading(&answer.result(), Some("hold-in-shop"), None));
    }
    busy.kill().unwrap();
    busy.wait().unwrap();
    writer.join().unwrap();
    assert_eq!(led(node.namespace()), wanted);
}
