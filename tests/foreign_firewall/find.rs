//! The doctor names chains that end in a drop. It does not evaluate their rules, and STATUS does not look at them.

use serde_json::{Value, json};

use super::World;
use crate::cli::document;
use kit::pod::Pod;

/// As docker leaves it, with iptables on nf_tables.
#[test]
fn docker_s_drop_is_the_doctor_s_warning_and_status_is_ok() {
    let world = World::new();
    assert_eq!(world.findings(), Vec::<Value>::new());
    world.run("iptables -P FORWARD DROP");
    assert_eq!(world.passing(), "6");
    world.node().status(&world.conf()).success();
    world.expect_one(&[
        "podnet",
        "chain ip filter FORWARD (policy drop)",
        "FERRULE_FORWARD_ACCEPT=auto",
        "ferrulectl sync",
        "iptables -I FORWARD -s 10.244.0.0/24",
    ]);
    // A warning alone is no failure.
    document(world.node(), "doctor", 0);

    world.run("ip6tables -P FORWARD DROP; iptables -P FORWARD ACCEPT");
    assert_eq!(world.passing(), "4");
    world.node().status(&world.conf()).success();
    world.expect_one(&["ip6 filter FORWARD", "ip6tables -I FORWARD -d fd00:244::/64"]);

    // No ADD and no DEL touches it, whatever the conf says.
    let before = world.ruleset();
    let pod = Pod::new("more");
    world.node().add(&pod, &world.accepting());
    world.node().del(&pod, &world.accepting());
    assert_eq!(world.ruleset(), before);
}

/// As the iptables service of RHEL leaves it.
#[test]
fn a_reject_as_last_rule_is_as_good_as_a_policy() {
    let world = World::new();
    world.run(
        "iptables -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT; \
         iptables -A FORWARD -i docker0 -j ACCEPT; \
         iptables -A FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT; \
         iptables -A FORWARD -j REJECT --reject-with icmp-host-prohibited",
    );
    assert_eq!(world.passing(), "6");
    world.expect_one(&["chain ip filter FORWARD (last rule drops)"]);
    world.install(&world.accepting());
    assert_eq!(world.sync()["accepting"][0]["inserted"], 2);
    assert_eq!(world.passing(), "46");
    assert_eq!(world.findings(), Vec::<Value>::new());
}

#[test]
fn chains_that_end_otherwise_are_not_named() {
    let world = World::new();
    world.run(
        "iptables -A FORWARD -i docker0 -j DROP; iptables -P INPUT DROP; iptables -A INPUT -j ACCEPT; \
         nft 'add table inet mine; add chain inet mine sorted { type filter hook forward priority 5; }; \
         add chain inet mine nowhere; add rule inet mine nowhere drop; \
         add rule inet mine sorted drop; add rule inet mine sorted meta mark 7 drop'; \
         nft 'flush chain inet mine sorted'",
    );
    assert_eq!(world.passing(), "46");
    assert_eq!(world.findings(), Vec::<Value>::new());
}

#[test]
fn a_table_of_another_program_is_named_and_never_changed() {
    let world = World::new();
    world.run(
        "nft 'add table inet mine; add chain inet mine routed { type filter hook forward priority 5; policy drop; }; \
         add rule inet mine routed ct state vmap { established : accept, related : accept, invalid : drop }; \
         add table ip nat2; add chain ip nat2 fine { type filter hook forward priority 0; policy accept; }; \
         add rule ip nat2 fine accept'",
    );
    assert_eq!(world.passing(), "");
    world.expect_one(&[
        "chain inet mine routed (policy drop)",
        "nft insert rule inet mine routed ip6 saddr fd00:244::/64 accept",
    ]);
    world.node().status(&world.accepting()).success();
    let before = world.ruleset();
    world.install(&world.accepting());
    let done = world.sync();
    assert_eq!(done["dropping"][0]["chain"], "chain inet mine routed (policy drop)", "{done}");
    assert_eq!(done["accepting"], json!([]));
    assert_eq!(world.ruleset(), before);
    // The commands of the remedy work.
    let remedy = done["dropping"][0]["remedy"].as_str().unwrap();
    world.run(remedy.split(" for example: ").nth(1).unwrap());
    assert_eq!(world.passing(), "46");
}

#[test]
fn firewalld_is_named_with_its_own_remedy() {
    let world = World::new();
    // In brief what `nft list table inet firewalld` prints where nothing was configured.
    world.run(
        "nft 'table inet firewalld {
            chain filter_FORWARD {
                type filter hook forward priority filter + 10; policy accept;
                ct state { established, related } accept
                jump filter_FORWARD_ZONES
                ct state { invalid } drop
                reject with icmpx type admin-prohibited
            }
            chain filter_FORWARD_ZONES { }
        }'",
    );
    assert_eq!(world.passing(), "");
    world.expect_one(&[
        "chain inet firewalld filter_FORWARD",
        "firewall-cmd",
        "--add-source=10.244.0.0/24",
        "--add-source=fd00:244::/64",
    ]);
    world.node().status(&world.conf()).success();
}
