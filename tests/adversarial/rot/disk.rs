//! A disk without room, without inodes, or that cannot be written: an ADD leaves nothing, a DEL works where it can, and
//! with the disk right again all is right.

use std::fs;

use serde_json::{Value, json};

use kit::answer::Answer;
use kit::ip;
use kit::mounts::Mounts;
use kit::node::Node;
use kit::pod::{Pod, addresses_of};
use kit::store::Store;

/// A node whose store is on a file system of its own.
struct Disk {
    node: Node,
    conf: Value,
    mounts: Mounts,
}

impl Disk {
    /// In memory, mounted with these options.
    fn with(options: &str) -> Self {
        let node = Node::new();
        let conf = node.conf();
        fs::create_dir(node.data_dir()).unwrap();
        let mounts = Mounts::new(&format!("mount -t tmpfs -o {options} none {}", node.data_dir().display()));
        Self { node, conf, mounts }
    }

    /// A command on the node, of no pod.
    fn run(&self, command: &str) -> Answer {
        self.node.call(command, &self.conf).through(self.mounts.wrapper()).run()
    }

    fn run_for(&self, command: &str, pod: &Pod) -> Answer {
        self.node.call_for(command, pod, &self.conf).through(self.mounts.wrapper()).run()
    }

    /// GC that leaves only `pod` standing.
    fn gc(&self, pod: &Pod) -> Answer {
        let mut conf = self.conf.clone();
        conf["cni.dev/valid-attachments"] = json!([{ "containerID": pod.container(), "ifname": "eth0" }]);
        self.node.call("GC", &conf).through(self.mounts.wrapper()).run()
    }

    fn check(&self, pod: &Pod, result: &Value) -> Answer {
        let mut conf = self.conf.clone();
        conf["prevResult"] = result.clone();
        self.node.call_for("CHECK", pod, &conf).through(self.mounts.wrapper()).run()
    }

    fn store(&self) -> Store {
        Store::of(&self.mounts.see(&self.node.data_dir()), "podnet")
    }

    /// Runs a script in the data directory.
    fn sh(&self, script: &str) {
        self.mounts.sh(&format!("cd {}; {script}", self.node.data_dir().display()));
    }

    /// What is remembered and what is plumbed.
    fn state(&self) -> (Vec<String>, Vec<String>, Vec<String>) {
        (self.store().known(), self.store().held(), self.node.host_links())
    }
}

/// What a disk runs out of: a name for it, the options that bound it, and what uses it up.
const FULL: [(&str, &str, &str); 2] = [
    ("blocks", "size=96k", "dd if=/dev/zero of=filler bs=4k 2>/dev/null || true"),
    ("inodes", "nr_inodes=64", "n=0; while touch filler-$n 2>/dev/null; do n=$((n+1)); done"),
];

#[test]
fn on_a_full_disk_add_leaves_nothing_and_the_rest_works() {
    for (what, options, fill) in FULL {
        let disk = Disk::with(options);
        let [stays, goes, dead, refused] = ["stays", "goes", "dead", "refused"].map(Pod::new);
        let result = disk.run_for("ADD", &stays).result();
        let freed = addresses_of(&disk.run_for("ADD", &goes).result());
        disk.run_for("ADD", &dead).success();
        disk.run("STATUS").success();
        disk.sh(fill);
        let before = disk.state();
        let said = disk.run_for("ADD", &refused).complaint(5);
        assert!(said.contains("make room (df, df -i)"), "{what}: {said}");
        assert_eq!(disk.state(), before, "{what}");
        assert_eq!(ip::links(refused.namespace()).len(), 1, "{what}");
        // The kubelet is told, instead of one pod after the other.
        let said = disk.run("STATUS").complaint(50);
        assert!(said.contains("make room"), "{what}: {said}");
        disk.check(&stays, &result).success();
        disk.run_for("DEL", &goes).success();
        assert!(!disk.store().held().iter().any(|held| freed.contains(held)), "{what}");
        disk.sh(fill);
        disk.gc(&stays).success();
        assert_eq!(disk.store().known(), [format!("{}@eth0", stays.container())], "{what}");
        disk.sh("rm -f filler*");
        disk.run("STATUS").success();
        disk.run_for("ADD", &refused).success();
        for pod in [&stays, &refused] {
            disk.run_for("DEL", pod).success();
        }
        disk.store().expect_empty();
        assert_eq!(disk.node.host_links(), Vec::<String>::new(), "{what}");
    }
}

/// Kubelet sends the DELs of all pods of the last boot, on a disk that a log has filled.
#[test]
fn on_a_full_disk_after_a_reboot_addresses_are_free() {
    for (what, options, fill) in FULL {
        let disk = Disk::with(options);
        let pods = ["a", "b"].map(Pod::new);
        for pod in &pods {
            disk.run_for("ADD", pod).success();
            pod.die();
        }
        disk.node.wait_for_host_links(0);
        disk.store().rewrite_records(|record| record["bootId"] = json!("an-earlier-boot"));
        fs::write(disk.store().path().join("boot"), "an-earlier-boot\n").unwrap();
        disk.sh(fill);
        for pod in &pods {
            disk.run_for("DEL", pod).success();
        }
        disk.store().expect_empty();
        disk.sh("rm -f filler*");
        let next = Pod::new("next");
        disk.run_for("ADD", &next).success();
        assert_eq!(disk.store().known().len(), 1, "{what}");
    }
}

#[test]
fn a_read_only_disk_is_told_and_cleaned_up_later() {
    let disk = Disk::with("size=1m");
    let [pod, refused] = ["pod", "refused"].map(Pod::new);
    let result = disk.run_for("ADD", &pod).result();
    let here = disk.node.data_dir();
    disk.mounts.sh(&format!("mount -o remount,ro {}", here.display()));
    let before = disk.state();
    let said = disk.run_for("ADD", &refused).complaint(5);
    assert!(said.contains("set dataDir to a directory that can be written"), "{said}");
    assert_eq!(disk.state(), before);
    let said = disk.run("STATUS").complaint(50);
    assert!(said.contains(here.to_str().unwrap()), "{said}");
    disk.check(&pod, &result).success();
    // The link goes; the address stays, and a repetition of the DEL frees it.
    disk.run_for("DEL", &pod).failure(5);
    assert_eq!(disk.node.host_links(), Vec::<String>::new());
    assert_eq!(disk.store().held(), before.1);
    disk.gc(&refused).failure(5);
    disk.mounts.sh(&format!("mount -o remount,rw {}", here.display()));
    disk.run_for("DEL", &pod).success();
    disk.store().expect_empty();
    disk.run_for("ADD", &refused).success();
}

/// A machine that came up without its data volume: what was mounted there is not, and the mount point is read-only.
#[test]
fn a_missing_data_dir_fails_adds_and_no_del() {
    let disk = Disk::with("size=1m");
    let pod = Pod::new("pod");
    disk.mounts.sh(&format!("mount -o remount,ro {}", disk.node.data_dir().display()));
    disk.run_for("DEL", &pod).success();
    disk.run("STATUS").failure(50);
    disk.run_for("ADD", &pod).failure(5);
    assert_eq!(disk.node.host_links(), Vec::<String>::new());
    assert_eq!(ip::links(pod.namespace()).len(), 1);
}
