//! A mount namespace of its own: what is mounted there is seen by nobody else, and is gone with the guard.
//!
//! ```text
//! let mounts = Mounts::new("mount -t tmpfs -o size=64k none /var/lib/cni");
//! node.call("STATUS", &conf).through(mounts.wrapper()).run();
//! fs::read_dir(mounts.see(Path::new("/var/lib/cni")));
//! ```

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::process::expect;

/// The namespace, and the process that keeps it.
pub struct Mounts(Child);

impl Mounts {
    /// Runs `script` in a new mount namespace. What others mount later is seen there as well, the namespaces of pods for
    /// one. Files that the script leaves open stay open.
    pub fn new(script: &str) -> Self {
        let script = format!("set -e\n{script}\necho ready\nexec cat");
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "--propagation", "slave", "sh", "-c", &script]);
        let mut child = unshare.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        // The guard first: what follows may panic.
        let mounts = Self(child);
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n", "{script}");
        mounts
    }

    /// Words before a program that is to run there.
    pub fn wrapper(&self) -> [String; 3] {
        ["nsenter".into(), format!("--mount=/proc/{}/ns/mnt", self.0.id()), "--".into()]
    }

    /// Runs a script there, which must succeed.
    pub fn sh(&self, script: &str) {
        let [nsenter, mount, end] = self.wrapper();
        expect(&nsenter, &[&mount, &end, "sh", "-ec", script]);
    }

    /// The way from here to a path there.
    pub fn see(&self, path: &Path) -> PathBuf {
        Path::new("/proc").join(self.0.id().to_string()).join("root").join(path.strip_prefix("/").unwrap())
    }
}

impl Drop for Mounts {
    /// With its last process the namespace goes, and with it what was mounted there.
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
