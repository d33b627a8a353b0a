//! A kernel without a log for nf_tables: the table without the rules that tell.

use super::scene::{Planning, Scene, TCP, connects, denied, peers, port};
use kit::traffic::Server;

/// What such a kernel has instead, as the kernel at hand can be made to have it by hand.
fn leave_out_the_log(scene: &Scene) {
    for chain in ["denied_in", "denied_out"] {
        scene.nft(&format!("flush chain inet ferrule-policy {chain}"));
        let comment = "no rule allows it, and this kernel has no log";
        scene.nft(&format!("add rule inet ferrule-policy {chain} counter drop comment \"{comment}\""));
    }
}

#[test]
fn a_table_without_a_log_is_right_and_denies() {
    let mut scene = Scene::new();
    let mut plan = Planning::default()
        .pods("peers-1", &["10.244.1.11"])
        .chain("pi-1", &[port(TCP, 80, &[peers("peers-1")])], &[])
        .pod("a", "pi-1", "none");
    scene.apply(&plan.0);
    assert!(!scene.is_untold());
    leave_out_the_log(&scene);
    scene.read();
    assert!(scene.is_untold());
    assert_eq!(scene.differences(&plan.0), [""; 0]);
    let before = scene.generation();
    assert_eq!((scene.apply(&plan.0).transactions, scene.generation()), (0, before));
    // It is the table that counts.
    let _servers = [80, 81].map(|port| Server::tcp(&scene.a.namespace, port, "a"));
    let (b, c) = (&scene.b.namespace, &scene.c.namespace);
    assert!(connects(b, "10.244.1.10", 80));
    assert!(denied(c, "10.244.1.10", 80) && denied(b, "10.244.1.10", 81));
    assert_eq!(scene.denied_in(), 2);
    // Changes are made in it, and it stays as it is.
    plan = plan.pods("peers-1", &["10.244.1.12"]);
    scene.apply(&plan.0);
    let (b, c) = (&scene.b.namespace, &scene.c.namespace);
    assert!(connects(c, "10.244.1.10", 80) && denied(b, "10.244.1.10", 80));
    assert!(scene.is_untold() && !scene.list("").contains("log prefix"));
    // An agent that starts tries once more, with this kernel to good purpose.
    scene.try_to_tell();
    assert!(scene.apply(&plan.0).transactions > 0 && !scene.is_untold());
    assert_eq!(scene.list("").matches("log prefix").count(), 2);
    assert_eq!(scene.differences(&plan.0), [""; 0]);
}

/// That of the kernel is not taken for somebody's edit, and the other way round.
#[test]
fn a_log_that_somebody_removed_is_put_back() {
    let mut scene = Scene::new();
    let plan = Planning::default().pod("a", "closed", "closed").0;
    scene.apply(&plan);
    scene.nft("flush chain inet ferrule-policy denied_in");
    scene.nft("add rule inet ferrule-policy denied_in counter drop comment \"no rule allows it\"");
    scene.read();
    assert!(!scene.is_untold());
    assert_ne!(scene.differences(&plan), [""; 0]);
    scene.apply(&plan);
    assert_eq!(scene.list("").matches("log prefix").count(), 2);
}
