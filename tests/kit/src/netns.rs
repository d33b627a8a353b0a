//! A network namespace that exists as long as its guard.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::process::{expect, run_in};

/// A named namespace with only `lo` in it, removed on drop, also when the test panics.
pub struct Namespace {
    name: String,
    path: PathBuf,
    is_ours: bool,
}

impl Namespace {
    /// Makes one. `role` shows in its name, for whoever looks at a test that hangs.
    pub fn new(role: &str) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("ferrule-{}-{count}-{role}", std::process::id());
        let path = Path::new("/run/netns").join(&name);
        // The guard first: what follows may panic.
        let namespace = Self { name, path, is_ours: true };
        expect("ip", &["netns", "add", &namespace.name]);
        namespace
    }

    /// One with an uplink `up0` that leads nowhere, 192.168.9.1/24 and fd09::1/64.
    pub fn with_uplink(role: &str) -> Self {
        let namespace = Self::new(role);
        namespace.ip_batch(
            "link set lo up\nlink add up0 type veth peer up1\nlink set up0 up\nlink set up1 up\n\
             address add 192.168.9.1/24 dev up0\naddress add fd09::1/64 dev up0 nodad\n",
        );
        namespace
    }

    /// The one that is at `path`, which somebody else made and removes.
    pub fn at(path: &Path) -> Self {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Self { name, path: path.to_owned(), is_ours: false }
    }

    /// The one that the calling thread is in.
    pub fn here() -> Self {
        Self::at(Path::new("/proc/self/ns/net"))
    }

    /// Its name, as `ip netns` has it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it can be opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `ip` with `words`, separated by spaces, on this namespace. Panics unless it succeeds.
    pub fn ip(&self, words: &str) -> String {
        run_in(self, "ip", words.split(' '), "").unwrap_or_else(|failed| panic!("{failed}"))
    }

    /// Runs `ip` with the lines of `batch`, one command each, on this namespace.
    pub fn ip_batch(&self, batch: &str) {
        run_in(self, "ip", ["-batch", "-"], batch).unwrap_or_else(|failed| panic!("{failed}"));
    }

    /// A program in this namespace.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path.display())).arg("--").arg(program);
        command
    }

    /// Runs a script in this namespace, which must succeed; what it printed.
    pub fn sh(&self, script: &str) -> String {
        run_in(self, "sh", ["-ec", script], "").unwrap_or_else(|failed| panic!("{failed}"))
    }

    /// Waits until a command of the shell succeeds in this namespace: some things the kernel does in its own time.
    pub fn wait_until(&self, condition: &str) {
        self.sh(&format!(
            "for _ in $(seq 2000); do if {condition}; then exit 0; fi; sleep 0.01; done; exit 1"
        ));
    }

    /// Makes it forward packets of both families, with rp_filter at `rp_filter` for all links that come.
    pub fn forward(&self, rp_filter: u8) {
        self.sh(&format!(
            "cd /proc/sys/net; echo 1 >ipv4/ip_forward; echo 1 >ipv6/conf/all/forwarding
             for links in all default; do echo {rp_filter} >ipv4/conf/$links/rp_filter; done"
        ));
    }

    /// The value of a sysctl of this namespace, by its path below /proc/sys.
    pub fn sysctl(&self, path: &str) -> String {
        self.sh(&format!("cat /proc/sys/{path}")).trim_end().to_owned()
    }

    /// Sets a sysctl of this namespace, by its path below /proc/sys.
    pub fn set_sysctl(&self, path: &str, value: &str) {
        self.sh(&format!("echo {value} > /proc/sys/{path}"));
    }

    /// What a file of this namespace's /sys holds, by its path below /sys.
    pub fn in_sys(&self, path: &str) -> String {
        // `ip netns exec` mounts a /sys that shows the namespace's links.
        let path = format!("/sys/{path}");
        expect("ip", &["netns", "exec", self.name(), "cat", &path]).trim_end().to_owned()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if !self.is_ours {
            return;
        }
        // It may be gone: some tests remove it themselves.
        let _ = Command::new("ip").args(["netns", "delete", &self.name]).output();
    }
}

impl AsRef<Path> for Namespace {
    fn as_ref(&self) -> &Path {
        &self.path
    }
}

/// Runs `work` inside `namespace`, on a thread that is thrown away.
pub fn inside<T: Send>(namespace: impl AsRef<Path>, work: impl FnOnce() -> T + Send) -> T {
    let file = File::open(namespace).expect("the namespace is there");
    std::thread::scope(|scope| {
        let enter = move || {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).expect("setns");
            work()
        };
        let outcome = scope.spawn(enter).join();
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
