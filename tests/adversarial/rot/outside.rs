//! Whatever stands where a file of the store belongs: nothing outside of the data directory is read, written or removed,
//! no command hangs, no address is given twice, STATUS and ADD agree, and a DEL works wherever it can.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use kit::answer::Answer;
use kit::call::Call;
use kit::network::Network;
use kit::pod::addresses_of;

/// What may stand in the place of a file or of a directory.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Trap {
    LinkToFile,
    LinkToDirectory,
    DanglingLink,
    HardLink,
    Fifo,
    Socket,
    Device,
    Directory,
    FullDirectory,
}

const TRAPS: [Trap; 9] = [
    Trap::LinkToFile,
    Trap::LinkToDirectory,
    Trap::DanglingLink,
    Trap::HardLink,
    Trap::Fifo,
    Trap::Socket,
    Trap::Device,
    Trap::Directory,
    Trap::FullDirectory,
];

/// Every name of the store; `""` is the store itself.
const PLACES: [&str; 14] = [
    "",
    "lock",
    "boot",
    "next",
    "by-id",
    "by-ip",
    "tmp",
    "cooldown",
    "by-id/victim@eth0",
    "by-ip/10.77.1.2",
    "by-ip/10.77.1.3",
    "tmp/victim@eth0",
    "tmp/boot",
    "cooldown/now",
];

/// A file and a directory that are none of ours.
struct Canary {
    directory: PathBuf,
    file: PathBuf,
    before: (Vec<u8>, i64, i64),
}

impl Canary {
    fn new(place: &Path) -> Self {
        let directory = place.join("outside");
        let file = directory.join("canary");
        fs::create_dir(&directory).unwrap();
        // What a reader of records would take for one.
        fs::write(&file, "{\"version\": 1, \"secret\": \"canary\"}\n").unwrap();
        let before = Self::look(&file);
        Self { directory, file, before }
    }

    /// Content, and when it was written.
    fn look(file: &Path) -> (Vec<u8>, i64, i64) {
        let metadata = fs::metadata(file).unwrap();
        (fs::read(file).unwrap(), metadata.mtime(), metadata.mtime_nsec())
    }

    /// Puts `trap` where `path` is, in the place of what is there.
    fn set(&self, trap: Trap, path: &Path) {
        let _ = fs::remove_file(path);
        let _ = fs::remove_dir_all(path);
        match trap {
            Trap::LinkToFile => symlink(&self.file, path).unwrap(),
            Trap::LinkToDirectory => symlink(&self.directory, path).unwrap(),
            Trap::DanglingLink => symlink(self.directory.join("absent"), path).unwrap(),
            Trap::HardLink => fs::hard_link(&self.file, path).unwrap(),
            Trap::Fifo => assert!(Command::new("mkfifo").arg(path).status().unwrap().success()),
            Trap::Socket => drop(UnixListener::bind(path).unwrap()),
            // One that takes whatever is written to it, and gives zeros for ever.
            Trap::Device => {
                assert!(Command::new("mknod").arg(path).args(["c", "1", "5"]).status().unwrap().success());
            }
            Trap::Directory => fs::create_dir(path).unwrap(),
            Trap::FullDirectory => fs::create_dir_all(path.join("within")).unwrap(),
        }
    }

    fn expect_untouched(&self, trial: &str) {
        assert_eq!(Self::look(&self.file), self.before, "{trial}: the canary was changed");
        let names = kit::files::names_in(&self.directory);
        assert_eq!(names, ["canary"], "{trial}: something was made or removed outside");
    }
}

/// Where links lead, nothing is read. strace tells the path of what is read.
struct Trace(PathBuf);

impl Trace {
    fn follow(&self, call: Call) -> Answer {
        let calls =
            "trace=read,pread64,readv,write,pwrite64,ftruncate,flock,getdents64,unlinkat,renameat,linkat";
        let file = self.0.to_str().unwrap();
        call.through(["strace", "-f", "-qq", "-y", "-e", calls, "-o", file]).run()
    }

    fn expect_nothing_of(&self, outside: &Path, trial: &str) {
        let text = fs::read_to_string(&self.0).unwrap();
        assert!(text.contains("read(0<"), "{trial}: strace saw nothing: {text}");
        let outside = format!("<{}", outside.display());
        let touched: Vec<&str> = text.lines().filter(|line| line.contains(&outside)).collect();
        assert_eq!(touched, Vec::<&str>::new(), "{trial}");
    }
}

fn network() -> Network {
    let mut network = Network::for_ipam("outside");
    network.conf["cniVersion"] = json!("1.1.0");
    network.conf["ipam"]["ranges"] = json!([[{ "subnet": "10.77.1.0/29" }]]);
    network
}

fn call(network: &Network, command: &str, container: &str) -> Call {
    network.call(command).attachment(container, network.node.namespace().path())
}

/// A failure with a code and a sentence, or a success: no defect, and no wait for a lock that nobody has.
fn expect_in_order(answer: &Answer, trial: &str) {
    if !answer.status.success() {
        let error = answer.document().unwrap_or_default();
        let code = error["code"].as_u64();
        assert!(matches!(code, Some(5 | 50 | 100 | 101 | 104 | 105)), "{trial}: {answer:?}");
    }
}

