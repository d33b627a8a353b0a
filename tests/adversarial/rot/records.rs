//! Rotten records and lost names under the commands of a runtime, in both roles; and clocks that jump.

use std::fs;

use serde_json::{Value, json};

use kit::answer::Answer;
use kit::node::Node;
use kit::pod::{Pod, addresses_of};

/// A node with one pod, which has the only address that there is.
struct Attached {
    node: Node,
    pod: Pod,
    conf: Value,
    result: Value,
}

impl Attached {
    /// `plugin` makes the links: ferrule, or another one that asks ferrule for the address.
    fn by(plugin: &str) -> Self {
        let (node, pod) = (Node::new(), Pod::new("pod"));
        let mut conf = node.conf_with(json!([[{ "subnet": "10.88.0.7/32" }]]));
        conf["type"] = json!(plugin);
        let result = node.add(&pod, &conf);
        Self { node, pod, conf, result }
    }

    fn try_another(&self) -> Answer {
        self.node.try_add(&Pod::new("another"), &self.conf)
    }

    /// The address is the pod's as long as that runs, whatever comes; its DEL frees it.
    fn expect_kept_until_del(&self, what: &str) {
        let answer = self.try_another();
        assert!(!answer.status.success(), "{what}: the address of a running pod was given away: {answer:?}");
        answer.failure(100);
        self.node.status(&self.conf).failure(50);
        self.try_another().failure(100);
        self.node.del(&self.pod, &self.conf);
        self.node.expect_nothing_left();
        assert_eq!(addresses_of(&self.try_another().result()), ["10.88.0.7"], "{what}");
    }
}

/// Both roles.
const PLUGINS: [&str; 2] = ["ferrule", "bridge"];

