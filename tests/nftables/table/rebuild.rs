//! A table that somebody flushed, changed, or that an older ferrule made (plugins#512).

use std::cell::Cell;

use ferrule::cni::ids::NetworkName;
use ferrule::datapath::nftables::{
    NftError, add_pod, differences, ensure_no_masquerade, ensure_table, rebuild,
};
use ferrule::desired::nftables::element::Element;
use ferrule::desired::nftables::element::Protocol::Tcp;

use super::world::{World, elements_of_network, ensure, host_port, inside, network, run_nft};
use kit::block_on;
use kit::traffic::{Server, reply, tcp};

fn from_store(elements: &[Element]) -> impl FnMut() -> Result<Vec<Element>, NftError> {
    let elements = elements.to_vec();
    move || Ok(elements.clone())
}

#[test]
fn the_host_ports_of_running_pods_come_back_after_a_flush() {
    let world = World::new();
    let pod = world.pod("a", 10);
    let _server = Server::tcp(&pod.namespace, 8080, "a");
    let elements = pod.elements(&[host_port("", 80, Tcp)]);
    let stored = [elements.clone(), elements_of_network()].concat();
    block_on(async {
        let nft = world.prepare().await;
        add_pod(&nft, &elements).await.unwrap();
        let whole = world.list("-s list ruleset");
        // An ADD notices the first ones; the others are found by who reads all rules.
        let damages: [(&[&str], bool); 8] = [
            (&["flush", "ruleset"], true),
            (&["delete", "table", "inet", "ferrule"], true),
            (&["flush", "table", "inet", "ferrule"], true),
            (&["flush", "chain", "inet", "ferrule", "antispoof"], true),
            (&["flush", "chain", "inet", "ferrule", "prerouting"], true),
            (&["flush", "chain", "inet", "ferrule", "hostports"], false),
            (&["insert", "rule", "inet", "ferrule", "postrouting", "accept"], false),
            (&["add", "rule", "inet", "ferrule", "hostports", "counter"], false),
        ];
        for (damage, is_noticed) in damages {
            run_nft(&world.node, damage.iter().copied(), "");
            assert_ne!(differences(&nft, &elements).await.unwrap(), [""; 0], "{damage:?}");
            let made = if is_noticed {
                ensure_table(&nft, &[network()], from_store(&stored)).await.unwrap().unwrap()
            } else {
                assert_eq!(ensure_table(&nft, &[network()], from_store(&stored)).await.unwrap(), None);
                rebuild(&nft, &[network()], from_store(&stored)).await.unwrap()
            };
            assert!(made.made && made.passed_over.is_empty(), "{damage:?}: {made:?}");
            assert_eq!(world.list("-s list ruleset"), whole, "{damage:?}");
            assert_eq!(tcp(&world.outside, "192.0.2.10", 80), reply("192.0.2.1", "a"), "{damage:?}");
        }
        let nobody = || -> Result<Vec<Element>, NftError> { panic!("not asked for") };
        assert_eq!(ensure_table(&nft, &[network()], nobody).await.unwrap(), None);
    });
}

#[test]
fn a_table_of_another_version_is_replaced() {
    let world = World::new();
    let (pod, foreign) = (world.pod("a", 10), world.pod("b", 11));
    let mut other = foreign.rules(true, &[host_port("", 81, Tcp)]);
    other.network = NetworkName::parse("othernet").unwrap();
    block_on(async {
        let nft = world.prepare().await;
        add_pod(&nft, &other.elements()).await.unwrap();
        let elements = pod.elements(&[host_port("", 80, Tcp)]);
        let differs = |told: &[String], what: &str| told.iter().any(|told| told.contains(what));
        let older = |comment: &str, replacement: &str| {
            // Hook and priority cannot be changed in place, and no rule shows them.
            let older = world
                .list("list table inet ferrule")
                .replace("hook output priority -99", "hook output priority -50")
                .replace(comment, replacement);
            run_nft(&world.node, ["-f", "-"], &format!("delete table inet ferrule\n{older}"));
        };
        let comment = world.list("list table inet ferrule").lines().nth(1).unwrap().to_owned();
        assert!(comment.contains("comment \"ferrule layout "), "{comment}");
        // The second is what a kernel before Linux 5.10 makes of the first.
        for (from, to, what) in [
            ("ferrule layout ", "ferrule layout 0", "of another version (ferrule layout 0"),
            (comment.as_str(), "", "chain inet ferrule dnat_output differs"),
        ] {
            older(from, to);
            let told = differences(&nft, &elements[..0]).await.unwrap();
            assert!(differs(&told, what), "{told:?}");
            let made = ensure_table(&nft, &[network()], from_store(&elements)).await.unwrap().unwrap();
            assert!(made.made, "{what}");
            let all = [elements.clone(), other.elements()].concat();
            assert_eq!(differences(&nft, &all).await.unwrap(), [""; 0]);
        }
        // Without a comment the rest is compared, and is as good.
        let without = world.list("list table inet ferrule").replace(&comment, "");
        run_nft(&world.node, ["-f", "-"], &format!("delete table inet ferrule\n{without}"));
        assert_eq!(ensure(&nft).await.unwrap(), None);
        assert_eq!(differences(&nft, &elements).await.unwrap(), [""; 0]);
    });
}

#[test]
fn a_rebuild_removes_the_dead_and_adds_the_missing() {
    let world = World::new();
    let (dead, alive) = (world.pod("a", 10), world.pod("b", 11));
    block_on(async {
        let nft = world.prepare().await;
        let ports = [host_port("", 80, Tcp)];
        add_pod(&nft, &dead.elements(&ports)).await.unwrap();
        let stored = [alive.elements(&ports), elements_of_network()].concat();
        let rebuilt = rebuild(&nft, &[network()], from_store(&stored)).await.unwrap();
        assert_eq!((rebuilt.made, rebuilt.added, rebuilt.removed), (false, 5, 5));
        assert_eq!(differences(&nft, &stored).await.unwrap(), [""; 0]);
        assert!(!world.list("list ruleset").contains("vetha"));
        assert_eq!(rebuild(&nft, &[network()], from_store(&stored)).await.unwrap(), Default::default());
        assert!(!ensure_no_masquerade(&nft, &inside()).await.unwrap());
    });
}

/// The record is written first, then the elements are added: a rebuild that read the store before that record must
/// not remove them as nobody's.
#[test]
fn a_rebuild_never_takes_away_what_an_add_has_just_put_there() {
    let world = World::new();
    let pod = world.pod("a", 10);
    let elements = pod.elements(&[host_port("", 80, Tcp)]);
    block_on(async {
        let nft = world.prepare().await;
        let reads = Cell::new(0);
        let store = || {
            reads.set(reads.get() + 1);
            if reads.get() > 1 {
                return Ok::<_, NftError>([elements.clone(), elements_of_network()].concat());
            }
            // Right after the store was read, an ADD writes its record and adds its elements.
            let (world, elements) = (&world, &elements);
            std::thread::scope(|scope| {
                scope.spawn(move || block_on(async { add_pod(&world.nft(), elements).await.unwrap() }));
            });
            // A change that is planned on the old list: inside's elements are gone from it.
            Ok(Vec::new())
        };
        let rebuilt = rebuild(&nft, &[network()], store).await.unwrap();
        assert_eq!((reads.get(), rebuilt.added, rebuilt.removed), (2, 0, 0));
        assert_eq!(differences(&nft, &elements).await.unwrap(), [""; 0]);
        assert_eq!(ensure(&nft).await.unwrap(), None);
    });
}
