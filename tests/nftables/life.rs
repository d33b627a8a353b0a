//! The table is flushed, changed and forgotten by others, and what the pods have in it comes back.

use serde_json::{Value, json};

use kit::call::Call;
use kit::nft;
use kit::node::{NODE_V4, Node, OUTSIDE_V4};
use kit::pod::{Pod, host_link_of};
use kit::traffic::{Server, reply, tcp};

const TARGET: u16 = 8080;

fn with_port(mut conf: Value, port: u16) -> Value {
    conf["ipMasq"] = json!(true);
    conf["runtimeConfig"] = json!({ "portMappings": [{ "hostPort": port, "containerPort": TARGET }] });
    conf
}

/// galaxy#77, firewalld's reload, `nft flush ruleset`
#[test]
fn after_a_flush_the_next_add_restores_all_networks() {
    let node = Node::new();
    let [web, other, late] = ["web", "other", "late"].map(Pod::new);
    let conf = with_port(node.conf(), 30_080);
    let result = node.add(&web, &conf);
    let mut second = with_port(node.conf_with(json!([[{ "subnet": "10.88.9.0/24" }]])), 30_081);
    second["name"] = json!("second");
    node.add(&other, &second);
    let _servers =
        [Server::tcp(web.namespace(), TARGET, "web"), Server::tcp(other.namespace(), TARGET, "other")];
    let before = nft::pod_elements(node.namespace());
    let inside = || nft::run(node.namespace(), "list set inet ferrule no_masquerade4").unwrap();
    let exempt = inside();
    for ruin in [
        "flush ruleset",
        "delete table inet ferrule",
        "flush table inet ferrule",
        "add table inet ferrule { flags dormant; }",
    ] {
        nft::run(node.namespace(), ruin).unwrap();
        let complaint = node.check(&web, &conf, &result).complaint(105);
        assert!(complaint.contains("inet ferrule"), "{complaint}");
        assert_eq!(tcp(node.outside(), NODE_V4, 30_080), None, "{ruin}");
        node.add(&late, &node.conf());
        for (port, name) in [(30_080, "web"), (30_081, "other")] {
            assert_eq!(tcp(node.outside(), NODE_V4, port), reply(OUTSIDE_V4, name), "{ruin}");
        }
        node.check(&web, &conf, &result).success();
        node.del(&late, &node.conf());
        assert_eq!(nft::pod_elements(node.namespace()), before, "{ruin}");
        assert_eq!(inside(), exempt, "{ruin}");
    }
    node.del(&web, &conf);
    let container = other.container();
    node.call("DEL", &second).container(container).ifname("eth0").run().success();
    node.expect_nothing_left();
}

/// The soak's find. A firewall that is loaded anew (`nft -f` with a flush) takes the table away between an ADD's look at
/// it and its use. The ADD is slowed down at each of its steps in turn, so that this falls between any two of them.
#[test]
fn a_flush_in_the_middle_of_an_add_does_not_fail_it() {
    for step in 1..=6 {
        let node = Node::new();
        let conf = with_port(node.conf(), 30_080);
        node.add(&Pod::new("first"), &node.conf());
        let pod = Pod::new("pod");
        let slow = format!("inject=sendto,sendmsg:delay_enter=30000:when={step}+6");
        let trace = node.scratch().path().join("trace");
        let wrapper = ["strace", "-f", "-qq", "-o", trace.to_str().unwrap(), "-e", &slow];
        let mut add = node.call_for("ADD", &pod, &conf).through(wrapper).spawn();
        for _ in 0..8 {
            if add.is_running() {
                // Before the ADD has made it once more there is nothing to delete.
                let _ = nft::run(node.namespace(), "delete table inet ferrule");
            }
        }
        let result = add.wait().result();
        node.add(&Pod::new("last"), &node.conf());
        node.check(&pod, &conf, &result).success();
    }
}

