//! A network namespace that exists as long as its guard.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};

/// A named namespace with only `lo` in it, removed on drop, also when the test panics.
pub struct Namespace {
    name: String,
    path: PathBuf,
}

impl Namespace {
    /// Makes one. `role` shows in its name, for whoever looks at a test that hangs.
    pub fn new(role: &str) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("ferrule-{}-{count}-{role}", std::process::id());
        let path = Path::new("/run/netns").join(&name);
        // The guard first: what follows may panic.
        let namespace = Self { name, path };
        expect_success("ip", &["netns", "add", &namespace.name]);
        namespace
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
        let mut arguments = vec!["-n", self.name()];
        arguments.extend(words.split(' '));
        expect_success("ip", &arguments)
    }

    /// Runs `ip` with the lines of `batch`, one command each, on this namespace.
    pub fn ip_batch(&self, batch: &str) {
        use std::io::Write;
        let mut ip = Command::new("ip");
        ip.args(["-n", self.name(), "-batch", "-"]).stdin(std::process::Stdio::piped());
        let mut child = ip.spawn().expect("ip is installed");
        child.stdin.take().unwrap().write_all(batch.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success(), "ip -batch");
    }

    /// The value of a sysctl of this namespace, by its path below /proc/sys.
    pub fn sysctl(&self, path: &str) -> String {
        let net = format!("--net={}", self.path.display());
        let value = expect_success("nsenter", &[&net, "cat", &format!("/proc/sys/{path}")]);
        value.trim_end().to_owned()
    }

    /// Sets a sysctl of this namespace, by its path below /proc/sys.
    pub fn set_sysctl(&self, path: &str, value: &str) {
        let net = format!("--net={}", self.path.display());
        let write = format!("echo {value} > /proc/sys/{path}");
        expect_success("nsenter", &[&net, "sh", "-c", &write]);
    }

    /// What a file of this namespace's /sys holds, by its path below /sys.
    pub fn in_sys(&self, path: &str) -> String {
        // `ip netns exec` mounts a /sys that shows the namespace's links.
        let path = format!("/sys/{path}");
        expect_success("ip", &["netns", "exec", self.name(), "cat", &path]).trim_end().to_owned()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // It may be gone: some tests remove it themselves.
        let _ = Command::new("ip").args(["netns", "delete", &self.name]).output();
    }
}

/// Runs a program and returns what it printed.
fn expect_success(program: &str, arguments: &[&str]) -> String {
    let run = Command::new(program).args(arguments).output();
    let Output { status, stdout, stderr } = run.unwrap_or_else(|error| panic!("{program}: {error}"));
    let stderr = String::from_utf8_lossy(&stderr);
    assert!(status.success(), "{program} {}: {stderr}", arguments.join(" "));
    String::from_utf8(stdout).unwrap()
}