/// What no command removes, because it may be meant so, or because it would let two in: the store itself, and its lock.
fn is_for_a_person(trap: Trap, place: &str) -> bool {
    match place {
        "" => !matches!(trap, Trap::Directory | Trap::FullDirectory),
        "lock" => trap != Trap::HardLink,
        _ => false,
    }
}

fn try_trap(trap: Trap, place: &str) {
    let trial = format!("{trap:?} at {place:?}");
    let network = network();
    let store = network.store();
    let canary = Canary::new(network.node.scratch().path());
    let trace = Trace(network.node.scratch().path().join("trace"));
    call(&network, "ADD", "victim").run().success();
    let path = if place == "cooldown/now" {
        let seconds = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        store.path().join("cooldown").join((seconds / 30).to_string())
    } else {
        // Collected anew: joined with "", a path ends in a slash, which no link can.
        store.path().join(place).components().collect()
    };
    canary.set(trap, &path);

    let is_ready = network.call("STATUS").run();
    expect_in_order(&is_ready, &trial);
    let add = trace.follow(call(&network, "ADD", "other"));
    expect_in_order(&add, &trial);
    trace.expect_nothing_of(&canary.directory, &trial);
    assert_eq!(is_ready.status.success(), add.status.success(), "{trial}: STATUS {is_ready:?}; ADD {add:?}");
    assert_eq!(add.status.success(), !is_for_a_person(trap, place), "{trial}: {add:?}");
    // With the names of addresses gone, or the whole store, nothing is left that could tell of the victim.
    if add.status.success() && !["", "by-ip"].contains(&place) {
        assert_ne!(addresses_of(&add.result()), ["10.77.1.2"], "{trial}: it is the victim's");
    }
    expect_in_order(&call(&network, "ADD", "victim").run(), &trial);
    let mut conf: Value = network.conf.clone();
    conf["prevResult"] = json!({ "cniVersion": "1.1.0", "ips": [{ "address": "10.77.1.2/29" }] });
    expect_in_order(&call(&network, "CHECK", "victim").conf(&conf).run(), &trial);
    conf["cni.dev/valid-attachments"] = json!([{ "containerID": "victim", "ifname": "eth0" }]);
    expect_in_order(&network.call("GC").conf(&conf).run(), &trial);
    for container in ["victim", "other"] {
        let del = trace.follow(call(&network, "DEL", container));
        expect_in_order(&del, &trial);
        assert_eq!(del.status.success(), !is_for_a_person(trap, place), "{trial}: {del:?}");
    }
    canary.expect_untouched(&trial);
    if is_for_a_person(trap, place) {
        let _ = fs::remove_file(&path);
        let _ = fs::remove_dir_all(&path);
    }
    // What a DEL cannot know of, because its record had no name left, goes with the next GC.
    conf["cni.dev/valid-attachments"] = json!([]);
    network.call("GC").conf(&conf).run().success();
    // All can be had, but for the one in whose place a directory with something in it stands.
    let room = if place.starts_with("by-ip/") && trap == Trap::FullDirectory { 4 } else { 5 };
    for container in ["victim", "other"] {
        call(&network, "DEL", container).run().success();
    }
    for number in 0..room {
        call(&network, "ADD", &format!("last-{number}")).run().success();
    }
    canary.expect_untouched(&trial);
}

/// Each trap at each place, some at a time.
#[test]
fn nothing_outside_is_touched_and_the_store_is_repaired() {
    let trials: Vec<(Trap, &str)> =
        TRAPS.iter().flat_map(|&trap| PLACES.iter().map(move |&place| (trap, place))).collect();
    std::thread::scope(|scope| {
        for part in trials.chunks(trials.len().div_ceil(4)) {
            scope.spawn(move || part.iter().for_each(|&(trap, place)| try_trap(trap, place)));
        }
    });
}

/// What only the main role writes: where pods keep their source, settings of the node, the peers, and the log.
#[test]
fn nor_by_what_the_main_role_writes() {
    for trap in TRAPS {
        for place in ["no_masquerade", "tmp/no_masquerade", "sysctl_backup", "log", "log.1"] {
            let trial = format!("{trap:?} at {place:?}");
            let node = kit::node::Node::new();
            let mut conf = node.conf();
            conf["log"] = json!({ "level": "debug", "file": node.store().path().join("log") });
            conf["peers"] = json!([
                { "node": "b", "podCIDRs": ["10.89.0.0/24"], "nodeIPs": [kit::node::OUTSIDE_V4] },
            ]);
            let canary = Canary::new(node.scratch().path());
            let path = node.store().path().join(place);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            canary.set(trap, &path);
            if place == "log.1" {
                // Full, so that it is put aside.
                fs::write(node.store().path().join("log"), vec![b'\n'; 1 << 20]).unwrap();
            }
            let pod = kit::pod::Pod::new("pod");
            let add = node.try_add(&pod, &conf);
            // In the place of the two lists only a directory with something in it stays, which is a person's.
            let stays = trap == Trap::FullDirectory && ["no_masquerade", "sysctl_backup"].contains(&place);
            assert_eq!(add.status.success(), !stays, "{trial}: {add:?}");
            node.del(&pod, &conf);
            node.expect_nothing_left();
            canary.expect_untouched(&trial);
        }
    }
}