/// The soak's find. Whoever makes a flushed table again has read the records before. Of a pod that goes meanwhile, and has
/// nothing in the table to remove, a hostPort came back, for the next pod with its address. The ADD is slowed down each
/// time in turn that it has looked at the pod's record.
#[test]
fn a_pod_deleted_during_a_rebuild_does_not_come_back() {
    for look in 1..=4 {
        let node = Node::new();
        let [gone, late] = ["gone", "late"].map(Pod::new);
        let conf = with_port(node.conf(), 30_080);
        node.add(&gone, &conf);
        nft::run(node.namespace(), "delete table inet ferrule").unwrap();
        let record = node.record_path(&gone);
        let slow = format!("inject=close:delay_exit=400000:when={look}");
        let trace = node.scratch().path().join("trace");
        let wrapper = ["strace", "-f", "-qq", "-o", trace.to_str().unwrap()];
        let watched = ["-P", record.to_str().unwrap(), "-e", "trace=close", "-e", &slow];
        let call = node.call_for("ADD", &late, &node.conf()).through(wrapper.into_iter().chain(watched));
        let mut add = call.spawn();
        while add.is_running() && std::fs::read_to_string(&trace).unwrap_or_default().lines().count() < look {
            std::thread::yield_now();
        }
        node.del(&gone, &conf);
        add.wait().success();
        let elements = nft::pod_elements(node.namespace());
        let is_of_gone = |element: &String| element.contains(gone.container());
        assert!(!elements.iter().any(is_of_gone), "look {look}: {elements:#?}");
    }
}

/// The soak's find, once in 25,000 calls: the table is made anew when a DEL has removed its elements, and not yet its
/// record. The DEL is held up just there.
#[test]
fn a_table_made_anew_leaves_out_a_pod_whose_link_is_gone() {
    let node = Node::new();
    let [gone, late] = ["gone", "late"].map(Pod::new);
    let conf = with_port(node.conf(), 30_080);
    node.add(&gone, &conf);
    let of_gone = || {
        let elements = nft::pod_elements(node.namespace());
        elements.into_iter().filter(|element| element.contains(gone.container())).collect::<Vec<_>>()
    };
    assert!(!of_gone().is_empty());
    let trace = node.scratch().path().join("trace");
    // The first lock is its hold, the second the store's, for the record.
    let slow = "inject=flock:delay_enter=1500000:when=2";
    let wrapper = ["strace", "-f", "-qq", "-o", trace.to_str().unwrap(), "-e", slow];
    let mut del = node.call_for("DEL", &gone, &conf).through(wrapper).spawn();
    while del.is_running() && !of_gone().is_empty() {}
    nft::run(node.namespace(), "delete table inet ferrule").unwrap();
    node.add(&late, &node.conf());
    del.wait().success();
    assert_eq!(of_gone(), [""; 0]);
}

#[test]
fn one_element_taken_away_is_named_by_check() {
    let (node, pod) = (Node::new(), Pod::new("pod"));
    let conf = with_port(node.conf(), 30_080);
    let result = node.add(&pod, &conf);
    nft::run(node.namespace(), "delete element inet ferrule any_hostports4 { tcp . 30080 }").unwrap();
    let complaint = node.check(&pod, &conf, &result).complaint(105);
    assert!(complaint.contains("any_hostports4 { tcp . 30080 : "), "{complaint}");
    nft::run(node.namespace(), "flush set inet ferrule no_masquerade6").unwrap();
    let complaint = node.check(&pod, &conf, &result).complaint(105);
    assert!(complaint.contains("exemptions from masquerade of network podnet"), "{complaint}");
}

#[test]
fn a_del_without_table_record_or_link_leaves_nothing() {
    let node = Node::new();
    let conf = with_port(node.conf(), 30_080);
    let del = |pod: &Pod| {
        node.del(pod, &conf);
        node.expect_nothing_left();
    };
    let pod = Pod::new("flushed");
    node.add(&pod, &conf);
    nft::run(node.namespace(), "flush ruleset").unwrap();
    del(&pod);

    let pod = Pod::new("forgotten");
    node.add(&pod, &conf);
    std::fs::remove_dir_all(node.data_dir()).unwrap();
    assert_eq!(nft::pod_elements(node.namespace()).len(), 7);
    node.del(&pod, &conf);
    assert_eq!(nft::pod_elements(node.namespace()), Vec::<String>::new());

    let pod = Pod::new("damaged");
    node.add(&pod, &conf);
    std::fs::write(node.record_path(&pod), "torn").unwrap();
    del(&pod);

    let pod = Pod::new("unplugged");
    let link = host_link_of(&node.add(&pod, &conf));
    node.namespace().ip(&format!("link delete {link}"));
    del(&pod);
}

