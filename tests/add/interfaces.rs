//! Several interfaces of one pod, as multus has them: each address answers by its own.

use serde_json::{Value, json};

use kit::answer::Answer;
use kit::ip;
use kit::node::{Node, OUTSIDE_V4, OUTSIDE_V6};
use kit::packets::answers_ping;
use kit::pod::{Pod, addresses_of};

/// The network of [`Node::conf`], and another one.
fn confs(node: &Node) -> [Value; 2] {
    node.outside().ip("route add 10.89.0.0/24 via 198.18.0.2");
    node.outside().ip("route add fd00:89::/64 via fd00:18::2");
    let mut second = node.conf_with(json!([[{ "subnet": "10.89.0.0/24" }], [{ "subnet": "fd00:89::/64" }]]));
    second["name"] = json!("second");
    [node.conf(), second]
}

fn call(node: &Node, command: &str, pod: &Pod, conf: &Value, interface: &str) -> Answer {
    node.call_for(command, pod, conf).env("CNI_IFNAME", interface).run()
}

fn check(node: &Node, pod: &Pod, conf: &Value, interface: &str, result: &Value) -> Answer {
    let mut conf = conf.clone();
    conf["prevResult"] = result.clone();
    call(node, "CHECK", pod, &conf, interface)
}

/// By ping, from the node, from another pod of each network, and from outside.
fn expect_answers(node: &Node, askers: &[Pod], addresses: &[String]) {
    let askers = askers.iter().map(Pod::namespace).chain([node.namespace(), node.outside()]);
    for asker in askers {
        for address in addresses {
            assert!(answers_ping(asker, address), "{address} from {}", asker.name());
        }
    }
}

/// A pod with `eth0` of one network and `net1` of another or the same; with all that looks at reverse paths at `rp_filter`.
fn live(node: &Node, first: &Value, second: &Value, rp_filter: u8) {
    let pod = Pod::new("pod");
    pod.namespace().forward(rp_filter);
    let askers = [Pod::new("one"), Pod::new("other")];
    let results =
        [call(node, "ADD", &pod, first, "eth0").result(), call(node, "ADD", &pod, second, "net1").result()];
    for (asker, conf) in askers.iter().zip([first, second]) {
        node.add(asker, conf);
    }
    let all: Vec<String> = results.iter().flat_map(addresses_of).collect();
    assert_eq!(all.len(), 4);
    expect_answers(node, &askers, &all);
    check(node, &pod, first, "eth0", &results[0]).success();
    check(node, &pod, second, "net1", &results[1]).success();
    // What it sends to each of them, without having chosen an address.
    for to in [OUTSIDE_V4, OUTSIDE_V6] {
        assert!(answers_ping(pod.namespace(), to), "{to}");
    }

    call(node, "DEL", &pod, first, "eth0").success();
    expect_answers(node, &askers, &addresses_of(&results[1]));
    for to in [OUTSIDE_V4, OUTSIDE_V6] {
        assert!(answers_ping(pod.namespace(), to), "{to} by what is left");
    }
    check(node, &pod, second, "net1", &results[1]).success();

    // It comes again, under the same name, and what was left of it misleads nobody.
    let again = call(node, "ADD", &pod, first, "eth0").result();
    let all: Vec<String> = [&again, &results[1]].into_iter().flat_map(addresses_of).collect();
    expect_answers(node, &askers, &all);
    check(node, &pod, first, "eth0", &again).success();
    call(node, "DEL", &pod, second, "net1").success();
    expect_answers(node, &askers, &addresses_of(&again));
    check(node, &pod, first, "eth0", &again).success();
    call(node, "DEL", &pod, first, "eth0").success();
    for (asker, conf) in askers.iter().zip([first, second]) {
        node.del(asker, conf);
    }
    node.expect_nothing_left();
}

#[test]
fn two_interfaces_in_one_network_answer_each_by_its_own() {
    let node = Node::new();
    let [conf, _] = confs(&node);
    for rp_filter in [1, 2] {
        live(&node, &conf, &conf, rp_filter);
    }
}

#[test]
fn two_interfaces_in_two_networks_answer_each_by_its_own() {
    let node = Node::new();
    let [first, second] = confs(&node);
    for rp_filter in [1, 2] {
        live(&node, &first, &second, rp_filter);
    }
}

/// Then the second network's subnet is the only thing that leads to it, and is in the way of the first one's answers.
#[test]
fn a_second_network_without_a_default_route_answers_as_well() {
    let node = Node::new();
    let [first, mut second] = confs(&node);
    second["ipam"].as_object_mut().unwrap().remove("routes");
    let (pod, asker) = (Pod::new("pod"), Pod::new("asker"));
    let first = call(&node, "ADD", &pod, &first, "eth0").result();
    let result = call(&node, "ADD", &pod, &second, "net1").result();
    let mut of_second = second.clone();
    of_second["ipam"]["routes"] = json!([{ "dst": "0.0.0.0/0" }, { "dst": "::/0" }]);
    node.add(&asker, &of_second);
    let all: Vec<String> = [&first, &result].into_iter().flat_map(addresses_of).collect();
    expect_answers(&node, &[asker], &all);
}

/// As behind another plugin, with multus: its interface and its routes are its own.
#[test]
fn an_interface_beside_one_of_another_plugin_answers_by_its_own() {
    let (node, pod) = (Node::new(), Pod::new("pod"));
    pod.namespace().ip_batch(
        "link add eth0 type veth peer name far\nlink set eth0 up\nlink set far up\n\
         address add 172.20.0.2/24 dev eth0\naddress add fd00:20::2/64 dev eth0 nodad\n\
         route add default via 172.20.0.1\nroute add default via fd00:20::1\n",
    );
    let conf = node.conf();
    let result = call(&node, "ADD", &pod, &conf, "net1").result();
    expect_answers(&node, &[], &addresses_of(&result));
    check(&node, &pod, &conf, "net1", &result).success();
    let default = ip::routes(pod.namespace(), "-4 default");
    assert_eq!((default.len(), &default[0]["dev"]), (2, &json!("eth0")), "{default:?}");
    let rules = pod.namespace().ip("-4 rule show");
    assert!(rules.contains("from 10.88.0.2 lookup") && !rules.contains("172.20.0.2"), "{rules}");
}

/// They would come before routes that the pod or a plugin behind ferrule adds.
#[test]
fn a_pod_with_one_interface_has_no_rules() {
    let (node, pod) = (Node::new(), Pod::new("pod"));
    node.add(&pod, &node.conf());
    for family in ["-4", "-6"] {
        assert!(!pod.namespace().ip(&format!("{family} rule show")).contains("from 10.88"));
        assert!(!pod.namespace().ip(&format!("{family} rule show")).contains("from fd00"));
    }
    assert_eq!(ip::routes(pod.namespace(), "-4 default").len(), 1);
}

#[test]
fn a_rule_that_somebody_removed_is_told_by_check() {
    let node = Node::new();
    let [first, second] = confs(&node);
    let pod = Pod::new("pod");
    call(&node, "ADD", &pod, &first, "eth0").success();
    let result = call(&node, "ADD", &pod, &second, "net1").result();
    pod.namespace().ip("-6 rule delete from fd00:89::2");
    let said = check(&node, &pod, &second, "net1", &result).complaint(105);
    assert!(said.contains("fd00:89::2") && said.contains("no rule leads"), "{said}");
}
