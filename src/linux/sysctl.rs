//! Sysctls: reading and writing files below /proc/sys.
//!
//! What is below /proc/sys/net belongs to the namespace of the *calling thread*: wrap a call in
//! [`Netns::run`](super::netns::Netns::run) to reach another. A key is its path's components, never a dotted
//! name: links may have dots in theirs (`eth0.100`).
//!
//! In a container that is not privileged /proc/sys is read-only, and nothing may be mounted over it. What the container
//! is to write all the same is mounted at [`MOUNTED`]; it is looked for only where the first place refuses.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::{fs, io};

/// Where a container has what it may write of /proc/sys: a mount of the node's /proc/sys/net at `net` below this.
pub const MOUNTED: &str = "/host/proc/sys";

/// Why a sysctl could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{} {}: {source}", match value { Some(value) => format!("write {value:?} to"), None => "read".to_owned() }, path.display())]
pub struct SysctlError {
    /// The file.
    pub path: PathBuf,
    /// The value that was to be written; `None` if the read failed.
    pub value: Option<String>,
    /// The kernel's reason.
    pub source: io::Error,
}

impl SysctlError {
    /// Whether there is no such sysctl: the link is gone, or the kernel has no IPv6.
    pub fn is_not_found(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }
}

/// The value of the sysctl `key` (`["net", "ipv4", "ip_forward"]`), without the final newline.
///
/// `sysctl -n net.ipv4.ip_forward`
///
/// # Errors
/// Names the file and the kernel's reason.
pub fn read(key: &[&str]) -> Result<String, SysctlError> {
    let path = path_of(key, None)?;
    match fs::read_to_string(&path) {
        Ok(mut value) => {
            value.truncate(value.trim_end().len());
            Ok(value)
        }
        Err(source) => Err(SysctlError { path, value: None, source }),
    }
}

/// Writes `value` to the sysctl `key`.
///
/// `sysctl -w net.ipv4.ip_forward=1`
///
/// # Errors
/// Names the file, the value and the kernel's reason.
pub fn write(key: &[&str], value: &str) -> Result<(), SysctlError> {
    let path = path_of(key, Some(value))?;
    let mut written = write_existing(&path, value);
    if written.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::ReadOnlyFilesystem) {
        let mut mounted = PathBuf::from(MOUNTED);
        mounted.extend(key);
        // That nothing is mounted there is no better reason than the first.
        if fs::exists(&mounted).unwrap_or(false) {
            written = write_existing(&mounted, value);
        }
    }
    written.map_err(|source| SysctlError { path, value: Some(value.to_owned()), source })
}

/// Not created if absent: procfs would refuse with a reason that misleads.
fn write_existing(path: &Path, value: &str) -> io::Result<()> {
    use io::Write;
    fs::OpenOptions::new().write(true).open(path)?.write_all(value.as_bytes())
}

/// Writes `value` to the sysctl `key` unless it is there already; returns whether it wrote.
///
/// Reading first lets a node with a read-only /proc/sys work whose administrator has set what is needed, and
/// spares writes with a price, such as the one to `forwarding`, which walks all links.
///
/// # Errors
/// As [`read`] and [`write()`].
pub fn write_if_different(key: &[&str], value: &str) -> Result<bool, SysctlError> {
    if read(key)? == value {
        return Ok(false);
    }
    write(key, value).map(|()| true)
}

/// Whether the kernel has IPv6: in all namespaces or in none, which is so when it was booted with `ipv6.disable=1`. Where
/// in doubt it has: who is wrong then is refused, and does not do without it in silence.
///
/// Not looked for again once it was found: the kernel does not let go of IPv6 (net/ipv6/af_inet6.c has no exit), and a
/// look below /proc/sys/net takes the longer the more namespaces there are.
pub fn has_ipv6() -> bool {
    static IT_HAS: AtomicBool = AtomicBool::new(false);
    if IT_HAS.load(Ordering::Relaxed) {
        return true;
    }
    let Ok(has) = fs::exists("/proc/sys/net/ipv6/conf") else { return true };
    IT_HAS.store(has, Ordering::Relaxed);
    has
}

/// The file of `key`. A component that would leave its directory is refused, whoever named the link.
fn path_of(key: &[&str], value: Option<&str>) -> Result<PathBuf, SysctlError> {
    let mut path = PathBuf::from("/proc/sys");
    path.extend(key);
    if key.iter().any(|part| part.is_empty() || *part == "." || *part == ".." || part.contains('/')) {
        let source = io::Error::new(io::ErrorKind::InvalidInput, "not the name of a sysctl");
        return Err(SysctlError { path, value: value.map(str::to_owned), source });
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dot_in_a_link_name_stays_in_its_component() {
        let path = path_of(&["net", "ipv4", "conf", "eth0.100", "rp_filter"], None).unwrap();
        assert_eq!(path, PathBuf::from("/proc/sys/net/ipv4/conf/eth0.100/rp_filter"));
    }

    #[test]
    fn a_component_that_leaves_its_directory_is_refused() {
        for part in ["", ".", "..", "../../kernel", "/etc/passwd", "a/b"] {
            let error = write(&["net", "ipv4", "conf", part, "rp_filter"], "1").unwrap_err();
            assert_eq!(error.source.kind(), io::ErrorKind::InvalidInput, "{part:?}");
        }
    }

    #[test]
    fn the_error_names_file_value_and_reason() {
        let error = write(&["net", "ipv4", "conf", "no-such-link", "rp_filter"], "1").unwrap_err();
        assert!(error.is_not_found());
        assert_eq!(
            error.to_string(),
            "write \"1\" to /proc/sys/net/ipv4/conf/no-such-link/rp_filter: No such file or directory (os error 2)"
        );
        let error = read(&["net", "no-such-key"]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "read /proc/sys/net/no-such-key: No such file or directory (os error 2)"
        );
    }
}
