//! A pod's annotations, as containerd hands them over: what the pod asks for is what it gets.

use serde_json::{Value, json};

use kit::answer::Answer;
use kit::ip;
use kit::node::Node;
use kit::pod::{Pod, addresses_of};

const CAPABILITY: &str = "io.kubernetes.cri.pod-annotations";

fn annotated(node: &Node, annotations: Value) -> Value {
    let mut conf = node.conf();
    conf["runtimeConfig"] = json!({ CAPABILITY: annotations });
    conf
}

fn all_four() -> Value {
    json!({
        "kubectl.kubernetes.io/last-applied-configuration": "{\"kind\": \"Pod\"}\n",
        "ferrule.dev/ips": "10.88.0.77, fd00:88::77",
        "ferrule.dev/mac": "0a:58:0a:f4:01:05",
        "ferrule.dev/mtu": "1400",
        "ferrule.dev/routes": "[{\"dst\": \"203.0.113.0/24\", \"mtu\": 1300}, {\"dst\": \"0.0.0.0/0\", \"advmss\": 1200}]\n",
    })
}

fn mac_of(result: &Value) -> &str {
    result["interfaces"][1]["mac"].as_str().unwrap()
}

#[test]
fn a_pod_gets_what_its_annotations_ask_for_and_check_agrees() {
    let (node, pod) = (Node::new(), Pod::new("pod"));
    let conf = annotated(&node, all_four());
    let result = node.add(&pod, &conf);
    assert_eq!(addresses_of(&result), ["10.88.0.77", "fd00:88::77"]);
    assert_eq!(pod.addresses(), ["10.88.0.77/32", "fd00:88::77/128"]);
    let link = ip::link(pod.namespace(), "eth0").unwrap();
    assert_eq!((&link["address"], &link["mtu"]), (&json!("0a:58:0a:f4:01:05"), &json!(1400)));
    let route = |destination: &str| {
        let routes = ip::routes(pod.namespace(), "-4");
        let found: Vec<Value> = routes.into_iter().filter(|route| route["dst"] == destination).collect();
        assert_eq!(found.len(), 1, "{destination}: {found:?}");
        found[0].to_string()
    };
    assert!(route("203.0.113.0/24").contains("\"mtu\":1300"));
    assert!(route("default").contains("\"advmss\":1200"), "in the place of the conf's");
    assert!(result["routes"].as_array().unwrap().iter().any(|route| route["dst"] == "203.0.113.0/24"));
    node.check(&pod, &conf, &result).success();
    pod.namespace().ip("route delete 203.0.113.0/24");
    let told = node.check(&pod, &conf, &result).complaint(105);
    assert!(told.contains("route 203.0.113.0/24"), "{told}");
    // A runtime need not repeat them.
    node.del(&pod, &node.conf());
    node.expect_nothing_left();
}

#[test]
fn what_the_runtime_asks_for_itself_comes_first() {
    let (node, pod) = (Node::new(), Pod::new("pod"));
    let mut conf = annotated(&node, all_four());
    conf["mtu"] = json!(1300);
    conf["runtimeConfig"]["ips"] = json!(["10.88.0.9"]);
    conf["runtimeConfig"]["mac"] = json!("02:11:22:33:44:55");
    let result = node.add(&pod, &conf);
    let given = addresses_of(&result);
    assert_eq!(given[0], "10.88.0.9");
    assert_ne!(given[1], "fd00:88::77", "the wishes are not mixed");
    assert_eq!(mac_of(&result), "02:11:22:33:44:55");
    assert_eq!(
        ip::link(pod.namespace(), "eth0").unwrap()["mtu"],
        1400,
        "the pod's comes before the network's"
    );
    node.del(&pod, &conf);

    let conf = annotated(&node, all_four());
    let call = node.call_for("ADD", &pod, &conf).args("IP=10.88.0.10;MAC=02:11:22:33:44:66");
    let result = call.run().result();
    assert_eq!((addresses_of(&result)[0].as_str(), mac_of(&result)), ("10.88.0.10", "02:11:22:33:44:66"));
}

#[test]
fn every_problem_names_its_annotation_and_nothing_is_made() {
    let (node, pod) = (Node::new(), Pod::new("pod"));
    let refused = |annotations: Value| -> Answer { node.try_add(&pod, &annotated(&node, annotations)) };
    let told = refused(json!({
        "ferrule.dev/ips": "10.88.0.300", "ferrule.dev/mac": "x", "ferrule.dev/mtu": "100",
        "ferrule.dev/routes": "[{\"dst\": \"203.0.113.1/24\"}]",
    }))
    .complaint(7);
    for place in ["ips\"]: ", "mac\"]: ", "mtu\"]: ", "routes\"][0].dst: "] {
        let path = format!("runtimeConfig[\"{CAPABILITY}\"][\"ferrule.dev/{place}");
        assert!(told.contains(&path), "{path} in {told}");
    }
    let told = refused(json!({ "ferrule.dev/ips": "192.0.2.1" })).complaint(7);
    assert!(told.contains("192.0.2.1") && told.contains("outside"), "{told}");
    let told = refused(json!(["ferrule.dev/ips"])).complaint(7);
    assert!(told.contains(CAPABILITY), "{told}");
    node.expect_nothing_left();
}

/// host-local gives the address, and the pod its route.
#[test]
fn routes_are_added_to_those_of_another_ipam_plugin() {
    let (node, pod) = (Node::new(), Pod::new("pod"));
    let mut conf = annotated(&node, json!({ "ferrule.dev/routes": "[{\"dst\": \"203.0.113.0/24\"}]" }));
    conf["cniVersion"] = json!("1.0.0");
    conf["dataDir"] = json!(node.data_dir());
    conf["ipam"] = json!({
        "type": "host-local", "subnet": "10.88.0.0/24", "dataDir": node.scratch().path().join("host-local"),
        "routes": [{ "dst": "198.51.100.0/24" }],
    });
    let result = node.add(&pod, &conf);
    let routes = ip::routes(pod.namespace(), "-4");
    for destination in ["203.0.113.0/24", "198.51.100.0/24"] {
        assert!(routes.iter().any(|route| route["dst"] == destination), "{destination}: {routes:?}");
    }
    node.check(&pod, &conf, &result).success();
    node.del(&pod, &conf);
    node.expect_nothing_left();
}
