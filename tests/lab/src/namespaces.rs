//! Entering the namespaces of a lab or a node, by way of their first process.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The mount, network and pid namespace that one process is the first of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Namespaces {
    /// That process, numbered as in our own pid namespace.
    pub init: u32,
}

impl Namespaces {
    /// A program in all three of them.
    ///
    /// Not by `ip netns exec`: that mounts /sys anew, and the cgroups below it are gone.
    pub fn command(self, program: &str) -> Command {
        let mut command = self.enter();
        command.args(["--mount", "--pid", program]);
        command
    }

    /// `ip` on their links. It still numbers processes as we do, so that it can be told a namespace by process.
    pub fn ip(self) -> Command {
        let mut command = self.enter();
        command.arg("ip");
        command
    }

    fn enter(self) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.init.to_string(), "--net"]);
        command
    }

    /// A file in their mount namespace, as it is reached from ours.
    pub fn path(self, absolute: &Path) -> PathBuf {
        let relative = absolute.strip_prefix("/").unwrap_or(absolute);
        Path::new("/proc").join(self.init.to_string()).join("root").join(relative)
    }
}
