//! The store under many processes at once, and under one that will not let go of it.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use kit::network::Network;

/// ADD or DEL as IPAM plugin for `container`.
fn call(network: &Network, command: &str, container: &str) -> kit::answer::Answer {
    network.call(command).attachment(container, network.node.namespace().path()).run()
}

fn address(result: &Value) -> String {
    result["ips"][0]["address"].as_str().unwrap().to_owned()
}

/// A process that holds the store's lock until it is killed.
struct Holder(Child);

impl Holder {
    fn of(network: &Network) -> Self {
        let lock = network.store().path().join("lock");
        let mut flock = Command::new("flock");
        flock.arg("--no-fork").arg(lock).args(["sh", "-c", "echo held; exec sleep 60"]);
        let mut child = flock.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let holder = Self(child);
        assert_eq!(line, "held\n");
        holder
    }
}

impl Drop for Holder {
    /// By SIGKILL, as the kernel's own out-of-memory killer does it.
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// plugins#1038 and its like: two pods of a burst with one address.
#[test]
fn sixteen_processes_at_once_never_get_the_same_address() {
    const LANES: usize = 16;
    const ROUNDS: usize = 12;
    let mut network = Network::for_ipam("burst");
    network.conf["ipam"]["ranges"] = json!([[{"subnet": "10.77.0.0/23"}], [{"subnet": "fd00:77:1::/64"}]]);
    let network = &network;
    // Every third attachment goes again at once, so that ADD and DEL meet.
    let stays = |round: usize| !round.is_multiple_of(3);
    let given: Vec<Value> = std::thread::scope(|scope| {
        let lanes: Vec<_> = (0..LANES)
            .map(|lane| {
                scope.spawn(move || {
                    let mut given = Vec::new();
                    for round in 0..ROUNDS {
                        let container = format!("c{lane}-{round}");
                        let result = call(network, "ADD", &container).success();
                        if stays(round) {
                            given.push(result);
                        } else {
                            call(network, "DEL", &container).success();
                        }
                    }
                    given
                })
            })
            .collect();
        lanes.into_iter().flat_map(|lane| lane.join().unwrap()).collect()
    });
    for family in [0, 1] {
        let distinct: BTreeSet<&str> =
            given.iter().map(|result| result["ips"][family]["address"].as_str().unwrap()).collect();
        assert_eq!(distinct.len(), given.len());
    }
    assert_eq!(network.held().len(), 2 * given.len());
    assert_eq!(network.known().len(), given.len());
    assert_eq!(network.store().unfinished(), Vec::<String>::new());
}

/// Sixteen ADDs of one container: a runtime that retries while its first attempt still runs.
#[test]
fn of_many_ipam_adds_at_once_one_holds_an_address() {
    let network = &Network::for_ipam("same");
    let answers: Vec<_> = std::thread::scope(|scope| {
        let lanes: Vec<_> = (0..16).map(|_| scope.spawn(move || call(network, "ADD", "c1"))).collect();
        lanes.into_iter().map(|lane| lane.join().unwrap()).collect()
    });
    let (won, lost): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status.success());
    assert_eq!(won.len(), 1);
    for answer in lost {
        answer.complaint(101);
    }
    assert_eq!(network.held().len(), 2);
    call(network, "DEL", "c1").success();
    network.assert_nothing_remains();
}

#[test]
fn the_last_address_goes_to_one_of_many() {
    let mut network = Network::for_ipam("last");
    network.conf["ipam"]["ranges"] = json!([[{"subnet": "10.77.1.0/29"}]]);
    let network = &network;
    let answers: Vec<_> = std::thread::scope(|scope| {
        let lanes: Vec<_> =
            (0..16).map(|lane| scope.spawn(move || call(network, "ADD", &format!("c{lane}")))).collect();
        lanes.into_iter().map(|lane| lane.join().unwrap()).collect()
    });
    let (won, lost): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status.success());
    assert_eq!(won.len(), 5, "eight less network, broadcast and gateway");
    for answer in lost {
        let complaint = answer.complaint(100);
        assert!(complaint.contains("10.77.1.0/29") || complaint.contains("10.77.1.2"), "{complaint}");
        assert!(complaint.contains('5'), "{complaint}");
    }
    assert_eq!(network.held(), ["10.77.1.2", "10.77.1.3", "10.77.1.4", "10.77.1.5", "10.77.1.6"]);
}

/// host-local waits for ever; kubelet then counts minutes (k8s#107561).
#[test]
fn a_held_lock_is_code_11_after_some_seconds() {
    let network = Network::for_ipam("stuck");
    let kept = address(&call(&network, "ADD", "kept").success());
    let before = (network.held(), network.known());
    let holder = Holder::of(&network);
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let add = scope.spawn(|| call(&network, "ADD", "c1"));
        let del = scope.spawn(|| call(&network, "DEL", "kept"));
        for answer in [add.join().unwrap(), del.join().unwrap()] {
            let complaint = answer.complaint(11);
            assert!(complaint.contains("lock") && complaint.contains("lslocks"), "{complaint}");
        }
    });
    let waited = begun.elapsed();
    assert!(waited > Duration::from_secs(3) && waited < Duration::from_secs(30), "{waited:?}");
    assert_eq!((network.held(), network.known()), before);

    drop(holder);
    call(&network, "DEL", "kept").success();
    assert_ne!(address(&call(&network, "ADD", "c1").success()), kept, "a freed address comes back last");
    call(&network, "DEL", "c1").success();
    network.assert_nothing_remains();
}

#[test]
fn a_process_killed_with_the_lock_blocks_nobody() {
    let network = Network::for_ipam("killed");
    call(&network, "ADD", "c0").success();
    let holder = Holder::of(&network);
    let waiting = network.call("ADD").attachment("c1", network.node.namespace().path()).spawn();
    drop(holder);
    waiting.wait().success();
    let begun = Instant::now();
    call(&network, "ADD", "c2").success();
    assert!(begun.elapsed() < Duration::from_secs(3));
    assert_eq!(network.known().len(), 3);
}

/// STATUS every five seconds must not fail, or wait, because an ADD is at work.
#[test]
fn status_does_not_need_the_lock() {
    let mut network = Network::for_ipam("status");
    network.conf["cniVersion"] = json!("1.1.0");
    call(&network, "ADD", "c0").success();
    let _holder = Holder::of(&network);
    let begun = Instant::now();
    network.call("STATUS").run().success();
    assert!(begun.elapsed() < Duration::from_secs(3));
}

/// What an administrator sees who looks for an address by hand.
#[test]
fn a_record_can_be_read_with_cat() {
    let network = Network::for_ipam("cat");
    let result = call(&network, "ADD", "c1").success();
    let address = address(&result);
    let by_ip = network.store().path().join("by-ip").join(address.split('/').next().unwrap());
    let text = std::fs::read_to_string(by_ip).unwrap();
    assert!(text.ends_with("}\n"));
    let record: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(record, network.store().record("c1"));
    assert_eq!(
        (&record["version"], &record["network"], &record["container"], &record["ifname"]),
        (&json!(1), &json!("net"), &json!("c1"), &json!("eth0"))
    );
    assert_eq!(record["netns"]["path"], network.node.namespace().path().to_str().unwrap());
}
