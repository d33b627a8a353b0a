//! `kubectl ferrule migrate`: in which order the cluster is changed, what it refuses, and what stands where a node does not
//! move. What is done on a node is asked in tests/cli/import/migrating.rs.

use kit::answer::Answer;
use serde_json::{Value, json};

use super::api::{Api, Exec};

const KINDNET: &str = "migrate --replaces kube-system/kindnet --yes";

fn said(in_use: &str, has_conflist: bool, state: &str, problems: &[&str]) -> Exec {
    let pod = json!({ "pod": "shop/web", "container": "c0ffee", "state": state, "notes": ["a note"], "of later": 1 });
    let document = json!({
        "version": 1, "inUse": in_use, "hasConflist": has_conflist, "oldPlugin": "ptp",
        "hostLocal": "/run/cni-ipam-state/kindnet", "import": { "pods": [pod], "dead": [] }, "carried": [], "followed": [],
        "problems": problems,
    });
    let status = i32::from(!problems.is_empty());
    Exec::Says(document.to_string().into_bytes(), String::new(), status)
}

/// A cluster with kindnet on these nodes, and agents that wait for the label.
fn cluster(nodes: &[&str]) -> Api {
    let api = Api::new();
    let selector = json!({ "kubernetes.io/os": "linux", "ferrule.dev/network": "ferrule" });
    let container = json!({ "name": "ferruled", "image": "ferrule:1" });
    api.daemon_set("net", "ferrule", &json!({ "containers": [container], "nodeSelector": selector }), &[]);
    let conf = json!({ "name": "cni", "hostPath": { "path": "/etc/cni/net.d" } });
    api.daemon_set(
        "kube-system",
        "kindnet",
        &json!({ "containers": [{ "name": "x" }], "volumes": [conf] }),
        nodes,
    );
    for node in nodes {
        api.node(node, None, None);
        api.step(node, "look", [said("old", false, "imported", &[]), said("old", true, "imported", &[])]);
        api.step(node, "stage", [said("old", false, "imported", &[])]);
        api.step(
            node,
            "take",
            [said("ferrule", true, "imported", &[]), said("ferrule", true, "already", &[])],
        );
    }
    api
}

fn states(answer: &Answer) -> Vec<(String, String)> {
    let document = answer.document().unwrap_or_else(|| panic!("{answer:?}"));
    let nodes = document["nodes"].as_array().unwrap().iter();
    nodes.map(|it| ["node", "state"].map(|key| it[key].as_str().unwrap().to_owned()).into()).collect()
}

fn pair(node: &str, state: &str) -> (String, String) {
    (node.to_owned(), state.to_owned())
}

/// What `ferrulectl` was asked to do on the node.
fn steps(api: &Api, node: &str) -> Vec<String> {
    let asked = api.asked(&format!("migrate-{node}"));
    asked.iter().map(|it| it.split(' ').nth(2).unwrap().to_owned()).collect()
}

#[test]
fn nodes_move_one_after_another_and_each_before_its_conflist() {
    let api = cluster(&["a", "b"]);
    api.label("a", "node-role.kubernetes.io/control-plane", "");
    let answer = api.call(KINDNET).arguments("--output json").run();
    assert_eq!(answer.status.code(), Some(0), "{answer:?}");
    assert_eq!(states(&answer), [pair("b", "moved"), pair("a", "moved")]);
    let document = answer.document().unwrap();
    assert_eq!((&document["nodes"][0]["pods"], &document["nodes"][0]["takenBefore"]), (&json!(1), &json!(0)));
    assert_eq!(document["nodes"][0]["notes"], json!(["shop/web: a note"]));
    let of = |node: &str| {
        let label = format!("label {node} {{\"ferrule.dev/network\":\"ferrule\"}}");
        [format!("make ferrule-migrate-{node}"), label, format!("delete ferrule-migrate-{node}")]
    };
    let written = [vec!["keep off kindnet".to_owned()], of("b").to_vec(), of("a").to_vec()].concat();
    assert_eq!(api.writes(), written);
    // The second look is for the agent's conflist.
    assert_eq!(steps(&api, "b"), ["look", "stage", "look", "take", "take"]);
    let words = "--output json --root /host --conf-dir /etc/cni/net.d --pod-cidr 10.244.1.0/24";
    assert_eq!(api.asked("migrate-a")[0], format!("/ferrulectl migrate look {words}"));
    assert!(answer.stderr.contains("b: moved, 1 pods taken over\n"), "{answer:?}");

    // Again: nothing is left to do, and nothing is written but for the pods that look.
    for node in ["a", "b"] {
        api.step(node, "look", [said("ferrule", true, "already", &[])]);
    }
    let again = api.call(KINDNET).run();
    assert_eq!(again.status.code(), Some(0), "{again:?}");
    assert!(again.text().contains("moved before"), "{}", again.text());
    let new = &api.writes()[written.len()..];
    assert!(new.iter().all(|it| it.contains("ferrule-migrate-")), "{new:?}");
}

