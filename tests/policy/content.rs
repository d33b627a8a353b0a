//! The table as `nft` prints it, and as it is read back.

use ferrule::datapath::policy::{self, Bindings, Unknown};
use ferrule::policy::plan::Touched;
use serde_json::Value;

use super::scene::{Planning, Scene, TCP, UDP, anyone, attached, peers, port, range, uid};
use kit::block_on;

/// What `nft` must print of [`everything`].
const GOLDEN: &str = include_str!("table.nft");

/// A plan with all that a plan may have.
pub fn everything() -> Planning {
    let (some, whole) = (range(UDP, 5000, 5099, &[anyone()]), range(132, 0, u16::MAX, &[anyone()]));
    let named = ferrule::policy::plan::ChainRule {
        peer: ferrule::policy::plan::PeerMatch::AddressAndPort("named-1".into()),
        comment: "shop/named egress[0]".into(),
        action: ferrule::policy::plan::Action::Accept,
    };
    Planning::default()
        .pods("peers-1", &["10.244.1.11", "fd00:1::11", "10.244.2.5"])
        .pods("peers-2", &[])
        .named_ports("named-1", &[("10.244.1.12", TCP, 8080), ("fd00:1::12", TCP, 8080)])
        .blocks(
            "blocks-14",
            &[("0.0.0.0", "9.255.255.255"), ("192.0.2.0", "192.0.2.255"), ("224.0.0.0", "255.255.255.255")],
        )
        .blocks("blocks-16", &[("fd00:aa::", "fd00:aa::ffff")])
        .chain(
            "pi-1",
            &[port(TCP, 80, &[peers("peers-1"), peers("peers-2")]), port(TCP, 443, &[anyone()])],
            &[peers("blocks-1")],
        )
        .chain("pi-2", &[some, whole], &[])
        .chain("po-1", &[], &[named])
        .pod("a", "pi-1", "po-1")
        .pod("b", "pi-2", "")
        .pod("c", "", "closed")
        .hold("pi-2", "closed")
}

#[test]
fn nft_prints_the_table_as_it_is_meant() {
    let mut scene = Scene::new();
    scene.apply(&everything().0);
    let printed = scene.list("-s");
    assert_eq!(printed, GOLDEN, "{printed}");
    let json: Value = serde_json::from_str(&scene.list("-j")).unwrap();
    assert!(json["nftables"].as_array().unwrap().len() > 40);
}

#[test]
fn nft_makes_the_same_of_what_it_prints() {
    let mut scene = Scene::new();
    scene.apply(&everything().0);
    kit::nft::load(scene.node(), &format!("delete table inet ferrule-policy\n{GOLDEN}"));
    // nft 1.0.6 turns the one byte of a protocol round before it looks into a map of ranges.
    let differences = scene.differences(&everything().0);
    assert!(differences.iter().all(|it| it == "chain pi-2"), "{differences:?}");
}

#[test]
fn what_was_applied_reads_as_the_plan_says() {
    let mut scene = Scene::new();
    let plan = everything().0;
    assert_eq!(scene.differences(&plan), ["the table, which is missing"]);
    scene.apply(&plan);
    assert_eq!(scene.differences(&plan), [""; 0]);
    // And another one does not.
    let other = everything().pods("peers-2", &["10.244.1.12"]).pod("c", "closed", "").0;
    assert_eq!(scene.differences(&other).len(), 3, "{:?}", scene.differences(&other));
}

/// An agent that starts changes nothing where nothing differs.
#[test]
fn a_start_changes_only_what_differs() {
    let mut scene = Scene::new();
    let plan = everything().0;
    scene.apply(&plan);
    let before = scene.generation();
    scene.read();
    let applied = scene.apply(&plan);
    assert_eq!((applied.transactions, scene.generation()), (0, before));
    // Nor where it is asked to do the same again.
    assert_eq!(scene.apply_touched(&plan, &Touched::default()).transactions, 0);
    assert_eq!(scene.generation(), before);
    scene.read();
    assert_eq!(scene.apply(&everything().pods("peers-2", &["10.244.1.12"]).0).transactions, 1);
}

#[test]
fn without_policies_there_is_no_table() {
    let mut scene = Scene::new();
    let nothing = Planning::default().0;
    assert_eq!(scene.apply(&nothing).transactions, 0);
    scene.apply(&everything().0);
    assert_ne!(scene.list("-s"), "");
    assert_eq!(scene.apply(&nothing).transactions, 1);
    assert_eq!(scene.list("-s"), "");
    assert_eq!(scene.apply(&nothing).transactions, 0);
}

/// The steps of an ADD: what is there decides.
#[test]
fn an_add_finds_the_pod_chains_or_the_hold() {
    let mut scene = Scene::new();
    let nft = scene.world.nft();
    let chains_of = |name: &str, namespace: &str, unknown| {
        block_on(policy::chains_of(&nft, &uid(name), namespace, unknown)).unwrap()
    };
    assert_eq!(chains_of("a", "shop", Unknown::Hold), Bindings::default(), "there is no table");
    let plan = everything().pod("b", "pi-2", "none").hold("pi-2", "none").0;
    scene.apply(&plan);
    let bindings = |before: &str, name: &str| Bindings {
        ingress: Some(format!("{before}in-{name}")),
        egress: Some(format!("{before}out-{name}")),
    };
    assert_eq!(chains_of("a", "shop", Unknown::Hold), bindings("", &uid("a")));
    // Also in a direction that nothing isolates anybody in.
    assert_eq!(chains_of("b", "shop", Unknown::Hold), bindings("", &uid("b")));
    assert_eq!(chains_of("new", "shop", Unknown::Hold), bindings("hold-", "shop"));
    assert_eq!(chains_of("new", "shop", Unknown::Open), Bindings::default());
    assert_eq!(chains_of("new", "other", Unknown::Hold), Bindings::default());
}

/// A pod that the agent did not know is led to its own chains when it does.
#[test]
fn a_held_pod_is_led_to_its_own_chains_once_known() {
    let mut scene = Scene::new();
    let without = || {
        let mut plan = everything().0;
        plan.pods.remove(&uid("a"));
        plan
    };
    scene.apply(&without());
    let a = attached(&scene.a);
    block_on(policy::bind(&scene.nft, &a, "shop", Unknown::Hold)).unwrap();
    let led = |scene: &Scene| -> Vec<String> {
        let bound = block_on(policy::bound(&scene.nft)).unwrap();
        bound.into_iter().filter(|it| it.uid == uid("a") && it.name == "shop/a").map(|it| it.chain).collect()
    };
    assert_eq!(led(&scene), ["hold-in-shop", "hold-out-shop"]);
    // As long as it is not known it stays there.
    scene.apply(&without());
    assert_eq!(led(&scene), ["hold-in-shop", "hold-out-shop"]);
    let touched = Touched { pods: [uid("a")].into(), ..Touched::default() };
    scene.apply_touched(&everything().0, &touched);
    assert_eq!(led(&scene), [format!("in-{}", uid("a")), format!("out-{}", uid("a"))]);
    assert_eq!(scene.differences(&everything().0), [""; 0]);
}
