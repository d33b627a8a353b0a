//! Tables of iptables-legacy. Only its own programs can read them, so they are the command line's business alone.

use serde_json::json;

use super::{World, without_counts};
use crate::cli::document;

const SAVE: &str = "iptables-legacy-save; ip6tables-legacy-save";

#[test]
fn a_legacy_drop_policy_is_found_by_doctor_and_accepted_by_sync() {
    let world = World::new();
    world.run(
        "iptables-legacy -P FORWARD DROP; ip6tables-legacy -P FORWARD DROP; \
         iptables-legacy -A FORWARD -i docker0 -j ACCEPT",
    );
    let before = world.run(SAVE);
    assert_eq!(world.passing(), "");
    world.node().status(&world.conf()).success();
    let findings = world.findings();
    assert_eq!(findings.len(), 2, "{findings:#?}");
    assert!(
        findings[0]["found"].as_str().unwrap().starts_with("legacy chain ip filter FORWARD (policy drop)")
    );
    assert!(findings[1]["remedy"].as_str().unwrap().contains("ip6tables-legacy -I FORWARD -s fd00:244::/64"));

    world.sync();
    assert_eq!(without_counts(&world.run(SAVE)), without_counts(&before));
    world.install(&world.accepting());
    assert_eq!(
        world.sync()["accepting"],
        json!([
            { "chain": "legacy ip filter FORWARD", "inserted": 2, "removed": 0 },
            { "chain": "legacy ip6 filter FORWARD", "inserted": 2, "removed": 0 },
        ])
    );
    assert_eq!(world.passing(), "46");
    assert_eq!(world.findings(), Vec::<serde_json::Value>::new());
    let once = world.run(SAVE);
    assert_eq!(world.sync()["accepting"][0]["inserted"], 0);
    assert_eq!(without_counts(&world.run(SAVE)), without_counts(&once));
    document(world.node(), "uninstall --yes-pods-lose-their-network", 0);
    assert_eq!(without_counts(&world.run(SAVE)), without_counts(&before));
}

/// The program would make the table by looking.
#[test]
fn where_there_is_no_legacy_table_none_is_made() {
    let world = World::new();
    world.install(&world.accepting());
    world.sync();
    assert_eq!(world.findings(), Vec::<serde_json::Value>::new());
    document(world.node(), "uninstall --yes-pods-lose-their-network", 0);
    assert_eq!(world.run("cat /proc/net/ip_tables_names /proc/net/ip6_tables_names"), "");
}
