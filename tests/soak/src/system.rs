//! Programs of the system, and network namespaces made with them: the readers and tools that are not ferrule's.

use crate::Failure;
use kit::process::run;
use rustix::mount::{UnmountFlags, unmount};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How many namespaces are made at once: a process for each would cost more than the namespaces do.
const BATCH: usize = 64;

/// Where `ip` keeps namespaces. In this program's mount namespace it is a file system of its own.
pub const NETNS: &str = "/run/netns";

/// Has `ip` read its commands, one a line, in the network namespace of the calling thread.
pub fn ip_batch(commands: &str) -> Result<(), Failure> {
    run(Command::new("ip").args(["-batch", "-"]), commands)?;
    Ok(())
}

/// A lock whose holder panicked: the run fails by that panic, and says more if the others go on.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Empty network namespaces, made some ahead of their use. What is left of them goes with this program's mounts.
#[derive(Default)]
pub struct Namespaces {
    stock: Mutex<(u64, Vec<PathBuf>)>,
}

impl Namespaces {
    /// One that nobody has used before.
    pub fn take(&self) -> Result<PathBuf, Failure> {
        let mut stock = lock(&self.stock);
        if stock.1.is_empty() {
            let first = stock.0;
            stock.0 += BATCH as u64;
            let names: Vec<String> = (first..stock.0).map(|number| format!("cni-{number}")).collect();
            ip_batch(&names.iter().map(|name| format!("netns add {name}\n")).collect::<String>())?;
            stock.1.extend(names.iter().map(|name| Path::new(NETNS).join(name)));
        }
        stock.1.pop().ok_or_else(|| "no namespace was made".into())
    }
}

/// Takes the name of a namespace away, as a runtime does at a sandbox's end. Nobody else is in it, so it ends.
pub fn remove_namespace(path: &Path) -> Result<(), Failure> {
    unmount(path, UnmountFlags::DETACH).map_err(|e| format!("unmount {}: {e}", path.display()))?;
    Ok(fs::remove_file(path)?)
}

/// The end of the run, which anybody may announce and everybody waits for between two deeds.
#[derive(Default)]
pub struct End {
    is_near: Mutex<bool>,
    news: Condvar,
}

impl End {
    /// Announces it.
    pub fn announce(&self) {
        *lock(&self.is_near) = true;
        self.news.notify_all();
    }

    /// Whether it was announced.
    pub fn is_near(&self) -> bool {
        *lock(&self.is_near)
    }

    /// Waits so long, or until it is announced. Whether it was.
    pub fn wait(&self, at_most: Duration) -> bool {
        let guard = lock(&self.is_near);
        let waited = self.news.wait_timeout_while(guard, at_most, |is_near| !*is_near);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}
