//! `ferrule uninstall` on a node with an overlay.

use ferrule::desired::overlay::Routing;
use serde_json::Value;

use super::world::{DEVICE, World};
use kit::call::Call;
use kit::files::Scratch;
use kit::ip;

/// The device is no pod's link, so nothing is in use; and of it nothing stays.
#[test]
fn the_device_and_all_that_belongs_to_it_goes() {
    let world = World::new();
    let node = world.node(1);
    let (store, confs) = (Scratch::new("data"), Scratch::new("confs"));
    // The pod here is nobody's, and its routes would go with ferrule's.
    node.namespace.ip("link delete vethpod");
    let before = node.picture();
    world.settle(Routing::Auto);
    let uninstall = |more: &str| {
        let call = Call::ferrulectl("uninstall --json").on(&node.namespace).arguments(more);
        let call =
            call.argument("--conf-dir").argument(confs.path()).argument("--data-dir").argument(store.path());
        let answer = call.run();
        assert_eq!(answer.status.code(), Some(0), "{answer:?}");
        answer.document().unwrap()
    };
    let count = |document: &Value, kind: &str| {
        document["removed"].as_array().unwrap().iter().filter(|it| it["kind"] == kind).count()
    };
    let foreseen = uninstall("--dry-run");
    assert_eq!(foreseen["refused"], false);
    assert!(ip::link(&node.namespace, DEVICE).is_some());
    let done = uninstall("");
    for document in [&foreseen, &done] {
        assert_eq!((count(document, "link"), count(document, "rule")), (1, 2), "{document}");
        assert_eq!(count(document, "route"), 2, "those to the on-link node: {document}");
        assert_eq!(document["linksInUse"].as_array().unwrap().len(), 0);
    }
    assert_eq!(node.picture(), before);
    assert_eq!(ip::link(&node.namespace, DEVICE), None);
}
