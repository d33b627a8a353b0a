//! `forwardAccept`: what `ferrulectl sync` puts into iptables' chains, and `ferrulectl uninstall` takes away.

use serde_json::{Value, json};

use super::{World, without_counts};
use crate::cli::document;

const SAVE: &str = "iptables-save; ip6tables-save";

#[test]
fn sync_inserts_accept_rules_and_uninstall_removes_them() {
    let world = World::new();
    world.run(
        "iptables -P FORWARD DROP; ip6tables -P FORWARD DROP; \
         iptables -A FORWARD -i docker0 -j ACCEPT; ip6tables -A FORWARD -o docker0 -j DROP",
    );
    let before = world.run(SAVE);
    assert_eq!(world.passing(), "");

    let done = world.sync();
    assert_eq!(done["dropping"].as_array().unwrap().len(), 2, "{done}");
    assert_eq!(without_counts(&world.run(SAVE)), without_counts(&before));

    world.install(&world.accepting());
    let done = world.sync();
    let chain = |name: &str, inserted: u32| json!({ "chain": name, "inserted": inserted, "removed": 0 });
    assert_eq!(
        done["accepting"],
        json!([chain("ip filter FORWARD", 2), chain("ip6 filter FORWARD", 2)]),
        "{done}"
    );
    assert_eq!(world.passing(), "46");
    world.node().status(&world.accepting()).success();
    assert_eq!(world.findings(), Vec::<serde_json::Value>::new());
    let comment = "-m comment --comment \"ferrule: podnet\" -j ACCEPT";
    assert_eq!(
        world.run("iptables -S FORWARD"),
        format!(
            "-P FORWARD DROP\n-A FORWARD -s 10.244.0.0/24 {comment}\n-A FORWARD -d 10.244.0.0/24 {comment}\n\
             -A FORWARD -i docker0 -j ACCEPT\n"
        )
    );
    assert_eq!(
        world.run("ip6tables -S FORWARD"),
        format!(
            "-P FORWARD DROP\n-A FORWARD -s fd00:244::/64 {comment}\n-A FORWARD -d fd00:244::/64 {comment}\n\
             -A FORWARD -o docker0 -j DROP\n"
        )
    );

    // Again: nothing more.
    let once = world.run(SAVE);
    let done = world.sync();
    assert_eq!(
        done["accepting"],
        json!([chain("ip filter FORWARD", 0), chain("ip6 filter FORWARD", 0)]),
        "{done}"
    );
    assert_eq!(without_counts(&world.run(SAVE)), without_counts(&once));

    let foreseen = document(world.node(), "uninstall --dry-run --yes-pods-lose-their-network", 0);
    assert_eq!(without_counts(&world.run(SAVE)), without_counts(&once));
    let removed = document(world.node(), "uninstall --yes-pods-lose-their-network", 0);
    for told in [foreseen, removed] {
        let is_of_chain =
            |it: &&Value| it["what"].as_str().is_some_and(|what| what.contains("filter FORWARD"));
        let rules = told["removed"].as_array().unwrap().iter().filter(is_of_chain);
        assert_eq!(rules.count(), 4, "{told}");
    }
    assert_eq!(without_counts(&world.run(SAVE)), without_counts(&before));
    assert_eq!(
        world.run("iptables -S"),
        "-P INPUT ACCEPT\n-P FORWARD DROP\n-P OUTPUT ACCEPT\n-A FORWARD -i docker0 -j ACCEPT\n"
    );
}

/// iptables takes the rules for its own: it deletes one by what it prints, and restores what it saved.
#[test]
fn iptables_can_work_with_the_rules() {
    let world = World::new();
    world.run("iptables -P FORWARD DROP; ip6tables -P FORWARD ACCEPT");
    world.install(&world.accepting());
    world.sync();
    world.run("iptables -D FORWARD -s 10.244.0.0/24 -m comment --comment 'ferrule: podnet' -j ACCEPT");
    assert_eq!(world.passing(), "6");
    let done = world.sync();
    assert_eq!((&done["accepting"][0]["inserted"], &done["accepting"][0]["removed"]), (&json!(2), &json!(1)));
    let saved = world.run("iptables-save");
    world.run("iptables-save > $$.rules; iptables -F FORWARD; iptables-restore < $$.rules; rm $$.rules");
    assert_eq!(without_counts(&world.run("iptables-save")), without_counts(&saved));
    assert_eq!(world.passing(), "46");
    world.sync();
    assert_eq!(without_counts(&world.run("iptables-save")), without_counts(&saved));
}

