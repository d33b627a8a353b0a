//! Whether the agent's directories are still those of the node. It has them by mounts: if somebody removes or moves one of
//! them on the node, the agent goes on writing into a directory that nobody else sees, and only a new mount helps.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// What the kernel says of them, and when the agent began.
#[derive(Debug)]
pub struct Mounts {
    directories: Vec<PathBuf>,
    /// Mount points above them, each with the directory of its file system that is mounted there.
    roots: BTreeMap<PathBuf, String>,
}

impl Mounts {
    /// The mounts in which these directories are, now.
    pub fn of(directories: Vec<PathBuf>) -> Self {
        let roots = read(&directories);
        Self { directories, roots }
    }

    /// A mount point whose directory was removed or moved since, if there is one.
    pub fn find_stale(&self) -> Option<PathBuf> {
        let now = read(&self.directories);
        let is_stale = |point: &Path, root: &String| now.get(point).is_some_and(|found| found != root);
        self.roots.iter().find(|(point, root)| is_stale(point, root)).map(|(point, _)| point.clone())
    }
}

fn read(directories: &[PathBuf]) -> BTreeMap<PathBuf, String> {
    // Where it cannot be read, nothing is known and nothing compared.
    parse(&fs::read_to_string("/proc/self/mountinfo").unwrap_or_default(), directories)
}

/// Mount point and root of the mount in which each directory is (proc_pid_mountinfo(5)). Of a directory that is removed
/// the kernel says `/var/lib/cni//deleted`.
fn parse(text: &str, directories: &[PathBuf]) -> BTreeMap<PathBuf, String> {
    let mounts: Vec<(PathBuf, &str)> = text
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ').skip(3);
            let (root, point) = (fields.next()?, fields.next()?);
            Some((PathBuf::from(point.replace("\\040", " ")), root))
        })
        .collect();
    let mut found = BTreeMap::new();
    for directory in directories {
        // Of several at one place the last covers the others.
        let above = mounts.iter().filter(|(point, _)| directory.starts_with(point));
        if let Some((point, root)) = above.max_by_key(|(point, _)| point.components().count()) {
            found.insert(point.clone(), (*root).to_owned());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "1 0 0:1 / / rw - overlay overlay rw\n\
        2 1 8:1 /var/lib/cni/ferrule /var/lib/cni/ferrule rw - ext4 /dev/sda1 rw\n\
        3 1 8:1 /opt/cni/bin /opt/cni/bin rw - ext4 /dev/sda1 rw\n";

    fn stale(after: &str) -> Option<PathBuf> {
        let directories: Vec<PathBuf> = vec!["/var/lib/cni/ferrule".into(), "/etc/cni/net.d".into()];
        let (roots, now) = (parse(BEFORE, &directories), parse(after, &directories));
        assert_eq!(roots.len(), 2);
        roots.into_iter().find(|(point, root)| now.get(point).is_some_and(|it| it != root)).map(|it| it.0)
    }

    #[test]
    fn what_was_removed_or_moved_is_told_by_its_root() {
        assert_eq!(stale(BEFORE), None);
        let data = Some("/var/lib/cni/ferrule".into());
        assert_eq!(stale(&BEFORE.replacen("/cni/ferrule /", "/cni/ferrule//deleted /", 1)), data);
        assert_eq!(stale(&BEFORE.replacen("/lib/cni/ferrule /", "/lib/cni.old/ferrule /", 1)), data);
        // What is none of the agent's directories.
        assert_eq!(stale(&BEFORE.replacen("/opt/cni/bin /", "/opt/cni/old /", 1)), None);
        assert_eq!(stale(""), None, "what cannot be read tells nothing");
    }
}
