//! Transactions as such: all or nothing, and refusals that say what was wrong.

use ferrule::linux::netns::Netns;
use ferrule::linux::nfnetlink::Nfnetlink;
use ferrule::linux::nft::change::Change;
use ferrule::linux::nft::element::{Bytes, Element};
use ferrule::linux::nft::set::{Set, Type};
use ferrule::linux::nft::table::{Chain, Family, Table};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

use super::world::{World, run_nft};
use kit::block_on;

fn table() -> Table {
    Table { family: Family::Ipv4, name: "shop".into() }
}

fn chain(name: &str) -> Change {
    Change::AddChain(table(), Chain { name: name.into(), base: None, comment: None })
}

fn ports(set: &str, elements: impl IntoIterator<Item = u16>) -> Vec<Element> {
    elements.into_iter().map(|port| Element::new(set, Bytes::default().protocol(6).port(port))).collect()
}

#[test]
fn one_refusal_undoes_all_and_names_the_change() {
    let world = World::new();
    block_on(async {
        let nft = world.nft();
        let missing = Change::DeleteElements(table(), ports("none", [80]));
        let changes = [Change::AddTable(table(), None), chain("a"), missing.clone(), chain("b"), missing];
        let rejection = nft.commit(None, &changes).await.unwrap_err();
        let blamed: Vec<_> = rejection.0.iter().map(|blame| blame.change).collect();
        assert_eq!(blamed, [Some(2), Some(4)]);
        let words = "delete element ip shop none: No such file or directory (os error 2)";
        assert_eq!(rejection.to_string(), format!("{words}; {words}"));
        assert!(!nft.has_table(&table()).await.unwrap());

        nft.commit(None, &changes[..2]).await.unwrap();
        let rejection = nft.commit(None, &changes[..2]).await.unwrap_err();
        assert!(rejection.is_because(|refusal| refusal.is_exists()), "{rejection}");
        assert_eq!(rejection.0[0].change, Some(0));
        // Nothing to do is done.
        nft.commit(None, &[]).await.unwrap();
    });
    assert_eq!(world.list("list tables"), "table ip shop\n");
}

#[test]
fn what_was_decided_on_an_old_state_is_not_done() {
    let world = World::new();
    block_on(async {
        let nft = world.nft();
        let generation = nft.generation().await.unwrap();
        nft.commit(Some(generation), &[Change::AddTable(table(), None)]).await.unwrap();
        let rejection = nft.commit(Some(generation), &[chain("a")]).await.unwrap_err();
        assert!(rejection.is_because(|refusal| refusal.is_outrun()), "{rejection}");
        assert_eq!(rejection.0[0].change, None);
        // Anybody's change counts.
        let generation = nft.generation().await.unwrap();
        run_nft(&world.node, ["add", "table", "inet", "elsewhere"], "");
        assert!(nft.commit(Some(generation), &[chain("a")]).await.is_err());
        let generation = nft.generation().await.unwrap();
        nft.commit(Some(generation), &[chain("a")]).await.unwrap();
        let found = nft.chains(&table(), &["a", "b"]).await.unwrap();
        assert_eq!(found, [Some(Chain { name: "a".into(), base: None, comment: None }), None]);
    });
}

/// More than one message can hold, and more acknowledgements than a default receive buffer.
#[test]
fn five_thousand_elements_are_one_transaction_and_list_whole() {
    let world = World::new();
    let set = Set {
        name: "ports".into(),
        key: vec![Type::Protocol, Type::Port],
        data: Vec::new(),
        interval: false,
        expires: false,
    };
    block_on(async {
        let nft = world.nft();
        let add = |elements| Change::AddElements(table(), elements);
        let changes =
            [Change::AddTable(table(), None), Change::AddSet(table(), set), add(ports("ports", 1..=5000))];
        nft.commit(None, &changes).await.unwrap();
        let mut found = nft.elements(&table(), "ports").await.unwrap();
        found.sort_by(|a, b| a.key.cmp(&b.key));
        assert_eq!(found, ports("ports", 1..=5000));
        let one_by_one: Vec<_> = (5001..=7000).map(|port| add(ports("ports", [port]))).collect();
        nft.commit(None, &one_by_one).await.unwrap();
        assert_eq!(nft.elements(&table(), "ports").await.unwrap().len(), 7000);
    });
}

/// A dropped future leaves its answers behind; whoever asks next must not take them for its own.
#[test]
fn answers_that_nobody_waits_for_are_skipped() {
    let world = World::new();
    block_on(async {
        let nft = world.nft();
        nft.commit(None, &[Change::AddTable(table(), None), chain("a")]).await.unwrap();
        for _ in 0..50 {
            let (table, names) = (table(), ["a"]);
            // Polled once: sent, not answered.
            let mut asked = Box::pin(nft.chains(&table, &names));
            let _ = futures_util::poll!(asked.as_mut());
            drop(asked);
            let mut listed = Box::pin(nft.rules(&table));
            let _ = futures_util::poll!(listed.as_mut());
            drop(listed);
            assert_eq!(nft.chains(&table, &["none"]).await.unwrap(), [None]);
            assert_eq!(nft.rules(&table).await.unwrap(), []);
        }
    });
}

/// The kernel answers such a datagram with one refusal of its first message, and says nothing of the others.
#[test]
fn who_has_no_right_is_told_so_at_once() {
    let world = World::new();
    let netns = Netns::open(world.node.path()).unwrap();
    let (committed, asked, asked_of_many) = netns
        .run(|| {
            let mut rights = capabilities(None).unwrap();
            rights.effective.remove(CapabilitySet::NET_ADMIN);
            set_capabilities(None, rights).unwrap();
            block_on(async {
                let nft = Nfnetlink::open_here().unwrap();
                let changes = [Change::AddTable(table(), None), chain("a")];
                let patience = std::time::Duration::from_secs(5);
                let committed = tokio::time::timeout(patience, nft.commit(None, &changes)).await;
                let asked = nft.has_table(&table()).await.unwrap_err();
                let asked_of_many =
                    tokio::time::timeout(patience, nft.chains(&table(), &["a", "b", "c"])).await;
                (
                    committed.expect("an answer").unwrap_err(),
                    asked,
                    asked_of_many.expect("an answer").unwrap_err(),
                )
            })
        })
        .unwrap();
    let words = "nf_tables transaction of 2 changes: Operation not permitted (os error 1)";
    assert_eq!(committed.to_string(), words);
    assert_eq!(asked.to_string(), "look for table ip shop: Operation not permitted (os error 1)");
    assert_eq!(asked_of_many.to_string(), "list chain ip shop a: Operation not permitted (os error 1)");
}
