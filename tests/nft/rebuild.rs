//! A table that somebody flushed, changed, or that an older ferrule made (plugins#512).

use std::cell::Cell;

use ferrule::cni::ids::NetworkName;
use ferrule::datapath::nftables::{
    NftError, add_pod, differences, ensure_no_masquerade, ensure_table, rebuild,
};
use ferrule::desired::nftables::element::Element;
use ferrule::desired::nftables::element::Protocol::Tcp;

use super::world::{World, ensure, host_port, inside, network, run_nft};
use crate::harness::block_on;
use crate::harness::traffic::{Server, reply, tcp};

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
    let stored = [elements.clone(), inside().elements()].concat();
    block_on(async {
        let nft = world.prepare().await;
        add_pod(&nft, &elements).await.unwrap();
        let whole = world.list("list ruleset");
        let damages: [&[&str]; 6] = [
            &["flush", "ruleset"],
            &["delete", "table", "inet", "ferrule"],
            &["flush", "table", "inet", "ferrule"],
            &["flush", "chain", "inet", "ferrule", "antispoof"],
            &["insert", "rule", "inet", "ferrule", "postrouting", "accept"],
            &["add", "rule", "inet", "ferrule", "hostports", "counter"],
        ];
        for damage in damages {
            run_nft(&world.node, damage.iter().copied(), "");
            assert_ne!(differences(&nft, &elements).await.unwrap(), [""; 0], "{damage:?}");
            let made = ensure_table(&nft, &[network()], from_store(&stored)).await.unwrap().unwrap();
            assert!(made.made && made.passed_over.is_empty(), "{damage:?}: {made:?}");
            assert_eq!(world.list("list ruleset"), whole, "{damage:?}");
            assert_eq!(tcp(&world.outside, "192.0.2.10", 80), reply("192.0.2.1", "a"), "{damage:?}");
        }
        let nobody = || -> Result<Vec<Element>, NftError> { panic!("not asked for") };
        assert_eq!(ensure_table(&nft, &[network()], nobody).await.unwrap(), None);
    });
}

#[test]
fn a_table_of_another_version_is_replaced_and_other_networks_keep_what_they_have() {
    let world = World::new();
    let (pod, foreign) = (world.pod("a", 10), world.pod("b", 11));
    let mut other = foreign.rules(true, &[host_port("", 81, Tcp)]);
    other.network = NetworkName::parse("othernet").unwrap();
    block_on(async {
        let nft = world.prepare().await;
        add_pod(&nft, &other.elements()).await.unwrap();
        // Hook and priority cannot be changed in place, and no rule shows them: the layout's number does.
        let listed = world
            .list("list table inet ferrule")
            .replace("hook output priority -99", "hook output priority -50");
        let older = listed.replace("ferrule's layout ", "ferrule's layout 0");
        run_nft(&world.node, ["-f", "-"], &format!("delete table inet ferrule\n{older}"));
        let elements = pod.elements(&[host_port("", 80, Tcp)]);
        let told = differences(&nft, &elements[..0]).await.unwrap();
        assert!(told.contains(&"nft: chain inet ferrule dnat_output differs".to_owned()), "{told:?}");
        let made = ensure_table(&nft, &[network()], from_store(&elements)).await.unwrap().unwrap();
        assert!(made.made);
        assert_eq!(differences(&nft, &[elements, other.elements()].concat()).await.unwrap(), [""; 0]);
    });
}

#[test]
fn a_rebuild_removes_the_dead_adds_the_missing_and_does_nothing_twice() {
    let world = World::new();
    let (dead, alive) = (world.pod("a", 10), world.pod("b", 11));
    block_on(async {
        let nft = world.prepare().await;
        let ports = [host_port("", 80, Tcp)];
        add_pod(&nft, &dead.elements(&ports)).await.unwrap();
        let stored = [alive.elements(&ports), inside().elements()].concat();
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
                return Ok::<_, NftError>([elements.clone(), inside().elements()].concat());
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
