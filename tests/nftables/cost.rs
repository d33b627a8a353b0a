//! What the commands cost: nothing that grows, and no program of others.

use std::fs;

use serde_json::{Value, json};

use kit::node::Node;
use kit::pod::Pod;

/// A conf with all that ferrule does itself where others chain or execute a program: masquerade, hostPorts, bandwidth.
fn conf_with_everything(node: &Node, ports: std::ops::Range<u16>) -> Value {
    let mut conf = node.conf();
    conf["ipMasq"] = json!(true);
    let ports: Vec<Value> =
        ports.map(|port| json!({ "hostPort": port, "containerPort": 80, "protocol": "udp" })).collect();
    conf["runtimeConfig"] = json!({
        "portMappings": ports,
        "bandwidth": { "ingressRate": 8_000_000, "ingressBurst": 80_000, "egressRate": 8_000_000, "egressBurst": 80_000 },
    });
    conf
}

/// P3 of what users suffered: no iptables, nft, tc, conntrack or ip stands between a pod and its network.
#[test]
fn no_command_executes_a_program() {
    let node = Node::new();
    let conf = conf_with_everything(&node, 1000..1002);
    let pod = Pod::new("pod");
    let trace = node.scratch().path().join("trace");
    let watched = |command: &str, conf: &Value| {
        let strace = ["strace", "-f", "-qq", "-e", "trace=execve,execveat", "-o", trace.to_str().unwrap()];
        let call = node.call_for(command, &pod, conf).through(strace);
        let answer = call.run();
        answer.success();
        let seen = fs::read_to_string(&trace).unwrap();
        // strace starts ferrule itself: that it is seen proves that others would be.
        let executed: Vec<&str> = seen.lines().filter(|line| line.contains("exec")).collect();
        assert_eq!(executed.len(), 1, "{command}: {executed:#?}");
        assert!(executed[0].contains("ferrule"), "{executed:?}");
        answer
    };
    let result = watched("ADD", &conf).result();
    let mut with_result = conf.clone();
    with_result["prevResult"] = result;
    watched("CHECK", &with_result);
    watched("STATUS", &conf);
    let mut gc = conf.clone();
    gc["cni.dev/valid-attachments"] = json!([]);
    watched("GC", &gc);
    watched("ADD", &conf);
    watched("DEL", &conf);
    node.expect_nothing_left();
}

/// Messages that a command sends, and bytes that it receives, as strace sees it.
fn messages(node: &Node, command: &str, pod: &Pod, conf: &Value) -> (usize, u64) {
    let trace = node.scratch().path().join("trace");
    let strace =
        ["strace", "-f", "-qq", "-e", "trace=sendto,sendmsg,recvfrom,recvmsg", "-o", trace.to_str().unwrap()];
    node.call_for(command, pod, conf).through(strace).run().success();
    let seen = fs::read_to_string(&trace).unwrap();
    let received: u64 = seen
        .lines()
        .filter(|line| line.contains("recv"))
        .filter_map(|line| line.rsplit_once("= ")?.1.parse::<u64>().ok())
        .sum();
    (seen.lines().filter(|line| line.contains("send")).count(), received)
}

fn expect_no_dearer(alone: [(usize, u64); 2], crowded: [(usize, u64); 2]) {
    for (alone, crowded) in alone.into_iter().zip(crowded) {
        assert!(alone.0 > 5 && alone.1 > 500, "strace saw it: {alone:?}");
        assert_eq!(alone.0, crowded.0);
        assert!(crowded.1 < alone.1 + 200, "{alone:?} {crowded:?}");
    }
}

/// A thousand hostPorts on the node: the next pod with one sends as many messages as the first.
#[test]
fn a_thousand_host_ports_do_not_make_the_next_one_dearer() {
    let node = Node::new();
    let conf_with_ports = |ports| {
        let mut conf = conf_with_everything(&node, ports);
        conf["runtimeConfig"].as_object_mut().unwrap().remove("bandwidth");
        conf
    };
    let conf = conf_with_ports(20..21);
    // The first makes the table.
    node.add(&Pod::new("first"), &node.conf());
    let pod = Pod::with_container("pod");
    let alone = ["ADD", "DEL"].map(|command| messages(&node, command, &pod, &conf));
    for n in 0..10 {
        node.add(&Pod::new("many"), &conf_with_ports(1000 + n * 100..1100 + n * 100));
    }
    expect_no_dearer(alone, ["ADD", "DEL"].map(|command| messages(&node, command, &pod, &conf)));
}

/// The soak's find: the two links of a pod with limits were removed with a look at all links of the node.
#[test]
fn a_pod_with_limits_costs_the_same_among_hundreds_of_links() {
    let node = Node::new();
    let conf = conf_with_everything(&node, 20..21);
    node.add(&Pod::new("first"), &node.conf());
    let pod = Pod::with_container("pod");
    let alone = ["ADD", "DEL"].map(|command| messages(&node, command, &pod, &conf));
    let pairs = (0..200).map(|n| format!("link add others{n} type veth peer name far{n}\n"));
    node.namespace().ip_batch(&pairs.collect::<String>());
    expect_no_dearer(alone, ["ADD", "DEL"].map(|command| messages(&node, command, &pod, &conf)));
}

