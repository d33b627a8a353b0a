//! The directory that host-local, the reference IPAM plugin, keeps of a network: read under its lock, never changed.
//!
//! ```text
//! <dataDir>/<network>/
//!   lock                  flock(2)ed by whoever reads or writes here
//!   last_reserved_ip.<n>  the address last handed out, one file per range set
//!   <address>             "<container id>\r\n<ifname>"; an old host-local wrote the container id alone
//! ```
//!
//! Any file in it may be empty (plugins#498), torn, somebody else's, or no regular file.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::cni::ids::{ContainerId, IfName};
use crate::store::env::System;
use crate::store::error::{Damaged, StoreError};
use crate::store::layout::Dir;
use crate::store::lock::{Flock, deadline_after, lock_until};

const LOCK: &str = "lock";
const CURSOR_PREFIX: &str = "last_reserved_ip.";

/// The directory, locked if it has a lock file. Dropped, it is unlocked.
pub struct HostLocal {
    dir: Dir,
    _lock: Option<Flock>,
}

/// An address that host-local holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reservation {
    pub address: IpAddr,
    pub container: ContainerId,
    /// By which interface; an old host-local did not write it down.
    pub ifname: Option<IfName>,
}

/// A file that holds no address for anybody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    pub path: PathBuf,
    /// The address that its name stands for.
    pub address: Option<IpAddr>,
    pub reason: String,
}

impl HostLocal {
    /// Opens the directory and takes its lock, waiting at most `patience`. `None` if there is no such directory. Where
    /// there is no lock file, none is made.
    ///
    /// # Errors
    /// [`StoreError::LockTimeout`]; [`StoreError::Damaged`] if the lock is no regular file; else of the file system.
    pub fn open(path: &Path, patience: Duration) -> Result<Option<Self>, StoreError> {
        let Some(dir) = Dir::open_root(path, Arc::new(System))? else { return Ok(None) };
        let Some(lock) = dir.read(LOCK)? else { return Ok(Some(Self { dir, _lock: None })) };
        let locked = lock_until(lock.file, deadline_after(patience));
        let locked = locked.map_err(|error| StoreError::io("lock", &dir.path_of(LOCK), error))?;
        match locked {
            Some(lock) => Ok(Some(Self { dir, _lock: Some(lock) })),
            None => Err(StoreError::LockTimeout { path: dir.path_of(LOCK), waited: patience }),
        }
    }

    /// Every address that is held, and every file that is not what it should be; sorted.
    ///
    /// # Errors
    /// Where the directory cannot be listed, or a file not be read for a reason of the system's.
    pub fn read(&self) -> Result<(Vec<Reservation>, Vec<Skipped>), StoreError> {
        let (mut held, mut odd) = (Vec::new(), Vec::new());
        let mut names = self.dir.names(usize::MAX)?;
        names.sort();
        for name in names {
            let text = name.to_str().unwrap_or_default();
            if text == LOCK || text.starts_with(CURSOR_PREFIX) {
                continue;
            }
            let path = self.dir.path_of(&name);
            let Ok(address) = text.parse::<IpAddr>() else {
                let reason = "its name is no address: it is not host-local's".to_owned();
                odd.push(Skipped { path, address: None, reason });
                continue;
            };
            let reservation = match self.dir.read(&name) {
                Ok(Some(content)) => parse(address, &content.bytes),
                Ok(None) => continue,
                Err(StoreError::Damaged(Damaged { reason, .. })) => Err(reason),
                Err(error) => return Err(error),
            };
            match reservation {
                Ok(reservation) => held.push(reservation),
                Err(reason) => odd.push(Skipped { path, address: Some(address), reason }),
            }
        }
        held.sort_by_key(|reservation| reservation.address);
        Ok((held, odd))
    }
}

