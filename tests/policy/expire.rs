//! What a DEL leaves: elements that expire, and chains that go when nothing leads to them any more.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use ferrule::datapath::policy::{self, Applied, Mirror, Unknown, table};
use ferrule::linux::nft::change::Change;
use ferrule::policy::plan::{Plan, Touched};

use super::content::everything;
use super::scene::{Scene, attached, uid};
use kit::block_on;

/// Ends the elements of a pod as a DEL does.
fn expire(scene: &Scene, after: Duration) {
    let places = policy::places(&attached(&scene.b));
    block_on(async {
        let found = scene.nft.find_elements(&table(), &places).await.unwrap();
        let elements: Vec<_> = found.into_iter().flatten().collect();
        assert_eq!(elements.len(), 4, "{elements:?}");
        let change = Change::ExpireElements { table: table(), elements, after };
        scene.nft.commit(None, &[change]).await.unwrap();
    });
}

/// What an agent knows that has heard of the end of the pod `b`, and finds no record of it.
struct AgentWithoutB {
    plan: Plan,
    touched: Touched,
    mirror: Mirror,
}

impl AgentWithoutB {
    fn of(scene: &Scene) -> Self {
        let mut plan = everything().0;
        plan.pods.remove(&uid("b"));
        let touched = Touched { pods: [uid("b")].into(), ..Touched::default() };
        Self { plan, touched, mirror: block_on(policy::read(&scene.nft)).unwrap() }
    }

    fn apply(&mut self, scene: &Scene) -> Applied {
        let Self { plan, touched, mirror } = self;
        let attached = [attached(&scene.a), attached(&scene.c)];
        block_on(policy::apply(&scene.nft, mirror, plan, touched, &attached, Unknown::Open)).unwrap()
    }
}

#[test]
fn chains_go_when_their_elements_have_expired() {
    let mut scene = Scene::new();
    scene.apply(&everything().0);
    expire(&scene, Duration::from_millis(10));
    let mut agent = AgentWithoutB::of(&scene);
    for _ in 0..200 {
        let applied = agent.apply(&scene);
        if !applied.left_over {
            break;
        }
        // The kernel collects what has expired once a second.
        scene.node().sh("sleep 0.05");
    }
    assert_eq!(scene.differences(&agent.plan), [""; 0]);
    assert!(!scene.list("").contains(&uid("b")), "{}", scene.list(""));
}

/// A pod that is gone at the API server, whose DEL never came.
#[test]
fn elements_that_lead_to_what_goes_go_before() {
    let mut scene = Scene::new();
    scene.apply(&everything().0);
    let mut agent = AgentWithoutB::of(&scene);
    let applied = agent.apply(&scene);
    assert!(!applied.left_over);
    assert!(!scene.list("").contains(&uid("b")), "{}", scene.list(""));
    // One whose record is still there is held: nobody says what it may.
    scene.apply(&everything().0);
    let applied = scene.apply_touched(&agent.plan, &agent.touched);
    assert!(!applied.left_over);
    let bound = block_on(policy::bound(&scene.nft)).unwrap();
    let of_b: Vec<_> = bound.iter().filter(|it| it.link == "vethb").collect();
    assert_eq!(of_b.len(), 2);
    assert!(of_b.iter().all(|it| it.is_held() && it.chain.starts_with("hold-")), "{of_b:?}");
}

/// ADDs, DELs and other programs change tables at the same time: whoever loses reads again.
#[test]
fn what_others_do_meanwhile_makes_no_apply_fail() {
    let mut scene = Scene::new();
    let known = everything().0;
    let mut unknown = everything().0;
    unknown.pods.remove(&uid("a"));
    scene.apply(&known);
    let done = AtomicBool::new(false);
    let (theirs, c) = (scene.world.nft(), attached(&scene.c));
    let node = kit::netns::Namespace::at(scene.node().path());
    let touched = Touched { pods: [uid("a")].into(), ..Touched::default() };
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                kit::nft::load(&node, "add table ip other\ndelete table ip other\n");
            }
        });
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                kit::nft::load(&node, "add table ip pace\ndelete table ip pace\n");
                block_on(policy::bind(&theirs, &c, "shop", Unknown::Hold)).unwrap();
                let elements = policy::places(&c);
                let found = block_on(theirs.find_elements(&table(), &elements)).unwrap();
                let elements: Vec<_> = found.into_iter().flatten().collect();
                let after = Duration::from_millis(10);
                let change = Change::ExpireElements { table: table(), elements, after };
                // The agent may have been faster.
                let _ = block_on(theirs.commit(None, &[change]));
            }
        });
        for round in 0..60 {
            scene.apply_touched(if round % 2 == 0 { &unknown } else { &known }, &touched);
        }
        done.store(true, Ordering::Relaxed);
    });
    scene.read();
    scene.apply(&known);
    assert_eq!(scene.differences(&known), [""; 0]);
}
