//! Random sequences against the model of tests/adversarial/model: the store alone, below a kernel that is a map.
//!
//! What the commands do with the store is here in short: in which order they take lock and hold, and when they begin
//! anew. The same sequences run on the commands themselves, with real namespaces, in tests/adversarial/model.

#[path = "../../../tests/adversarial/model/disk.rs"]
mod disk;
#[path = "../../../tests/adversarial/model/law.rs"]
mod law;
#[path = "../../../tests/adversarial/model/play.rs"]
mod play;
mod process;
#[path = "../../../tests/adversarial/model/step.rs"]
mod step;

use std::sync::{Barrier, Mutex};

use super::*;
use disk::Disk;
use law::{Answer, Held, Life, Seen};
use play::{Subject, play_all};
use process::Process;
use step::{Command, Conf, Pod, any_step};

/// Up to more than any command makes, so that some come to their end.
const KILLS: u16 = 24;

#[test]
fn whatever_happens_the_store_does_as_the_model_says() {
    play_all(600, 60, 30, any_step(KILLS), Bench::new);
}

/// A store, and what surrounds it.
struct Bench {
    scratch: Scratch,
    conf: Conf,
    boots: u32,
    now: u64,
    kernel: Mutex<Kernel>,
}

/// What the kernel has.
#[derive(Default)]
struct Kernel {
    /// The inode of each pod's namespace.
    namespaces: BTreeMap<Pod, u64>,
    /// Pods with a link.
    links: BTreeSet<Pod>,
    /// Inodes that there were.
    inodes: u64,
}

impl Bench {
    fn new() -> Self {
        let kernel = Mutex::default();
        Self { scratch: Scratch::in_memory(), conf: Conf::FIRST, boots: 0, now: 1_800_000_000, kernel }
    }

    fn boot(&self) -> BootId {
        boot(&format!("boot-{}", self.boots))
    }

    fn sets(&self) -> Vec<RangeSet> {
        let set = |(first, last): (IpAddr, IpAddr)| {
            let subnet = if first.is_ipv4() { "10.88.0.0/24" } else { "fd00:88::/64" };
            let range = Range::new(parse_subnet(subnet).unwrap(), Some(first), Some(last), None);
            RangeSet::new(vec![range.unwrap()]).unwrap()
        };
        self.conf.bounds().map(set).into()
    }

    /// An ADD is called with a namespace: made, if the pod has none.
    fn unshare(&self, command: &Command) {
        let Command::Add(pod) = command else { return };
        let mut kernel = self.kernel.lock().unwrap();
        let next = kernel.inodes + 1;
        kernel.inodes = next;
        kernel.namespaces.entry(*pod).or_insert(next);
    }

    /// Runs a command in a process that dies before its `at`th change. `None` if it did.
    fn execute(&self, command: &Command, at: usize) -> Option<Answer> {
        let env = TestEnv::dying_at(at);
        env.set_clock(self.now);
        let outcome = Process { bench: self, env: &env }.run(command);
        // A death in the housekeeping after a DEL leaves its answer as it is; but nobody hears it.
        (!env.is_dead()).then(|| outcome.unwrap_or_else(|error| panic!("{command}: {error}")))
    }
}

impl Subject for Bench {
    fn run(&mut self, command: &Command) -> Answer {
        self.unshare(command);
        self.execute(command, usize::MAX).unwrap()
    }

    fn kill(&mut self, command: &Command, at: u16) -> Option<Answer> {
        self.unshare(command);
        self.execute(command, at.into())
    }

    fn run_at_once(&mut self, commands: &[Command]) -> Vec<Answer> {
        commands.iter().for_each(|command| self.unshare(command));
        let (bench, barrier) = (&*self, Barrier::new(commands.len()));
        std::thread::scope(|scope| {
            let start = |command| {
                let barrier = &barrier;
                scope.spawn(move || {
                    barrier.wait();
                    bench.execute(command, usize::MAX).unwrap()
                })
            };
            let running: Vec<_> = commands.iter().map(start).collect();
            running.into_iter().map(|thread| thread.join().unwrap()).collect()
        })
    }

    fn die(&mut self, pod: Pod) {
        let kernel = self.kernel.get_mut().unwrap();
        kernel.namespaces.remove(&pod);
        kernel.links.remove(&pod);
    }

    fn unplug(&mut self, pod: Pod) {
        self.kernel.get_mut().unwrap().links.remove(&pod);
    }

    fn reboot(&mut self) {
        self.boots += 1;
        let kernel = self.kernel.get_mut().unwrap();
        kernel.namespaces.clear();
        kernel.links.clear();
    }

    fn reconfigure(&mut self, conf: Conf) {
        self.conf = conf;
    }

    fn wait(&mut self, seconds: u64) {
        self.now += seconds;
    }

    fn look(&mut self) -> Result<Seen, String> {
        let disk = Disk::read(&self.scratch.root())?;
        let kernel = self.kernel.get_mut().unwrap();
        let mut pods = BTreeMap::new();
        for pod in Pod::all() {
            let has_link = kernel.links.contains(&pod);
            let Some(record) = disk.records.get(&process::container(pod)) else {
                if has_link {
                    return Err(format!("{pod} has a link, and no record"));
                }
                continue;
            };
            assert_eq!(record.host_link, "veth0123456789a");
            let life = match kernel.namespaces.get(&pod) == Some(&record.netns) {
                true if has_link => Life::Whole,
                true => Life::Unfinished,
                false => Life::Dead,
            };
            pods.insert(pod, Held { addresses: record.addresses.clone(), life });
        }
        let is_of_this_boot = disk.boot.is_none_or(|boot| boot == self.boot().as_str());
        Ok(Seen { pods, is_of_this_boot, left: disk.left })
    }
}