#[test]
fn gc_takes_what_the_gone_had_and_what_no_record_asks_for() {
    let node = Node::new();
    let conf = with_port(node.conf(), 30_080);
    let [kept, gone] = ["kept", "gone"].map(Pod::new);
    node.add(&gone, &conf);
    node.add(&kept, &with_port(node.conf(), 30_081));
    let leftover = "add element inet ferrule any_hostports4 { tcp . 9 comment \"podnet x\" : 10.88.0.9 . 9 }";
    let foreign =
        "add element inet ferrule any_hostports4 { tcp . 10 comment \"elsewhere x\" : 10.88.0.9 . 9 }";
    for element in [leftover, foreign] {
        nft::run(node.namespace(), element).unwrap();
    }
    assert_eq!(nft::pod_elements(node.namespace()).len(), 16);
    node.gc(&conf, &[&kept]).success();
    let left = nft::pod_elements(node.namespace());
    assert_eq!(left.len(), 8, "{left:?}");
    assert!(left.contains(&"any_hostports4: elsewhere x".to_owned()), "{left:?}");
}

/// A DEL that has taken its elements and not yet its record: whoever compares the table with the records by then must
/// not bring them back. Found on a kind cluster, where the agent does so after each change of the table.
#[test]
fn sync_leaves_alone_what_a_command_is_working_on() {
    let (node, pod) = (Node::new(), Pod::new("pod"));
    let conf = with_port(node.conf(), 30_080);
    node.add(&pod, &conf);
    let confs = node.scratch().path().join("net.d");
    std::fs::create_dir(&confs).unwrap();
    std::fs::write(confs.join("10-ferrule.conf"), conf.to_string()).unwrap();
    let sync = || {
        let call = Call::ferrulectl("sync --conf-dir")
            .argument(&confs)
            .argument("--data-dir")
            .argument(node.data_dir());
        let answer = call.on(node.namespace()).run();
        assert!(answer.status.success(), "{answer:?}");
        nft::pod_elements(node.namespace()).len()
    };
    let all = nft::pod_elements(node.namespace()).len();
    let record = std::fs::File::open(node.record_path(&pod)).unwrap();
    record.lock().unwrap();
    nft::run(node.namespace(), "flush map inet ferrule any_hostports4").unwrap();
    assert_eq!(sync(), all - 1, "a DEL at work");
    record.unlock().unwrap();
    assert_eq!(sync(), all);
    record.lock().unwrap();
    assert_eq!(sync(), all, "an ADD at work");
    record.unlock().unwrap();
    node.del(&pod, &conf);
    node.expect_nothing_left();
}

/// The agent keeps routes and exemptions: an ADD changes neither.
#[test]
fn with_peers_by_the_agent_add_leaves_routes_and_exemptions() {
    let (node, pod) = (Node::new(), Pod::new("pod"));
    let mut conf = with_port(node.conf(), 30_080);
    conf["peers"] = json!([{ "node": "peer", "podCIDRs": ["10.88.7.0/24"], "nodeIPs": [OUTSIDE_V4] }]);
    node.add(&Pod::new("first"), &conf);
    let state = || {
        let inside = nft::run(node.namespace(), "list set inet ferrule no_masquerade4").unwrap();
        (inside, node.namespace().ip("-4 route show proto 102 via 198.18.0.1"))
    };
    let before = state();
    assert!(before.0.contains("10.88.7.0/24") && before.1.contains("10.88.7.0/24"), "{before:?}");
    conf["peers"] = json!("agent");
    conf["runtimeConfig"] = json!({});
    let result = node.add(&pod, &conf);
    assert_eq!(state(), before);
    node.check(&pod, &conf, &result).success();
    // Not even a flush loses them: they stand in the store.
    nft::run(node.namespace(), "flush ruleset").unwrap();
    node.add(&Pod::new("later"), &conf);
    assert_eq!(state(), before);
    conf["peers"] = json!("nobody");
    assert!(node.try_add(&Pod::new("wrong"), &conf).complaint(7).contains("peers: is"));
}
