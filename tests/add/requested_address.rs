//! A pod that asks for an address: it gets that one, or is told why not.

use serde_json::{Value, json};

use kit::call::Call;
use kit::files::wait_for_words;
use kit::ip;
use kit::netns::Namespace;
use kit::network::Network;
use kit::node::Node;
use kit::packets::answers_ping;
use kit::pod::{Pod, addresses_of, host_link_of};

/// The three ways in which an address can be asked for.
const WAYS: [&str; 3] = ["runtimeConfig.ips", "args.cni.ips", "CNI_ARGS"];

/// ADD as IPAM plugin, asking for `addresses` in one of the `WAYS`.
fn ask(network: &Network, container: &str, way: &str, addresses: &[&str]) -> Call {
    let mut conf = network.conf.clone();
    let call = network.call("ADD").attachment(container, network.node.namespace().path());
    match way {
        "runtimeConfig.ips" => conf["runtimeConfig"] = json!({"ips": addresses}),
        "args.cni.ips" => conf["args"] = json!({"cni": {"ips": addresses}}),
        _ => {
            let pairs: Vec<String> = addresses.iter().map(|address| format!("IP={address}")).collect();
            return call.env("CNI_ARGS", format!("IgnoreUnknown=1;{}", pairs.join(";")));
        }
    }
    call.conf(&conf)
}

fn addresses(result: &Value) -> Vec<&str> {
    result["ips"].as_array().unwrap().iter().map(|ip| ip["address"].as_str().unwrap()).collect()
}

#[test]
fn a_requested_address_is_given_in_every_form() {
    let network = Network::for_ipam("given");
    let forms = ["10.77.1.200", "10.77.1.200/24", "10.77.1.200/32", "::ffff:10.77.1.200"];
    for way in WAYS {
        for form in forms {
            let result = ask(&network, "c1", way, &[form]).run().success();
            let given = addresses(&result);
            assert_eq!(given[0], "10.77.1.200/24", "{way} {form}");
            assert!(given[1].starts_with("fd00:77:1::"), "the other family as always: {given:?}");
            network.call("DEL").attachment("c1", network.node.namespace().path()).run().success();
        }
        if way != "CNI_ARGS" {
            let both = ask(&network, "c1", way, &["fd00:77:1::abcd", "10.77.1.7"]).run().success();
            assert_eq!(addresses(&both), ["10.77.1.7/24", "fd00:77:1::abcd/64"], "in the order of the sets");
            network.call("DEL").attachment("c1", network.node.namespace().path()).run().success();
        }
    }
    network.assert_nothing_remains();
}

/// CNI's conventions: `args` takes the place of CNI_ARGS.
#[test]
fn what_args_asks_for_takes_the_place_of_cni_args() {
    let network = Network::for_ipam("args");
    for (asked, expected) in [
        (json!(["10.77.1.9"]), "10.77.1.9/24"),
        (json!(["10.77.1.9/24", "fd00:77:1::9"]), "10.77.1.9/24"),
        (json!(["fd00:77:1::9"]), "10.77.1.2/24"),
        (json!([]), "10.77.1.50/24"),
    ] {
        let mut conf = network.conf.clone();
        conf["args"] = json!({ "cni": { "ips": asked } });
        let call = |command| {
            let call = network.call(command).attachment("c1", network.node.namespace().path());
            call.env("CNI_ARGS", "IgnoreUnknown=1;IP=10.77.1.50").conf(&conf).run()
        };
        assert_eq!(addresses(&call("ADD").success())[0], expected, "{asked}");
        call("DEL").success();
    }
    network.assert_nothing_remains();
}

/// Multus and the runtime may both pass on the same wish.
#[test]
fn the_same_address_asked_for_in_every_way_at_once_is_one_wish() {
    let mut network = Network::for_ipam("same");
    network.conf["runtimeConfig"] = json!({"ips": ["10.77.1.9/24"]});
    network.conf["args"] = json!({"cni": {"ips": ["10.77.1.9"]}});
    let call =
        network.call("ADD").attachment("c1", network.node.namespace().path()).env("CNI_ARGS", "IP=10.77.1.9");
    assert_eq!(addresses(&call.run().success())[0], "10.77.1.9/24");
}

#[test]
fn what_is_no_address_is_refused_naming_where_it_was_written() {
    let network = Network::for_ipam("malformed");
    for text in [
        "10.77.1",
        "10.77.1.300",
        "10.77.1.5/33",
        "10.77.1.5/x",
        "10.77.1.5/",
        "web-0",
        "fe80::1%eth0",
        "010.77.1.5",
    ] {
        for (way, code) in WAYS.into_iter().zip([7, 7, 4]) {
            let complaint = ask(&network, "c1", way, &[text]).run().complaint(code);
            let place = if way == "CNI_ARGS" { "CNI_ARGS".to_owned() } else { format!("{way}[0]") };
            assert!(complaint.contains(&place) && complaint.contains(text), "{way} {text}: {complaint}");
        }
    }
    network.assert_nothing_remains();
}