/// Reads what a file says of the holder of `address`.
fn parse(address: IpAddr, bytes: &[u8]) -> Result<Reservation, String> {
    let text = str::from_utf8(bytes).map_err(|_| "it is no text".to_owned())?;
    if text.trim().is_empty() {
        return Err("it is empty: its writer was killed, or the disk was full".to_owned());
    }
    let mut lines = text.trim_end().lines().map(str::trim);
    let container = ContainerId::parse(lines.next().unwrap_or_default());
    let container = container.map_err(|error| format!("its first line is no container id: it {error}"))?;
    let ifname = match lines.next() {
        None => None,
        Some(name) => Some(
            IfName::parse(name)
                .map_err(|error| format!("its second line is no interface name: it {error}"))?,
        ),
    };
    match lines.next() {
        None => Ok(Reservation { address, container, ifname }),
        Some(_) => Err("it has more than two lines".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(bytes: &[u8]) -> Result<(String, Option<String>), String> {
        let reservation = parse("10.1.0.2".parse().unwrap(), bytes)?;
        Ok((reservation.container.to_string(), reservation.ifname.map(|name| name.to_string())))
    }

    #[test]
    fn every_form_that_host_local_wrote_is_read() {
        let both = Ok(("c0ffee".to_owned(), Some("eth0".to_owned())));
        assert_eq!(read(b"c0ffee\r\neth0"), both);
        assert_eq!(read(b"c0ffee\neth0\n"), both);
        assert_eq!(read(b" c0ffee \r\n eth0 \r\n"), both);
        assert_eq!(read(b"c0ffee"), Ok(("c0ffee".to_owned(), None)));
        assert_eq!(read(b"c0ffee\r\n"), Ok(("c0ffee".to_owned(), None)));
    }

    #[test]
    fn what_names_nobody_is_said_to() {
        for (bytes, said) in [
            (b"".as_slice(), "empty"),
            (b"\r\n", "empty"),
            (b"\0\0\0\0", "container id"),
            (b"../c0ffee\r\neth0", "container id"),
            (b"\r\nc0ffee\r\neth0", "container id"),
            (b"c0ffee\r\neth/0", "interface name"),
            (b"c0ffee\r\n\r\neth0", "interface name"),
            (b"c0ffee\r\neth0\r\nmore", "two lines"),
            (b"\xff\xfe", "no text"),
        ] {
            let error = read(bytes).unwrap_err();
            assert!(error.contains(said), "{bytes:?}: {error}");
        }
    }

    #[test]
    fn names_that_are_no_address_and_what_is_no_file_are_skipped() {
        let root = std::env::temp_dir().join(format!("ferrule-host-local-{}", std::process::id()));
        std::fs::create_dir(&root).unwrap();
        let write = |name: &str, text: &str| std::fs::write(root.join(name), text).unwrap();
        write("lock", "");
        write("last_reserved_ip.0", "10.1.0.9");
        write("fd00::2", "c0ffee\r\neth0");
        write("10.1.0.10", "c0ffee\r\neth0");
        write("10.1.0.9", "bad1d\r\neth0");
        write("notes.txt", "mine");
        write("010.1.0.3", "c0ffee");
        write("10.1.0.4", &"x".repeat(70_000));
        std::fs::create_dir(root.join("10.1.0.5")).unwrap();
        std::os::unix::fs::symlink(root.join("10.1.0.9"), root.join("10.1.0.6")).unwrap();
        let source = HostLocal::open(&root, Duration::ZERO).unwrap().unwrap();
        let (held, odd) = source.read().unwrap();
        // One that is locked is waited for, but not for ever.
        assert!(matches!(HostLocal::open(&root, Duration::ZERO), Err(StoreError::LockTimeout { .. })));
        std::fs::remove_dir_all(&root).unwrap();
        let held: Vec<String> =
            held.iter().map(|it| format!("{} {}", it.address, it.container.as_str())).collect();
        assert_eq!(held, ["10.1.0.9 bad1d", "10.1.0.10 c0ffee", "fd00::2 c0ffee"]);
        let names: Vec<&str> = odd.iter().map(|it| it.path.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["010.1.0.3", "10.1.0.4", "10.1.0.5", "10.1.0.6", "notes.txt"]);
        assert_eq!(odd.iter().filter(|it| it.address.is_some()).count(), 3);
        assert!(odd[3].reason.contains("symbolic link"), "{odd:?}");
        assert!(HostLocal::open(&root, Duration::ZERO).unwrap().is_none());
    }

    proptest! {
        #[test]
        fn no_content_is_too_strange(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok((container, ifname)) = read(&bytes) {
                prop_assert!(ContainerId::parse(&container).is_ok());
                prop_assert!(ifname.is_none_or(|name| IfName::parse(&name).is_ok()));
            }
        }
    }
}
