//! What the node's own firewall drops between the node and its pods, or of VXLAN: the doctor names the chain, and what it
//! tells to do helps.

use ferrule::desired::names::{OVERLAY_DEVICE, OVERLAY_GROUP};
use serde_json::Value;

use super::{World, ping_soon, run};

const NODE: [&str; 2] = ["192.168.77.10", "fd77::10"];

fn found(world: &World) -> Vec<Value> {
    let answer = crate::cli::verb(world.node(), "doctor --output json").run();
    let mut findings = answer.document().unwrap()["findings"].as_array().unwrap().clone();
    findings.retain(|finding| finding["id"] == "node-drops");
    assert!(findings.iter().all(|it| it["severity"] == "warning"), "{findings:#?}");
    findings
}

/// Whether a pod reaches its node, and the node its pod, each by both families.
fn reached(world: &World) -> [[bool; 2]; 2] {
    let (pod, node) = (world.pods[0].namespace(), world.node().namespace());
    [
        NODE.map(|address| ping_soon(pod, address)),
        [0, 1].map(|family| ping_soon(node, &world.addresses[0][family])),
    ]
}

/// Does what the findings tell; then nothing is found any more.
fn remedy(world: &World, findings: &[Value]) {
    for finding in findings {
        let remedy = finding["remedy"].as_str().unwrap();
        world.run(remedy.strip_prefix("if nothing in it does: ").unwrap());
    }
    assert_eq!(found(world), Vec::<Value>::new());
}

/// As on many a node: what nobody asked for does not come in.
#[test]
fn a_drop_of_what_pods_send_to_their_node_is_named() {
    let world = World::new();
    assert_eq!(found(&world), Vec::<Value>::new());
    for (program, family, subnet) in
        [("iptables", "ip", "10.244.0.0/24"), ("ip6tables", "ip6", "fd00:244::/64")]
    {
        world.run(&format!(
            "{program} -A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT; \
             {program} -A INPUT -i lo -j ACCEPT; {program} -P INPUT DROP"
        ));
        let is_ipv4 = family == "ip";
        assert_eq!(reached(&world), [[!is_ipv4, is_ipv4], [true, true]], "{program}");
        let findings = found(&world);
        assert_eq!(findings.len(), 1, "{findings:#?}");
        let says = format!("chain {family} filter INPUT (policy drop) drops what pods send to this node");
        assert!(findings[0]["found"].as_str().unwrap().starts_with(&says), "{findings:#?}");
        assert!(findings[0]["remedy"].as_str().unwrap().contains(subnet), "{findings:#?}");
        remedy(&world, &findings);
        assert_eq!(reached(&world), [[true; 2]; 2], "{program}");
        world.node().status(&world.conf()).success();
    }
}

#[test]
fn a_drop_of_what_a_node_sends_to_its_pods_is_named() {
    let world = World::new();
    world.run(
        "iptables -A OUTPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT; iptables -A OUTPUT -o lo -j ACCEPT; \
         iptables -A OUTPUT -j REJECT",
    );
    assert_eq!(reached(&world), [[true, true], [false, true]]);
    let findings = found(&world);
    assert_eq!(findings.len(), 1, "{findings:#?}");
    let says = "chain ip filter OUTPUT (last rule drops) drops what this node sends to its pods";
    assert!(findings[0]["found"].as_str().unwrap().starts_with(says), "{findings:#?}");
    remedy(&world, &findings);
    assert_eq!(reached(&world), [[true; 2]; 2]);
}

/// Of both families in one table, which is nobody's that is known.
#[test]
fn a_table_of_an_administrators_own_is_told_in_nft_s_words() {
    let world = World::new();
    world.run(
        "nft add table inet host
         nft 'add chain inet host in { type filter hook input priority 0; policy drop; }'
         nft add rule inet host in ct state established,related accept
         nft 'add rule inet host in icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept'",
    );
    assert_eq!(reached(&world), [[false, false], [true, true]]);
    let findings = found(&world);
    assert_eq!(findings.len(), 1, "{findings:#?}");
    remedy(&world, &findings);
    assert_eq!(reached(&world), [[true; 2]; 2]);
    let listed = world.run("nft list chain inet host in");
    assert!(listed.contains("ip saddr 10.244.0.0/24 accept comment \"ferrule-node: podnet\""), "{listed}");
}

#[test]
fn a_drop_of_vxlan_is_named_where_there_is_an_overlay() {
    let world = World::new();
    let nodes = &world.underlay.nodes;
    for (n, other) in [(0, 1), (1, 0)] {
        run(
            nodes[n].namespace(),
            &format!(
                "ip link add {OVERLAY_DEVICE} group {OVERLAY_GROUP} type vxlan id 4096 dstport 8472 nolearning \
                     local 192.168.77.1{n} remote 192.168.77.1{other}
                 ip address add 172.31.0.1{n}/24 dev {OVERLAY_DEVICE}
                 ip link set {OVERLAY_DEVICE} up"
            ),
        );
    }
    let passes = || ping_soon(nodes[1].namespace(), "172.31.0.10");
    assert!(passes());
    world.run(
        "iptables -A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT; iptables -A INPUT -p icmp -j ACCEPT; \
         iptables -P INPUT DROP",
    );
    // The tunnel of before is known to conntrack.
    world.run("conntrack -D -p udp >/dev/null 2>&1 || true");
    assert!(!passes());
    let findings = found(&world);
    let words: Vec<&str> = findings.iter().map(|it| it["found"].as_str().unwrap()).collect();
    assert!(
        words.len() == 2 && words.iter().any(|it| it.contains("VXLAN from other nodes (UDP port 8472)")),
        "{words:?}"
    );
    remedy(&world, &findings);
    assert!(passes());
}
