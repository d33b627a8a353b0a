//! The steps that `kubectl ferrule migrate` has done on a node: each may be repeated, and no address is given out twice,
//! whatever the old plugin is in the midst of.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use kit::binaries::REFERENCE_PLUGINS;
use kit::files::wait_for_words;
use serde_json::{Value, json};

use super::*;

const OLD: &str = "20-old.conflist";
const OURS: &str = "10-ferrule.conflist";

impl OldNode {
    /// The old conflist as an installer leaves it, with portmap and another plugin behind.
    fn install_old(&self) {
        let directory = conf_dir(&self.node);
        fs::create_dir_all(&directory).unwrap();
        let portmap = json!({ "type": "portmap", "capabilities": { "portMappings": true } });
        let list = json!({ "name": "podnet", "cniVersion": "1.0.0", "plugins": [self.conf, portmap, { "type": "mesh" }] });
        fs::write(directory.join(OLD), list.to_string()).unwrap();
    }

    fn step_words(&self, step: &str) -> String {
        format!(
            "migrate {step} --results {} --pod-cidr {SUBNET_V4} --pod-cidr {SUBNET_V6}",
            self.results().display()
        )
    }

    fn step(&self, step: &str, status: i32) -> Value {
        document(&self.node, &self.step_words(step), status)
    }

    fn confs(&self) -> Vec<String> {
        names_in(&conf_dir(&self.node))
    }

    /// Where the old conflist is kept.
    fn kept(&self) -> PathBuf {
        self.node.scratch().path().join("ferrule")
    }
}

fn problems(document: &Value) -> String {
    document["problems"].to_string()
}

#[test]
fn a_node_moves_step_by_step_and_each_step_may_be_repeated() {
    let old = OldNode::with_ptp();
    let (node, pods) = (&old.node, [Pod::new("a"), Pod::new("b")]);
    old.install_old();
    let results = [old.add(&pods[0], "web-0"), old.add(&pods[1], "web-1")];
    let before = listing(&old.networks());

    let looked = old.step("look", 0);
    assert_eq!((&looked["inUse"], &looked["hasConflist"]), (&json!("old"), &json!(false)), "{looked:#}");
    assert_eq!(looked["hostLocal"], json!(old.networks()));
    assert_eq!(states(&looked["import"]), ["imported", "imported"]);
    assert!(!node.data_dir().join("podnet").exists(), "a look writes nothing");

    // The same from a container that has the node's root directory elsewhere.
    let root = node.scratch().path().join("root");
    fs::create_dir(&root).unwrap();
    let mounted = "mount --rbind / \"$0\"; exec \"$@\"";
    let words = format!("{} --output json --root {}", old.step_words("look"), root.display());
    let shell = ["unshare", "--mount", "sh", "-ec", mounted].map(Into::into);
    let wrapper: Vec<std::ffi::OsString> = shell.into_iter().chain([root.into_os_string()]).collect();
    assert_eq!(verb(node, &words).through(wrapper).run().document(), Some(looked));

    // ferrule's conflist is not there yet: nothing may happen to the old one.
    let early = old.step("take", 1);
    assert!(problems(&early).contains("its agent has not come"), "{early:#}");
    assert_eq!(old.confs(), [OLD]);

    for _ in 0..2 {
        old.step("stage", 0);
        assert_eq!(old.confs(), [format!("00-ferrule-migrate-{OLD}")]);
    }
    let conf = old.install_ferrule();
    assert_eq!(old.step("look", 0)["inUse"], "old");
    // The old plugin's own DaemonSet is restarted and writes it once more.
    old.install_old();
    old.step("stage", 0);

    let taken = old.step("take", 0);
    assert_eq!(taken["inUse"], "ferrule");
    assert_eq!(states(&taken["import"]), ["imported", "imported"], "{taken:#}");
    assert_eq!(taken["carried"], json!(["portmap", "mesh"]));
    let kept = [format!("00-ferrule-migrate-{OLD}.was"), format!("{OLD}.was")];
    assert_eq!((old.confs(), names_in(&old.kept())), (vec![OURS.to_owned()], kept.to_vec()));
    let ours: Value = serde_json::from_slice(&fs::read(conf_dir(node).join(OURS)).unwrap()).unwrap();
    let types: Vec<&str> =
        ours["plugins"].as_array().unwrap().iter().filter_map(|it| it["type"].as_str()).collect();
    assert_eq!(types, ["ferrule", "portmap", "mesh"]);
    assert_eq!(listing(&old.networks()), before, "host-local's is the way back");

    let again = old.step("take", 0);
    assert_eq!(states(&again["import"]), ["already", "already"]);
    assert_eq!((&again["moved"], &again["carried"]), (&json!([]), &json!([])));

    let new = Pod::new("new");
    let result = node.add(&new, &conf);
    for (pod, old_result) in pods.iter().zip(&results) {
        expect_to_reach_each_other((pod, old_result), (&new, &result));
        node.del(pod, &conf);
    }
    node.del(&new, &conf);
    node.expect_nothing_left();
}

