//! The store as its users suffer it: crashes, races, hostile files, reboots, and what it costs.
//!
//! What is on disk is read here with the standard library alone, never with the code under test.

mod allocation;
mod audits;
mod boots;
mod cost;
mod crash;
mod damage;
mod model;
mod no_masquerade;
mod node_addresses;
mod policy;
mod policy_objects;
mod races;
mod rot;
mod sysctl_backup;
mod vxlan_peers;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use super::env::{Env, FaultPoint};
use super::{BootId, Claim, RecordedNetns, Store};
use crate::cni::args::PodName;
use crate::cni::ids::{AttachmentKey, ContainerId, IfName, NetnsPath, NetworkName};
use crate::config::range::{Range, RangeSet, parse_subnet};

/// Long enough for any machine; reached only by a defect.
const PATIENCE: Duration = Duration::from_secs(60);

/// A directory of its own for one test, removed with it.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        Self::below(&std::env::temp_dir())
    }

    /// In memory where the machine has such a place: for tests that make very many files. The others are
    /// on the disk, as a store is.
    fn in_memory() -> Self {
        let memory = Path::new("/dev/shm");
        if memory.is_dir() { Self::below(memory) } else { Self::new() }
    }

    fn below(parent: &Path) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("ferrule-store-{}-{number}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn data_dir(&self) -> PathBuf {
        self.0.join("data")
    }

    /// The directory of the one network.
    fn root(&self) -> PathBuf {
        self.data_dir().join("podnet")
    }

    fn store(&self) -> Store {
        Store::open(&self.data_dir(), &network()).unwrap()
    }

    fn store_in(&self, env: &Arc<TestEnv>) -> Store {
        Store::open_in(Arc::clone(env) as Arc<dyn Env>, &self.data_dir(), &network()).unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A clock to be set, steps that are counted, and a death that can be ordered.
struct TestEnv {
    now: AtomicU64,
    looks: AtomicUsize,
    changes: AtomicUsize,
    /// From this change on every step fails, as if the process were dead.
    dies_at: AtomicUsize,
    /// This one change fails for want of space.
    fails_at: AtomicUsize,
    is_dead: AtomicBool,
}

impl TestEnv {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            now: AtomicU64::new(1_800_000_000),
            looks: AtomicUsize::new(0),
            changes: AtomicUsize::new(0),
            dies_at: AtomicUsize::new(usize::MAX),
            fails_at: AtomicUsize::new(usize::MAX),
            is_dead: AtomicBool::new(false),
        })
    }

    fn dying_at(change: usize) -> Arc<Self> {
        let env = Self::new();
        env.dies_at.store(change, Ordering::Relaxed);
        env
    }

    fn failing_at(change: usize) -> Arc<Self> {
        let env = Self::new();
        env.fails_at.store(change, Ordering::Relaxed);
        env
    }

    fn is_dead(&self) -> bool {
        self.is_dead.load(Ordering::Relaxed)
    }

    fn set_clock(&self, now: u64) {
        self.now.store(now, Ordering::Relaxed);
    }

    fn steps(&self) -> usize {
        self.looks.load(Ordering::Relaxed) + self.changes.load(Ordering::Relaxed)
    }
}

impl Env for TestEnv {
    fn unix_seconds(&self) -> u64 {
        self.now.load(Ordering::Relaxed)
    }

    fn admit(&self, step: FaultPoint) -> io::Result<()> {
        if step.changes {
            let change = self.changes.fetch_add(1, Ordering::Relaxed);
            if change >= self.dies_at.load(Ordering::Relaxed) {
                self.is_dead.store(true, Ordering::Relaxed);
            }
            if change == self.fails_at.load(Ordering::Relaxed) {
                return Err(io::Error::from(io::ErrorKind::StorageFull));
            }
        } else {
            self.looks.fetch_add(1, Ordering::Relaxed);
        }
        if self.is_dead() { Err(io::Error::other("killed by the test")) } else { Ok(()) }
    }
}

fn network() -> NetworkName {
    NetworkName::parse("podnet").unwrap()
}

fn boot(text: &str) -> BootId {
    BootId::parse(text).unwrap()
}

fn this_boot() -> BootId {
    boot("6c3b1c1e-5f0a-4a57-9d7e-0d6f1a2b3c4d")
}

fn key(container: &str) -> AttachmentKey {
    AttachmentKey {
        network: network(),
        container: ContainerId::parse(container).unwrap(),
        ifname: IfName::parse("eth0").unwrap(),
    }
}

fn claim(container: &str) -> Claim {
    let path = NetnsPath::parse(&format!("/run/netns/cni-{container}")).unwrap();
    Claim {
        imported_from: None,
        key: key(container),
        netns: Some(RecordedNetns { path, dev: 4, ino: 4_026_532_000 }),
        host_link: Some(IfName::parse("veth0123456789a").unwrap()),
        pod: Some(PodName { namespace: "default".into(), name: "web-0".into(), uid: None }),
        masquerade: false,
        host_ports: Vec::new(),
        mac: None,
        bandwidth: Default::default(),
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn set(subnet: &str) -> RangeSet {
    let range = Range::new(parse_subnet(subnet).unwrap(), None, None, None).unwrap();
    RangeSet::new(vec![range]).unwrap()
}

/// One family small enough to be filled, the other too large to be.
fn dual_stack() -> Vec<RangeSet> {
    vec![set("10.1.2.0/29"), set("fd00:1::/64")]
}

/// ADD of one container, as a command does it.
fn add(store: &Store, container: &str, sets: &[RangeSet]) -> Vec<IpAddr> {
    let mut locked = store.lock(&this_boot(), PATIENCE).unwrap();
    let (record, _hold) = locked.allocate(claim(container), sets, &[]).unwrap();
    record.addresses
}

/// DEL of one container.
fn del(store: &Store, container: &str) -> bool {
    store.lock(&this_boot(), PATIENCE).unwrap().release(&key(container)).unwrap().is_some()
}

/// The inode of each name in a directory of the store.
fn inodes(dir: &Path) -> BTreeMap<String, u64> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return BTreeMap::new(),
        Err(error) => panic!("{}: {error}", dir.display()),
    };
    let entries = entries.map(|entry| entry.unwrap());
    let inode = |path: PathBuf| std::fs::symlink_metadata(path).unwrap().ino();
    entries.map(|entry| (entry.file_name().into_string().unwrap(), inode(entry.path()))).collect()
}

/// Reads the whole store and holds it against what it promises: `tmp` is empty, each record's addresses
/// are named in `by-ip` by that very file, and no other name is there. Returns who has what.
fn audit(root: &Path) -> BTreeMap<String, BTreeSet<IpAddr>> {
    assert_eq!(inodes(&root.join("tmp")), BTreeMap::new(), "tmp is not empty");
    let by_id = inodes(&root.join("by-id"));
    let mut by_ip = inodes(&root.join("by-ip"));
    let mut holders = BTreeMap::new();
    for (name, inode) in by_id {
        let text = std::fs::read_to_string(root.join("by-id").join(&name)).unwrap();
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        let addresses = json["addresses"].as_array().unwrap().iter().map(|address| address.as_str().unwrap());
        let addresses: BTreeSet<IpAddr> = addresses.map(ip).collect();
        for address in &addresses {
            assert_eq!(by_ip.remove(&address.to_string()), Some(inode), "{address} of {name}");
        }
        holders.insert(name.trim_end_matches("@eth0").to_owned(), addresses);
    }
    assert_eq!(by_ip, BTreeMap::new(), "held for nobody");
    holders
}