#[test]
fn where_docker_is_its_chain_for_administrators_is_used() {
    let world = World::new();
    world.run(
        "for chain in DOCKER DOCKER-USER DOCKER-ISOLATION-STAGE-1 DOCKER-ISOLATION-STAGE-2; do iptables -N $chain; done
         iptables -P FORWARD DROP
         iptables -A FORWARD -j DOCKER-USER
         iptables -A FORWARD -j DOCKER-ISOLATION-STAGE-1
         iptables -A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
         iptables -A FORWARD -o docker0 -j DOCKER
         iptables -A FORWARD -i docker0 ! -o docker0 -j ACCEPT
         iptables -A FORWARD -i docker0 -o docker0 -j ACCEPT
         iptables -A DOCKER -d 172.17.0.2/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 80 -j ACCEPT
         iptables -A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
         iptables -A DOCKER-ISOLATION-STAGE-1 -j RETURN
         iptables -A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP
         iptables -A DOCKER-ISOLATION-STAGE-2 -j RETURN
         iptables -A DOCKER-USER -j RETURN",
    );
    let before = world.run("iptables-save");
    assert_eq!(world.passing(), "6");
    world.expect_one(&["iptables -I DOCKER-USER -s 10.244.0.0/24 -j ACCEPT"]);
    world.install(&world.accepting());
    assert_eq!(world.sync()["accepting"][0]["chain"], "ip filter DOCKER-USER");
    assert_eq!(world.passing(), "46");
    let docker_user = world.run("iptables -S DOCKER-USER");
    let lines: Vec<&str> = docker_user.lines().collect();
    assert_eq!(lines.len(), 4, "{docker_user}");
    assert!(lines[1].contains("-s 10.244.0.0/24") && lines[3] == "-A DOCKER-USER -j RETURN", "{docker_user}");
    document(world.node(), "uninstall --yes-pods-lose-their-network", 0);
    assert_eq!(without_counts(&world.run("iptables-save")), without_counts(&before));
}

#[test]
fn the_rules_follow_the_conf() {
    let world = World::new();
    world.run("iptables -P FORWARD DROP");
    let before = world.run("iptables-save");
    world.install(&world.accepting());
    world.sync();
    let mut other = world.accepting();
    other["ipam"]["ranges"] = json!([[{ "subnet": "10.245.0.0/25" }]]);
    world.install(&other);
    let done = world.sync();
    assert_eq!(done["accepting"], json!([{ "chain": "ip filter FORWARD", "inserted": 2, "removed": 2 }]));
    let rules = world.run("iptables -S FORWARD");
    assert!(rules.contains("-d 10.245.0.0/25") && !rules.contains("10.244."), "{rules}");
    // Those of another network are none of this one's business.
    world.run("iptables -I FORWARD -s 10.9.0.0/16 -m comment --comment 'ferrule: other' -j ACCEPT");
    other["forwardAccept"] = json!(false);
    world.install(&other);
    let done = world.sync();
    assert_eq!(done["rulesRemoved"].as_array().unwrap().len(), 2, "{done}");
    assert!(world.run("iptables -S FORWARD").contains("ferrule: other"));
    world.run("iptables -D FORWARD -s 10.9.0.0/16 -m comment --comment 'ferrule: other' -j ACCEPT");
    assert_eq!(without_counts(&world.run("iptables-save")), without_counts(&before));
}

/// Two at once, as an administrator and an agent may be.
#[test]
fn syncs_at_the_same_time_make_no_rule_twice() {
    let world = World::new();
    world.run("iptables -P FORWARD DROP; ip6tables -P FORWARD DROP");
    world.install(&world.accepting());
    let calls: Vec<_> =
        (0..4).map(|_| crate::cli::verb(world.node(), "sync --output json").spawn()).collect();
    for call in calls {
        let answer = call.wait();
        assert!(answer.status.success(), "{answer:?}");
    }
    for program in ["iptables", "ip6tables"] {
        let rules = world.run(&format!("{program} -S FORWARD"));
        assert_eq!(rules.lines().count(), 3, "{rules}");
    }
}

/// And what an ADD would make comes without one.
#[test]
fn sync_makes_forwarding_and_routes_true_without_an_add() {
    let world = World::new();
    world.node().namespace().set_sysctl("net/ipv4/ip_forward", "0");
    world
        .node()
        .namespace()
        .ip_batch("route delete 10.244.1.0/24 proto 102\nroute delete unreachable 10.244.0.0/24\n");
    assert_eq!(world.passing(), "6");
    world.run("nft delete table inet ferrule");
    let done = world.sync();
    assert_eq!((&done["routesSet"], &done["routesRemoved"]), (&json!(1), &json!(0)));
    assert_eq!(done["tableMade"], true);
    assert!(world.run("nft list table inet ferrule").contains("10.244.0."));
    assert_eq!(world.passing(), "46");
    assert!(world.node().namespace().ip("route show type unreachable").contains("10.244.0.0/24"));
    assert_eq!(world.sync()["routesSet"], 0);
    let text = crate::cli::verb(world.node(), "sync").run().text();
    assert_eq!(
        text,
        "NETWORK  WHAT                STATE\npodnet   routes to peers     up to date\n\
         podnet   running pods        up to date\npodnet   table inet ferrule  up to date\n"
    );
}