#[test]
fn an_address_that_no_pod_can_have_is_refused_and_says_why() {
    let mut network = Network::for_ipam("impossible");
    network.conf["ipam"]["ranges"] = json!([
        [{"subnet": "10.77.1.0/24", "rangeStart": "10.77.1.10", "rangeEnd": "10.77.1.20", "gateway": "10.77.1.15"}],
        [{"subnet": "fd00:77:1::/64"}],
    ]);
    for (address, reason) in [
        ("192.0.2.1", "outside"),
        ("2001:db8::1", "outside"),
        ("10.77.1.9", "outside"),
        ("10.77.1.21", "outside"),
        ("10.77.1.15", "gateway"),
        ("fd00:77:1::", "subnet"),
        ("fd00:77:1::1", "gateway"),
    ] {
        for way in WAYS {
            let complaint = ask(&network, "c1", way, &[address]).run().complaint(7);
            assert!(
                complaint.contains(address) && complaint.contains(reason),
                "{way} {address}: {complaint}"
            );
            network.assert_nothing_remains();
        }
    }
    network.conf["ipam"]["ranges"] = json!([[{"subnet": "10.77.1.0/24"}]]);
    for address in ["10.77.1.0", "10.77.1.1", "10.77.1.255"] {
        let complaint = ask(&network, "c1", "CNI_ARGS", &[address]).run().complaint(7);
        assert!(complaint.contains("cannot be given to a pod"), "{complaint}");
    }
    network.assert_nothing_remains();
}

#[test]
fn a_requested_address_that_is_taken_names_its_holder() {
    let network = Network::for_ipam("taken");
    ask(&network, "holder", "CNI_ARGS", &["10.77.1.50"]).run().success();
    let before = (network.held(), network.known());
    for way in WAYS {
        let complaint = ask(&network, "late", way, &["10.77.1.50"]).run().complaint(101);
        assert!(
            complaint.contains("10.77.1.50") && complaint.contains("net/holder/eth0"),
            "{way}: {complaint}"
        );
    }
    // The second family's address had been free: it is not kept either.
    let complaint =
        ask(&network, "late", "args.cni.ips", &["fd00:77:1::77", "10.77.1.50"]).run().complaint(101);
    assert!(complaint.contains("holder"), "{complaint}");
    assert_eq!((network.held(), network.known()), before);
    assert_eq!(network.store().unfinished(), Vec::<String>::new());
}

#[test]
fn two_addresses_of_one_range_set_are_one_too_many() {
    let network = Network::for_ipam("two");
    for way in ["runtimeConfig.ips", "args.cni.ips"] {
        let complaint = ask(&network, "c1", way, &["10.77.1.5", "10.77.1.6"]).run().complaint(7);
        assert!(complaint.contains("10.77.1.5") && complaint.contains("10.77.1.6"), "{complaint}");
    }
    network.assert_nothing_remains();
}

/// A StatefulSet's pod that comes back wants the address that it just gave up.
#[test]
fn a_freed_address_can_be_requested_at_once() {
    let network = Network::for_ipam("again");
    for container in ["a", "b", "c"] {
        let result = ask(&network, container, "runtimeConfig.ips", &["10.77.1.60"]).run().success();
        assert_eq!(addresses(&result)[0], "10.77.1.60/24");
        network.call("DEL").attachment(container, network.node.namespace().path()).run().success();
    }
}

#[test]
fn the_main_plugin_assigns_the_requested_address() {
    let network = Network::new("main");
    let pod = Namespace::new("pod");
    let call = network.call_for("ADD", "c1", &pod).env("CNI_ARGS", "IP=10.77.1.123");
    assert_eq!(addresses(&call.run().success())[0], "10.77.1.123/32");
    let on_link = ip::addresses(&pod, "eth0");
    assert!(on_link.iter().any(|address| address["local"] == "10.77.1.123"), "{on_link:?}");
}

/// A pod that the runtime never told of, as after a crash of the node's containerd: its namespace and its link are gone.
fn leave_dead(node: &Node, conf: &Value) -> Vec<String> {
    let dead = Pod::new("dead");
    let addresses = addresses_of(&node.add(&dead, conf));
    dead.die();
    node.wait_for_host_links(0);
    addresses
}

