//! Policies beside what else a pod or its node has: limits of bandwidth, plugins of a chain, the IPAM role, and tables of
//! docker and firewalld.

use serde_json::json;

use super::world::{PORT, World, nothing, only, reaches};
use kit::binaries::{FERRULE, REFERENCE_PLUGINS};
use kit::call::Call;
use kit::pod::{Pod, addresses_of};
use kit::process::run_in;

/// Pods `a`, which only `b` may reach, and `b` and `c`.
fn judged(world: &World) -> [super::world::Member; 3] {
    let pods = ["a", "b", "c"].map(|name| world.pod("shop", name, json!({ "app": name })));
    world.policy("shop", "some", only("a", "b"));
    let [a, b, c] = &pods;
    world.expect("allowed", b, a, true);
    world.expect("forbidden", c, a, false);
    world.expect("forbidden", a, c, false);
    pods
}

/// What a pod sends comes to its node's tables by way of another link, and is that of the pod's link again by then.
#[test]
fn a_pod_with_limited_bandwidth_is_judged() {
    let world = World::new("limited");
    let uid = world.schedule("shop", "a", json!({ "app": "a" }));
    let mut conf = world.node.conf();
    conf["runtimeConfig"] = json!({ "bandwidth": {
        "ingressRate": 80_000_000, "ingressBurst": 8_000_000, "egressRate": 80_000_000, "egressBurst": 8_000_000 } });
    let a = world.attach_with("shop", "a", &uid, &conf);
    world.tell_addresses(&a);
    let pod = |name: &str| world.pod("shop", name, json!({ "app": name }));
    let (b, c) = (pod("b"), pod("c"));
    world.expect("before any policy", &a, &c, true);
    world.policy("shop", "some", only("a", "b"));
    world.expect("forbidden", &a, &c, false);
    world.expect("forbidden", &c, &a, false);
    world.expect("allowed", &a, &b, true);
    world.expect("allowed", &b, &a, true);
}

/// The reference plugin `tuning` behind ferrule, which gives the pod another MTU, and portmap behind that.
#[test]
fn a_pod_of_a_chain_is_judged() {
    let world = World::new("chain");
    let uid = world.schedule("shop", "a", json!({ "app": "a" }));
    let a = world.attach("shop", "a", &uid);
    let mut previous = a.result.clone();
    for (plugin, more) in [
        ("tuning", json!({ "mtu": 1400 })),
        (
            "portmap",
            json!({ "runtimeConfig": { "portMappings": [
            { "hostPort": 30_080, "containerPort": PORT, "protocol": "udp" }] } }),
        ),
    ] {
        let mut conf =
            json!({ "cniVersion": "1.0.0", "name": "podnet", "type": plugin, "prevResult": previous });
        conf["prevResult"]["cniVersion"] = json!("1.0.0");
        conf.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let call = Call::reference(plugin, "ADD").on(&world.node.namespace).conf(&conf);
        let call = call.env("CNI_PATH", REFERENCE_PLUGINS);
        previous = call.attachment(a.pod.container(), a.pod.namespace().path()).run().result();
    }
    world.tell_addresses(&a);
    let pod = |name: &str| world.pod("shop", name, json!({ "app": name }));
    let (b, c) = (pod("b"), pod("c"));
    world.policy("shop", "some", only("a", "b"));
    world.expect("forbidden", &c, &a, false);
    world.expect("forbidden", &a, &c, false);
    world.expect("allowed", &b, &a, true);
    world.expect("allowed", &a, &b, true);
    assert!(a.pod.namespace().ip("link show eth0").contains("mtu 1400"), "the chain's work");
}

/// Another plugin makes the links there, so nothing of the pod is ferrule's to judge; the others are judged as ever.
#[test]
fn a_pod_whose_addresses_alone_are_ferrules_has_no_policies() {
    let world = World::new("ipam");
    let [a, b, c] = judged(&world);
    let scratch = world.node.path("plugins");
    std::fs::create_dir(&scratch).unwrap();
    std::os::unix::fs::symlink(&*FERRULE, scratch.join("ferrule")).unwrap();
    let conf = json!({ "cniVersion": "1.0.0", "name": "othernet", "type": "ptp", "ipam": {
        "type": "ferrule", "dataDir": world.node.path("data"), "ranges": [[{ "subnet": "10.77.0.0/24" }]],
        "routes": [{ "dst": "0.0.0.0/0" }] } });
    let pod = Pod::new("other");
    let path = format!("{}:{REFERENCE_PLUGINS}", scratch.display());
    let words = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=other;K8S_POD_UID=7f4f8a66-0b4f-4f0e-8f7c-0000000000ff";
    let call = |command: &str| {
        let call =
            Call::reference("ptp", command).on(&world.node.namespace).conf(&conf).env("CNI_PATH", &path);
        call.attachment(pod.container(), pod.namespace().path()).args(words)
    };
    let address = addresses_of(&call("ADD").run().result()).remove(0);
    world.policy("shop", "all", json!({ "podSelector": {}, "policyTypes": ["Ingress", "Egress"] }));
    world.expect("closed by now", &c, &b, false);
    let _server = super::world::Answering::start(pod.namespace(), &address, PORT);
    assert!(reaches(&world.node.namespace, &address, PORT, false));
    let table = world.node.nft("list table inet ferrule-policy");
    assert!(!table.contains(&address), "{table}");
    world.expect("closed as well", &b, &a, false);
    world.remove_policy("shop", "all");
    world.expect("allowed again", &b, &a, true);
    assert!(!world.node.log().contains("step failed"), "{}", world.node.log());
    call("DEL").run().success();
}

/// What docker does to FORWARD when it starts, and its own chains.
#[test]
fn policies_hold_beside_dockers_chains() {
    let world = World::new("docker");
    let [a, b, c] = judged(&world);
    world.node.namespace.sh("iptables -N DOCKER-USER; iptables -A DOCKER-USER -j RETURN
         iptables -P FORWARD DROP; iptables -I FORWARD -j DOCKER-USER
         iptables -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT");
    world.expect("the agent's accept rules", &b, &a, true);
    world.expect("forbidden all the same", &c, &a, false);
    world.expect("forbidden all the same", &a, &c, false);
    world.policy("shop", "closed", nothing("b"));
    world.expect("closed", &a, &b, false);
    world.remove_policy("shop", "closed");
    world.expect("open again", &a, &b, true);
}

/// firewalld's chains are at the priority that those of policies have, before them or behind them: by who came first.
#[test]
fn policies_hold_beside_firewallds_table_whoever_came_first() {
    let firewalld = "table inet firewalld {
        chain filter_FORWARD { type filter hook forward priority filter + 10; policy accept;
            ct state established,related accept
            ip saddr 10.244.0.0/16 accept
            ip6 saddr fd00::/8 accept
            reject with icmpx type admin-prohibited
        }
        chain filter_INPUT { type filter hook input priority filter + 10; policy accept;
            ct state established,related accept
            iifname lo accept
            ip saddr 10.244.0.0/16 accept
            ip6 saddr fd00::/8 accept
            reject with icmpx type admin-prohibited
        }
    }";
    let world = World::new("firewalld");
    let load = || drop(run_in(&world.node.namespace, "nft", ["-f", "-"], firewalld).unwrap());
    load();
    let [a, b, c] = judged(&world);
    // A reload: it goes and comes again, behind.
    world.node.nft("delete table inet firewalld");
    load();
    world.expect("allowed", &b, &a, true);
    world.expect("forbidden", &c, &a, false);
    world.expect("forbidden", &a, &c, false);
}
