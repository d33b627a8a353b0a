//! `ferrule reclaim` frees the dead and the ownerless, and nothing else.

use std::fs;
use std::process::Stdio;

use serde_json::{Value, json};

use super::{add_named, document, install, text, verb};
use kit::files::listing;
use kit::ip;
use kit::node::Node;
use kit::packets::answers_ping;
use kit::pod::{Pod, addresses_of, host_link_of};

/// A node with a pod that lives, one that died, and an address that is held for nobody; the living pod's result
/// and the addresses of the other two.
fn node_with_a_dead_pod() -> (Node, Value, Pod, Value, Vec<String>) {
    let node = Node::new();
    let conf = node.conf();
    install(&node, "10-ferrule.conflist", &conf);
    let (alive, dead, lost) = (Pod::new("alive"), Pod::new("dead"), Pod::new("lost"));
    let result = add_named(&node, &conf, &alive, "alive");
    let mut freed = addresses_of(&add_named(&node, &conf, &dead, "dead"));
    freed.extend(addresses_of(&node.add(&lost, &conf)));
    dead.die();
    lost.die();
    node.wait_for_host_links(1);
    // Nobody can tell any more whose it was.
    fs::write(node.record_path(&lost), "torn").unwrap();
    fs::remove_file(node.record_path(&lost)).unwrap();
    (node, conf, alive, result, freed)
}

#[test]
fn the_dead_and_the_ownerless_are_freed_and_the_living_stay() {
    let (node, conf, alive, result, freed) = node_with_a_dead_pod();
    let document = document(&node, "reclaim", 0);
    let network = &document["networks"][0];
    assert_eq!(network["dead"].as_array().unwrap().len(), 1, "{document}");
    let dead = &network["dead"][0];
    assert_eq!((&dead["pod"], &dead["reason"]), (&json!("default/dead"), &json!("its namespace is gone")));
    let mut told: Vec<Value> = dead["addresses"].as_array().unwrap().clone();
    told.extend(network["orphans"].as_array().unwrap().clone());
    assert_eq!(json!(told), json!(freed));
    assert_eq!(node.held_addresses(), addresses_of(&result));
    assert_eq!(node.known_attachments(), [format!("{}@eth0", alive.container())]);
    node.check(&alive, &conf, &result).success();
    assert!(answers_ping(node.namespace(), &addresses_of(&result)[0]));
    let again = verb(&node, "reclaim").run();
    assert_eq!((again.status.code(), text(&again)), (Some(0), "nothing to reclaim\n"));
}

#[test]
fn a_dry_run_says_the_same_and_writes_nothing() {
    let (node, _, _alive, _, _) = node_with_a_dead_pod();
    let before = listing(&node.data_dir());
    let mut foreseen = document(&node, "reclaim --dry-run", 0);
    let shown = verb(&node, "reclaim --dry-run").run();
    assert!(text(&shown).contains("WOULD BE FREED") && text(&shown).contains("default/dead"), "{shown:?}");
    assert_eq!(listing(&node.data_dir()), before);
    let mut done = document(&node, "reclaim", 0);
    for document in [&mut foreseen, &mut done] {
        document["dryRun"] = Value::Null;
        document["networks"][0]["dead"][0]["ageSeconds"] = Value::Null;
    }
    assert_eq!(foreseen, done);
}

/// As long as the link is there the pod's namespace is, whatever became of its path.
#[test]
fn a_pod_whose_namespace_left_its_path_stays() {
    let node = Node::new();
    let conf = node.conf();
    install(&node, "10-ferrule.conflist", &conf);
    let pod = Pod::new("pod");
    let result = node.add(&pod, &conf);
    // Somebody still is inside, when the name goes.
    let mut shell = pod.namespace().command("sh");
    shell.args(["-c", "echo in; exec cat"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut inside = shell.spawn().unwrap();
    let mut word = [0; 3];
    std::io::Read::read_exact(inside.stdout.as_mut().unwrap(), &mut word).unwrap();
    pod.die();
    let document = document(&node, "reclaim", 0);
    drop(inside.stdin.take());
    inside.wait().unwrap();
    assert_eq!(document["networks"][0]["dead"], json!([]));
    assert_eq!(node.held_addresses(), addresses_of(&result));
}

#[test]
fn what_cannot_be_judged_is_left_alone_and_told() {
    let node = Node::new();
    let conf = node.conf();
    install(&node, "10-ferrule.conflist", &conf);
    let (torn, unrecorded) = (Pod::new("torn"), Pod::new("unrecorded"));
    node.add(&torn, &conf);
    let link = host_link_of(&node.add(&unrecorded, &conf));
    fs::write(node.record_path(&torn), "torn").unwrap();
    fs::write(node.record_path(&unrecorded), "torn").unwrap();
    fs::remove_file(node.record_path(&unrecorded)).unwrap();
    let document = document(&node, "reclaim", 0);
    let left = document["networks"][0]["leftAlone"].to_string();
    assert!(left.contains(torn.container()) && left.contains("is damaged"), "{left}");
    assert!(left.contains(&link) && left.contains("may be alive"), "{left}");
    assert!(ip::link(node.namespace(), &link).is_some());
    assert!(node.record_path(&torn).exists());
}

/// An ADD has its attachment's hold for as long as it works: a flock(2) on the record.
#[test]
fn an_attachment_in_flight_is_skipped() {
    let (node, _, _alive, _, _) = node_with_a_dead_pod();
    let dead = document(&node, "reclaim --dry-run", 0)["networks"][0]["dead"][0]["container"].clone();
    let record = node.store().path().join(format!("by-id/{}@eth0", dead.as_str().unwrap()));
    let held = fs::File::open(&record).unwrap();
    held.lock().unwrap();
    let skipped = document(&node, "reclaim", 0);
    assert_eq!(skipped["networks"][0]["dead"], json!([]));
    let left = skipped["networks"][0]["leftAlone"].to_string();
    assert!(left.contains("another command is working on it"), "{left}");
    assert!(record.exists());
    // Closing is not enough: a child that another test is starting keeps the lock until it calls execve(2).
    held.unlock().unwrap();
    assert_eq!(document(&node, "reclaim", 0)["networks"][0]["dead"][0]["container"], dead);
    assert!(!record.exists());
}

#[test]
fn what_an_earlier_boot_left_goes_and_is_told() {
    let node = Node::new();
    let conf = node.conf();
    install(&node, "10-ferrule.conflist", &conf);
    let pod = Pod::new("pod");
    node.add(&pod, &conf);
    pod.die();
    node.wait_for_host_links(0);
    node.store().rewrite(pod.container(), |record| record["bootId"] = json!("an-earlier-boot"));
    fs::write(node.store().path().join("boot"), "an-earlier-boot\n").unwrap();
    let document = document(&node, "reclaim", 0);
    assert_eq!(document["networks"][0]["dead"][0]["reason"], "from an earlier boot");
    assert_eq!(document["networks"][0]["orphans"], json!([]));
    node.expect_nothing_left();
}
