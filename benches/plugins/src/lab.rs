//! Where the measuring happens: a node (this process's network namespace), pods (empty network namespaces), and
//! directories for what the plugins remember.

use crate::Failure;
use crate::contender::FERRULE;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// The node's address of each family. `benches/floor.c` has them too.
pub const NODE_IPS: [&str; 2] = ["192.168.0.1", "fd00:1::1"];

/// What ferrule remembers is on a disk of its own: on a node nobody else makes and deletes files beside it.
const DISKS: [&str; 2] = ["ours", "theirs"];

/// The directory that `scripts/bench.sh` made, with the programs in it, and the peers' directory.
pub struct Lab {
    work: PathBuf,
    plugins: PathBuf,
    pods: AtomicUsize,
}

/// An empty network namespace, for one ADD.
pub struct Pod {
    /// What tells it from every other of this run; below 60,000.
    pub number: usize,
    /// Its container id: 64 hex digits, as containerd's are.
    pub container: String,
    /// Where its namespace is mounted.
    pub netns: PathBuf,
}

impl Lab {
    /// Takes what `scripts/bench.sh` prepared.
    pub fn new(work: PathBuf, plugins: PathBuf) -> Result<Lab, Failure> {
        fs::create_dir(work.join("netns"))?;
        fs::create_dir(work.join("data"))?;
        let lab = Lab { work, plugins, pods: AtomicUsize::new(0) };
        DISKS.iter().try_for_each(|disk| lab.mount(disk))?;
        Ok(lab)
    }

    /// Empty disks for each part of the run, in the place of those before. Whoever makes a file on an ext4 pays for all
    /// that was deleted there in the last five minutes: it looks at each inode that it is not to use again so soon
    /// (`recently_deleted` of fs/ext4/ialloc.c). After 4,000 files of somebody else an ADD took a fifth longer, and after
    /// the parts before it six times as long.
    pub fn change_disks(&self) -> Result<(), Failure> {
        for disk in DISKS {
            run("umount", &[&self.work.join("data").join(disk).display().to_string()])?;
            self.mount(disk)?;
        }
        Ok(())
    }

    /// Large enough for the fullest store.
    fn mount(&self, disk: &str) -> Result<(), Failure> {
        let (image, data) = (self.work.join(format!("{disk}.ext4")), self.work.join("data").join(disk));
        File::create(&image)?.set_len(1 << 30)?;
        fs::create_dir_all(&data)?;
        let (image, data) = (image.display().to_string(), data.display().to_string());
        let at_once = "lazy_itable_init=0,lazy_journal_init=0";
        run("mkfs.ext4", &["-q", "-F", "-N", "200000", "-E", at_once, &image])?;
        run("mount", &["-o", "loop", &image, &data])?;
        Ok(())
    }

    /// Makes the network namespace that this thread is in a node: an underlay with an address of each family.
    pub fn set_up_node(&self) -> Result<(), Failure> {
        for arguments in [
            "link set lo up",
            // A pair rather than a dummy, which not every kernel has.
            "link add underlay type veth peer name underlay-far",
            "link set underlay-far up",
            "link set underlay up",
            &format!("address add {}/16 dev underlay", NODE_IPS[0]),
            &format!("address add {}/64 dev underlay nodad", NODE_IPS[1]),
        ] {
            run("ip", &arguments.split(' ').collect::<Vec<_>>())?;
        }
        fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
        fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1")?;
        Ok(())
    }

    /// A network namespace, mounted where the name says; it lives as long as this process.
    pub fn make_netns(&self, name: &str) -> Result<PathBuf, Failure> {
        let path = self.work.join("netns").join(name);
        File::create(&path)?;
        run("unshare", &[&format!("--net={}", path.display()), "true"])?;
        Ok(path)
    }

    /// A fresh pod: what an ADD finds differs between a new namespace and one that was used before.
    pub fn make_pod(&self) -> Result<Pod, Failure> {
        let number = self.pods.fetch_add(1, Ordering::Relaxed);
        let netns = self.make_netns(&format!("cni-{number}"))?;
        Ok(Pod { number, container: format!("{number:064x}"), netns })
    }

    /// Several of them.
    pub fn make_pods(&self, count: usize) -> Result<Vec<Pod>, Failure> {
        (0..count).map(|_| self.make_pod()).collect()
    }

    /// Ends the pods' namespaces, as a killed sandbox does. Those that nobody measures any more would slow everybody: a
    /// name below /proc/sys/net has an entry for each namespace, all in one chain.
    pub fn end_pods(&self, pods: &[Pod]) -> Result<(), Failure> {
        if pods.is_empty() {
            return Ok(());
        }
        let paths: Vec<String> = pods.iter().map(|pod| pod.netns.display().to_string()).collect();
        run("umount", &paths.iter().map(String::as_str).collect::<Vec<_>>())?;
        pods.iter().try_for_each(|pod| fs::remove_file(&pod.netns))?;
        self.settle(pods.len() as u32);
        Ok(())
    }

    /// Lets the kernel finish what was left to it: links and elements that wait for a grace period, sockets that wait for
    /// those. It belongs to nobody who is measured, and would hit the next.
    #[expect(
        clippy::disallowed_methods,
        reason = "a grace period of the kernel tells nobody that it is over"
    )]
    pub fn settle(&self, pods: u32) {
        thread::sleep(Duration::from_millis(20) + Duration::from_millis(5) * pods);
    }

    /// Whether somebody gave the pod its link.
    pub fn has_link(&self, pod: &Pod) -> Result<bool, Failure> {
        let netns = format!("--net={}", pod.netns.display());
        Ok(run("nsenter", &[&netns, "ip", "-o", "link", "show"])?.contains(" eth0@"))
    }

    /// How many links the node has that were made for pods.
    pub fn count_pod_links(&self) -> Result<usize, Failure> {
        Ok(run("ip", &["-o", "link", "show"])?.lines().filter(|line| line.contains(" veth")).count())
    }

    /// The plugin that is measured.
    pub fn ferrule(&self) -> PathBuf {
        self.work.join("bin/ferrule")
    }

    /// `benches/floor.c`, built.
    pub fn floor(&self) -> PathBuf {
        self.work.join("floor")
    }

    /// `benches/peak.c`, built.
    pub fn peak(&self) -> PathBuf {
        self.work.join("peak")
    }

    /// Where the peers are.
    pub fn plugins(&self) -> &Path {
        &self.plugins
    }

    /// One of them.
    pub fn plugin(&self, name: &str) -> PathBuf {
        self.plugins.join(name)
    }

    /// A directory for what a plugin remembers; it is the plugin that makes it.
    pub fn data_dir(&self, name: &str) -> PathBuf {
        let [ours, theirs] = DISKS;
        self.work.join("data").join(if name.starts_with(FERRULE) { ours } else { theirs }).join(name)
    }
}

/// Runs a program of the system for its effect, and returns what it wrote.
pub fn run(program: &str, arguments: &[&str]) -> Result<String, Failure> {
    Ok(kit::process::output(program, arguments)?)
}