#[test]
fn pods_on_a_bridge_reach_new_ones_without_a_person() {
    let old = OldNode::with_bridge();
    let (node, pod) = (&old.node, Pod::new("a"));
    old.install_old();
    let old_result = old.add(&pod, "web-0");
    let conf = old.install_ferrule();
    // The agent's conflist comes first already, as where nobody staged: its pods are taken over all the same.
    assert_eq!(old.step("look", 0)["inUse"], "ferrule");
    let taken = old.step("take", 0);
    assert_eq!(taken["followed"].as_array().unwrap().len(), 2, "{taken:#}");
    assert!(taken["followed"].as_array().unwrap().iter().all(|it| it["problem"].is_null()), "{taken:#}");
    let new = Pod::new("new");
    let result = node.add(&new, &conf);
    expect_to_reach_each_other((&pod, &old_result), (&new, &result));
    assert_eq!(old.step("take", 0)["followed"], json!([]));
    [pod, new].iter().for_each(|pod| node.del(pod, &conf));
}

/// An ADD of the old plugin has begun before the swap and asks host-local after it. Its address must be nobody else's.
#[test]
fn an_add_that_is_under_way_is_waited_for() {
    let old = OldNode::with_ptp();
    let node = &old.node;
    old.install_old();
    let (first, late) = (Pod::new("first"), Pod::new("late"));
    old.add(&first, "first");
    old.step("stage", 0);
    let conf = old.install_ferrule();
    let slow = slow_host_local(node.scratch().path());
    let adding =
        old.call("ADD", &late).env("CNI_PATH", format!("{}:{REFERENCE_PLUGINS}", slow.display())).spawn();
    wait_for_words(&slow.join("log"), "begun");
    let taking = verb(node, &(old.step_words("take") + " --output json")).spawn();
    node.namespace().wait_until(&format!("[ -e {} ]", old.kept().join(format!("{OLD}.was")).display()));
    // The swap is done, the import is not: a new pod waits.
    assert_eq!(old.confs(), [OURS]);
    let new = Pod::new("new");
    let begun = Instant::now();
    let waiting = node.call_for("ADD", &new, &conf).spawn();
    let late_result = adding.wait().result();
    let taken = taking.wait().document().unwrap();
    let result = waiting.wait().result();
    assert!(begun.elapsed() > Duration::from_millis(500), "it did not wait");
    assert_eq!(states(&taken["import"]), ["imported", "imported"], "{taken:#}");
    let (late_has, new_has) = (addresses_of(&late_result), addresses_of(&result));
    assert!(late_has.iter().all(|it| !new_has.contains(it)), "{late_has:?} {new_has:?}");
    assert_eq!(node.held_addresses().len(), 6);
    [first, late, new].iter().for_each(|pod| node.del(pod, &conf));
}

/// host-local that takes its time.
fn slow_host_local(scratch: &Path) -> PathBuf {
    let directory = scratch.join("slow");
    fs::create_dir_all(&directory).unwrap();
    let program = directory.join("host-local");
    fs::write(
        &program,
        format!("#!/bin/sh\necho begun >>$(dirname $0)/log\nsleep 2\nexec {REFERENCE_PLUGINS}/host-local\n"),
    )
    .unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    directory
}

#[test]
fn what_does_not_fit_is_told_and_nothing_is_touched() {
    let old = OldNode::with_ptp();
    let (node, pod) = (&old.node, Pod::new("a"));
    old.install_old();
    old.add(&pod, "web-0");
    let before = (old.confs(), listing(&conf_dir(node)));
    let elsewhere =
        format!("--results {} --pod-cidr 10.99.0.0/24 --pod-cidr fd00:99::/64", old.results().display());
    for step in ["look", "stage", "take"] {
        let refused = document(node, &format!("migrate {step} {elsewhere}"), 1);
        assert!(problems(&refused).contains("not in the Node's podCIDRs"), "{refused:#}");
    }
    let renamed = document(node, &format!("{} --network other", old.step_words("stage")), 1);
    assert!(problems(&renamed).contains("FERRULE_NETWORK=podnet"), "{renamed:#}");
    let moved = old.networks().with_file_name("elsewhere");
    fs::rename(old.networks(), &moved).unwrap();
    let lost = old.step("stage", 1);
    assert!(problems(&lost).contains("--from"), "{lost:#}");
    fs::rename(&moved, old.networks()).unwrap();
    fs::write(conf_dir(node).join("05-other.conf"), "{\"name\":\"crio\",\"type\":\"bridge\"}").unwrap();
    assert!(problems(&old.step("stage", 1)).contains("05-other.conf"));
    fs::remove_file(conf_dir(node).join("05-other.conf")).unwrap();
    assert_eq!((old.confs(), listing(&conf_dir(node))), before);
    old.call("DEL", &pod).run().success();
}