/// As a StatefulSet's pod does, whose predecessor died with the node's network.
#[test]
fn a_requested_address_that_the_dead_hold_is_given() {
    let ways = [
        json!({ "runtimeConfig": { "ips": ["10.88.0.77", "fd00:88::77"] } }),
        json!({ "args": { "cni": { "ips": ["10.88.0.77", "fd00:88::77"] } } }),
        json!({ "runtimeConfig": { "io.kubernetes.cri.pod-annotations": { "ferrule.dev/ips": "10.88.0.77,fd00:88::77" } } }),
    ];
    for way in ways {
        let (node, pod) = (Node::new(), Pod::new("pod"));
        let mut conf = node.conf();
        conf.as_object_mut().unwrap().extend(way.as_object().unwrap().clone());
        let held = leave_dead(&node, &conf);
        assert_eq!(held, ["10.88.0.77", "fd00:88::77"]);
        // Another pod that died, with which it has nothing to do, may wait for its DEL.
        let other = leave_dead(&node, &node.conf());
        let result = node.add(&pod, &conf);
        assert_eq!(addresses_of(&result), held, "{way}");
        for address in &held {
            assert!(answers_ping(node.namespace(), address), "{address}");
        }
        assert!(other.iter().all(|address| node.held_addresses().contains(address)), "{other:?}");
        let late = Pod::new("late");
        assert!(node.try_add(&late, &conf).complaint(101).contains(pod.container()), "it lives");
    }
}

#[test]
fn the_dead_give_way_for_each_of_two_families() {
    let (node, pod) = (Node::new(), Pod::new("pod"));
    let mut conf = node.conf_with(json!([[{ "subnet": "10.88.0.8/32" }], [{ "subnet": "fd00:88::/64" }]]));
    // One holds the only address of a full range, and one the address of the other family.
    let mut asking = conf.clone();
    asking["runtimeConfig"] = json!({ "ips": ["fd00:88::77"] });
    conf["runtimeConfig"] = json!({ "ips": ["fd00:88::66"] });
    leave_dead(&node, &conf);
    let only_v6 = node.conf_with(json!([[{ "subnet": "fd00:88::/64" }]]));
    let mut other = only_v6.clone();
    other["runtimeConfig"] = json!({ "ips": ["fd00:88::77"] });
    leave_dead(&node, &other);
    assert_eq!(addresses_of(&node.add(&pod, &asking)), ["10.88.0.8", "fd00:88::77"]);
}

/// What an ADD left that was killed before its end, and whose record is lost, is nobody's; a running pod without a record is.
#[test]
fn what_an_unfinished_add_left_without_a_record_gives_way() {
    let (node, next) = (Node::new(), Pod::new("next"));
    let mut conf = node.conf();
    conf["runtimeConfig"] = json!({ "ips": ["10.88.0.77", "fd00:88::77"] });
    let first = Pod::new("first");
    let link = host_link_of(&node.add(&first, &conf));
    std::fs::remove_dir_all(node.data_dir()).unwrap();
    let said = node.try_add(&next, &conf).complaint(101);
    assert!(said.contains("record is lost") && said.contains(&link), "{said}");
    // The alias is an ADD's last step.
    node.namespace().sh(&format!("ip link set dev {link} alias ''"));
    let result = node.add(&next, &conf);
    assert_eq!(addresses_of(&result), ["10.88.0.77", "fd00:88::77"]);
    assert_eq!(node.host_links(), [host_link_of(&result)]);
    for address in addresses_of(&result) {
        assert!(answers_ping(node.namespace(), &address), "{address}");
    }
    node.del(&next, &conf);
    node.expect_nothing_left();
}

/// Its DEL is at work: as with a full range, it is waited for.
#[test]
fn a_del_that_is_about_to_free_a_requested_address_is_waited_for() {
    let node = Node::new();
    let mut conf = node.conf();
    conf["runtimeConfig"] = json!({ "ips": ["10.88.0.77"] });
    let dead = Pod::new("dead");
    node.add(&dead, &conf);
    dead.die();
    node.wait_for_host_links(0);
    let trace = node.scratch().path().join("trace");
    let slow = "inject=flock:delay_enter=1000000:when=2";
    let strace = ["strace", "-f", "-qq", "-o", trace.to_str().unwrap(), "-e", "trace=flock", "-e", slow];
    let del = node.call_for("DEL", &dead, &conf).through(strace).spawn();
    wait_for_words(&trace, "= 0");
    assert_eq!(addresses_of(&node.add(&Pod::new("next"), &conf))[0], "10.88.0.77");
    del.wait().success();
}

/// A main plugin asks: nothing but the namespace tells whether its pod lives, once its record is a minute old.
#[test]
fn an_ipam_plugin_takes_a_requested_address_from_the_dead() {
    let network = Network::for_ipam("dead");
    let (gone, pod) = (Namespace::new("gone"), Namespace::new("pod"));
    let ask_in = |container: &str, netns: &Namespace| {
        let call = network.call("ADD").attachment(container, netns.path());
        call.env("CNI_ARGS", "IgnoreUnknown=1;IP=10.77.1.50").run()
    };
    ask_in("dead", &gone).success();
    drop(gone);
    let young = ask_in("next", &pod).complaint(101);
    assert!(young.contains("dead"), "its main plugin may still be at work: {young}");
    network.store().rewrite_records(|record| {
        record["created"] = json!(record["created"].as_u64().unwrap() - 3600);
    });
    assert_eq!(addresses(&ask_in("next", &pod).success())[0], "10.77.1.50/24");
    assert_eq!(network.known(), ["next@eth0"]);
    ask_in("late", &pod).failure(101);
}