type Damage = (&'static str, fn(&str) -> String);

/// One of each kind. Those that leave JSON are the dangerous ones: each makes a pod that runs look dead, or as if it had
/// another address.
const DAMAGES: [Damage; 8] = [
    ("cut", |whole| whole[..whole.len() / 2].to_owned()),
    ("empty", |_| String::new()),
    ("zeroed", |whole| "\0".repeat(whole.len())),
    ("doubled", |whole| whole.repeat(2)),
    ("of a newer ferrule", |whole| whole.replace("\"version\": 1", "\"version\": 2")),
    ("with a bit of its boot flipped", |whole| flip(whole, "bootId\": \"")),
    ("with a bit of its namespace's inode flipped", |whole| flip(whole, "\"ino\": ")),
    ("with a bit of its address flipped", |whole| whole.replace("10.88.0.7", "10.88.0.5")),
];

/// The lowest bit of the character after `mark` flipped.
fn flip(whole: &str, mark: &str) -> String {
    let at = whole.find(mark).unwrap() + mark.len();
    let mut bytes = whole.as_bytes().to_vec();
    bytes[at] ^= 1;
    String::from_utf8(bytes).unwrap()
}

#[test]
fn a_damaged_record_is_104_and_keeps_its_address() {
    for plugin in PLUGINS {
        for (what, damage) in DAMAGES {
            let what = format!("{what}, {plugin}");
            let attached = Attached::by(plugin);
            let path = attached.node.record_path(&attached.pod);
            let rotten = damage(&fs::read_to_string(&path).unwrap());
            fs::write(&path, rotten).unwrap();
            let said = attached.node.check(&attached.pod, &attached.conf, &attached.result).complaint(104);
            assert!(said.contains(path.to_str().unwrap()), "{what}: {said}");
            attached.node.try_add(&attached.pod, &attached.conf).failure(104);
            // GC, which the runtime tells that the pod is there, leaves it alone.
            attached.node.gc(&attached.conf, &[&attached.pod]).success();
            assert!(path.exists(), "{what}");
            attached.expect_kept_until_del(&what);
        }
    }
}

#[test]
fn gc_removes_a_rotten_record_that_is_not_valid() {
    for (what, damage) in DAMAGES {
        let attached = Attached::by("ferrule");
        let path = attached.node.record_path(&attached.pod);
        let rotten = damage(&fs::read_to_string(&path).unwrap());
        fs::write(&path, rotten).unwrap();
        attached.node.gc(&attached.conf, &[]).success();
        attached.node.expect_nothing_left();
        assert_eq!(addresses_of(&attached.try_another().result()), ["10.88.0.7"], "{what}");
    }
}

/// `rm` in by-id frees no address: the names in by-ip hold it. GC lists the attachment again, and its DEL frees it.
#[test]
fn gc_lists_an_attachment_again_that_lost_its_name() {
    for plugin in PLUGINS {
        let attached = Attached::by(plugin);
        fs::remove_dir_all(attached.node.store().path().join("by-id")).unwrap();
        attached.try_another().failure(100);
        attached.node.gc(&attached.conf, &[&attached.pod]).success();
        attached.expect_kept_until_del(&format!("by-id lost, then GC, {plugin}"));
    }
}

#[test]
fn an_address_that_lost_its_name_is_held_again_after_gc() {
    for plugin in PLUGINS {
        let attached = Attached::by(plugin);
        fs::remove_dir_all(attached.node.store().path().join("by-ip")).unwrap();
        attached.node.gc(&attached.conf, &[&attached.pod]).success();
        attached.expect_kept_until_del(&format!("by-ip lost, then GC, {plugin}"));
    }
}

/// Before GC repairs the store, the route to the first pod tells that the address is in use.
#[test]
fn an_address_without_its_name_is_refused_by_its_pods_route() {
    let attached = Attached::by("ferrule");
    let route = || {
        let mut routes = kit::ip::routes(attached.node.namespace(), "-4");
        routes.retain(|route| route["dst"] == "10.88.0.7");
        routes
    };
    let before = route();
    assert_eq!(before.len(), 1, "{before:?}");
    fs::remove_file(attached.node.store().path().join("by-ip/10.88.0.7")).unwrap();
    for _ in 0..2 {
        let refused = attached.try_another();
        let error = refused.document().unwrap();
        let says = "this node or running pods have all of it";
        assert!(!refused.status.success() && error.to_string().contains(says), "{refused:?}");
        assert_eq!(route(), before, "the route is the first pod's still");
    }
    attached.node.check(&attached.pod, &attached.conf, &attached.result).success();
    attached.node.gc(&attached.conf, &[&attached.pod]).success();
    attached.expect_kept_until_del("by-ip lost, refused by the route, then GC");
}

/// The way to free one by hand, if need be: all names of its file.
#[test]
fn with_all_its_names_removed_a_record_is_gone() {
    let attached = Attached::by("bridge");
    let store = attached.node.store();
    let record = store.record_path(attached.pod.container());
    let find = std::process::Command::new("find")
        .arg(store.path())
        .arg("-samefile")
        .arg(&record)
        .arg("-delete")
        .status();
    assert!(find.unwrap().success());
    assert_eq!(addresses_of(&attached.try_another().result()), ["10.88.0.7"]);
}

const YEAR: u64 = 365 * 86_400;

/// The clock was a year ahead, and is right again: what was written then is neither young for a year, nor does it rest.
#[test]
fn a_clock_that_jumps_back_a_year_holds_no_address() {
    for plugin in PLUGINS {
        let attached = Attached::by(plugin);
        let store = attached.node.store();
        store.rewrite_records(|record| record["created"] = json!(record["created"].as_u64().unwrap() + YEAR));
        // A pod that runs is alive whatever the clock says.
        attached.try_another().failure(100);
        attached.pod.die();
        attached.node.wait_for_host_links(0);
        attached.node.status(&attached.conf).success();
        assert_eq!(addresses_of(&attached.try_another().result()), ["10.88.0.7"], "{plugin}");
        // And so with what rests: the name of a bucket is the time.
        let [bucket] = &kit::files::names_in(&store.path().join("cooldown"))[..] else {
            panic!("one bucket")
        };
        let ahead = (bucket.parse::<u64>().unwrap() + YEAR / 30).to_string();
        let place = store.path().join("cooldown");
        fs::rename(place.join(bucket), place.join(&ahead)).unwrap();
        store.known().iter().for_each(|name| {
            let call = attached.node.call("DEL", &attached.conf);
            call.attachment(name.trim_end_matches("@eth0"), "").run().success();
        });
        assert!(!place.join(&ahead).exists(), "the names of a year ahead pile up");
        attached.try_another().success();
    }
}