#[test]
fn a_node_that_does_not_move_stops_it_and_what_stands_is_told() {
    for (step, problem, stands) in [
        ("look", said("old", false, "imported", &["no room"]), "nothing was changed on it"),
        ("stage", Exec::Refused("error dialing backend".into()), "nothing but the old conflist's name"),
        (
            "take",
            said("old", true, "imported", &["no room"]),
            "still have the old network; ferrule's agent is beside",
        ),
        ("take", said("ferrule", true, "imported", &["no room"]), "new pods get their network from ferrule"),
    ] {
        let api = cluster(&["a", "b"]);
        api.step("a", step, [problem]);
        let answer = api.call(KINDNET).arguments("--output json").run();
        assert_eq!(answer.status.code(), Some(1), "{answer:?}");
        assert_eq!(states(&answer), [pair("a", "failed"), pair("b", "waiting")]);
        let document = answer.document().unwrap();
        let told = document["nodes"][0]["problem"].as_str().unwrap();
        assert!(told.contains(stands) && (told.contains("no room") || told.contains("dialing")), "{told}");
        assert!(document["next"][0].as_str().unwrap().contains("the same command"), "{document}");
        assert_eq!(api.writes().last().unwrap(), "delete ferrule-migrate-a");
        assert!(api.asked("migrate-b").is_empty());
    }
}

#[test]
fn a_dry_run_looks_at_every_node_and_changes_none() {
    let api = cluster(&["a", "b", "c"]);
    api.step("a", "look", [said("old", false, "imported", &["no room"])]);
    let old = "error: unrecognized subcommand 'migrate'\n\nUsage: ferrulectl".to_owned();
    api.step("c", "look", [Exec::Says(Vec::new(), old, 2)]);
    let answer = api.call("migrate --replaces kube-system/kindnet --dry-run --output json").run();
    assert_eq!(answer.status.code(), Some(1), "{answer:?}");
    assert_eq!(states(&answer), [pair("a", "failed"), pair("b", "would-move"), pair("c", "failed")]);
    assert!(answer.text().contains("another version, without `migrate`"), "{}", answer.text());
    let pods = |verb: &str, node: &str| format!("{verb} ferrule-migrate-{node}");
    let written: Vec<String> =
        ["a", "b", "c"].iter().flat_map(|it| [pods("make", it), pods("delete", it)]).collect();
    assert_eq!(api.writes(), written);
    let one = api.call("migrate --replaces kube-system/kindnet --dry-run --node b").run();
    assert_eq!(one.status.code(), Some(0), "{one:?}");
}

#[test]
fn it_does_not_begin_where_a_cluster_is_not_made_ready() {
    let api = cluster(&["a"]);
    for (words, why) in [
        ("migrate --yes", "kube-system/kindnet see /etc/cni/net.d"),
        ("migrate --yes --replaces kube-system/flannel", "there is no DaemonSet kube-system/flannel"),
        ("migrate --replaces none", "--yes"),
        ("migrate --yes --replaces none --node x", "there is no node \"x\""),
    ] {
        let answer = api.call(words).run();
        assert_eq!(answer.status.code(), Some(1), "{answer:?}");
        assert!(answer.stderr.contains(why), "{words}: {answer:?}");
    }
    assert_eq!(api.writes(), [""; 0]);
    let api = Api::new();
    api.node("a", None, None);
    let container = json!({ "name": "ferruled", "image": "ferrule:1" });
    api.daemon_set("net", "ferrule", &json!({ "containers": [container] }), &[]);
    let answer = api.call("migrate --yes").run();
    assert!(answer.stderr.contains("deploy/components/migration"), "{answer:?}");
}

#[test]
fn a_node_that_is_not_ready_is_left_alone() {
    let api = cluster(&["b"]);
    api.node("a", Some("Kubelet stopped posting node status."), None);
    let answer = api.call(KINDNET).run();
    assert_eq!(answer.status.code(), Some(1), "{answer:?}");
    assert!(
        answer.text().contains("a: it is NotReady: Kubelet stopped posting node status."),
        "{}",
        answer.text()
    );
    assert_eq!(api.writes(), ["keep off kindnet"]);
}

#[test]
fn pods_of_the_old_plugin_after_the_swap_are_told() {
    let api = cluster(&["a"]);
    api.step("a", "take", [said("ferrule", true, "imported", &[]), said("ferrule", true, "imported", &[])]);
    let answer = api.call(KINDNET).run();
    assert_eq!(answer.status.code(), Some(0), "{answer:?}");
    assert!(answer.text().contains("still came from the old plugin after the swap"), "{}", answer.text());
    let document: Value = api.call(KINDNET).arguments("--output json --dry-run").run().document().unwrap();
    assert_eq!(document["dryRun"], true);
}