/// Removed elements make whoever ends next wait for the kernel, in a queue: 80 DELs at once took a second.
#[test]
fn a_del_lets_its_elements_expire_and_has_none_to_remove() {
    let node = Node::new();
    let conf = conf_with_everything(&node, 1000..1002);
    let pod = Pod::new("pod");
    node.add(&pod, &conf);
    let trace = node.scratch().path().join("trace");
    let strace =
        ["strace", "-f", "-qq", "-e", "trace=sendto,sendmsg", "-s", "4096", "-o", trace.to_str().unwrap()];
    node.call_for("DEL", &pod, &conf).through(strace).run().success();
    let seen = fs::read_to_string(&trace).unwrap();
    assert!(seen.contains("NFT_MSG_NEWSETELEM"), "strace sees what is in a transaction: {seen}");
    assert!(!seen.contains("NFT_MSG_DELSETELEM"), "{seen}");
    node.expect_nothing_left();
}

/// The soak's find: STATUS, which is asked every five seconds, listed the routes to all pods and all nodes, whether or not
/// there is a firewall that they have to pass.
#[test]
fn a_status_costs_the_same_among_hundreds_of_pods_and_nodes() {
    let node = Node::new();
    let pod = Pod::with_container("pod");
    node.add(&pod, &node.conf());
    let alone = messages(&node, "STATUS", &pod, &node.conf());
    let routes =
        (0..500).map(|n| format!("route add 10.{}.{}.0/24 dev lo proto 102\n", 100 + n / 250, n % 250));
    node.namespace().ip_batch(&format!("link set lo up\n{}", routes.collect::<String>()));
    let crowded = messages(&node, "STATUS", &pod, &node.conf());
    assert_eq!(crowded.0, alone.0);
    assert!(crowded.1 < alone.1 + 200, "{alone:?} {crowded:?}");
}

/// Found by the soak: a GC with nothing to do read each record five times. It needs two: the store's audit, and the sweep
/// of the table.
#[test]
fn a_gc_with_nothing_to_do_reads_each_record_twice() {
    let node = Node::new();
    let pods: Vec<Pod> = (0..3).map(|n| Pod::with_container(&format!("pod-{n}"))).collect();
    for pod in &pods {
        node.add(pod, &node.conf());
    }
    let mut conf = node.conf();
    let valid = pods.iter().map(|pod| json!({ "containerID": pod.container(), "ifname": "eth0" }));
    conf["cni.dev/valid-attachments"] = valid.collect();
    let trace = node.scratch().path().join("trace");
    let strace = ["strace", "-f", "-qq", "-e", "trace=open,openat", "-o", trace.to_str().unwrap()];
    node.call("GC", &conf).through(strace).run().success();
    let seen = fs::read_to_string(&trace).unwrap();
    for pod in &pods {
        let name = format!("\"{}@eth0\"", pod.container());
        assert_eq!(seen.lines().filter(|line| line.contains(&name)).count(), 2, "{seen}");
    }
}

/// How often a command lists the flows that the kernel tracks, as strace sees it.
fn listings(node: &Node, command: &str, pod: &Pod, conf: &Value) -> usize {
    let trace = node.scratch().path().join("trace");
    let strace = ["strace", "-f", "-qq", "-e", "trace=sendto", "-o", trace.to_str().unwrap()];
    node.call_for(command, pod, conf).through(strace).run().success();
    let seen = fs::read_to_string(&trace).unwrap();
    seen.lines().filter(|line| line.contains("NFNL_SUBSYS_CTNETLINK<<8|IPCTNL_MSG_CT_GET,")).count()
}

/// Each listing goes through all flows of the node: one for each port took 23 seconds for a thousand.
#[test]
fn the_ports_of_a_pod_are_looked_for_in_one_list_a_family() {
    let node = Node::new();
    node.add(&Pod::new("first"), &node.conf());
    for count in [1, 2, 1000] {
        let (pod, conf) = (Pod::new("pod"), conf_with_everything(&node, 20..20 + count));
        for command in ["ADD", "DEL"] {
            assert_eq!(listings(&node, command, &pod, &conf), 2, "{command} with {count} ports");
        }
    }
}

/// All that an ADD writes, a DEL, a CHECK and whoever makes a flushed table again can read.
#[test]
fn thousands_of_ports_survive_the_way_to_disk_and_back() {
    let (node, pod, other) = (Node::new(), Pod::new("pod"), Pod::new("other"));
    let conf = conf_with_everything(&node, 20..5020);
    let result = node.add(&pod, &conf);
    assert!(fs::metadata(node.record_path(&pod)).unwrap().len() > 1 << 18);
    node.check(&pod, &conf, &result).success();
    let elements = || kit::nft::pod_elements(node.namespace()).len();
    let before = elements();
    assert!(before > 10_000, "{before}");
    node.namespace().sh("nft delete table inet ferrule");
    node.add(&other, &node.conf());
    node.del(&other, &node.conf());
    assert_eq!(elements(), before, "as the record has them");
    node.del(&pod, &node.conf());
    node.expect_nothing_left();
}
