//! Locks with a deadline, and the lock on a single attachment.
//!
//! Locks are flock(2): the kernel releases them when a process dies, so none is ever left behind.

use std::fs::{File, TryLockError};
use std::io;
use std::ops::Deref;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use crate::cni::ids::AttachmentKey;

/// Stack of the thread that waits: it makes one system call.
const WAITER_STACK: usize = 64 * 1024;

/// The lock on one attachment: the right to change what the kernel has of it. An ADD takes it before its record can be
/// found, and keeps it until it ends; DEL, GC and reclaim take it before they tear down. So a DEL that overtakes
/// its ADD waits, and GC passes over attachments that are being made.
///
/// It is the lock of the record's own file, released when this is dropped or its process dies.
#[derive(Debug)]
pub struct AttachmentLock {
    key: AttachmentKey,
    _file: Flock,
}

impl AttachmentLock {
    pub(super) fn new(key: AttachmentKey, file: Flock) -> Self {
        Self { key, _file: file }
    }

    #[cfg(test)]
    pub(super) fn file(&self) -> &File {
        &self._file
    }

    pub fn key(&self) -> &AttachmentKey {
        &self.key
    }
}

/// A file that is locked until this is dropped.
///
/// It is unlocked explicitly. Closing is not enough: a child that another thread forks in between keeps the lock until
/// it calls execve(2).
#[derive(Debug)]
pub(super) struct Flock(File);

impl Flock {
    /// Locks the file, if nobody has it locked.
    pub fn try_new(file: File) -> Result<Self, TryLockError> {
        file.try_lock().map(|()| Self(file))
    }
}

impl Deref for Flock {
    type Target = File;

    fn deref(&self) -> &File {
        &self.0
    }
}

impl Drop for Flock {
    fn drop(&mut self) {
        // Unlocking a lock that is held does not fail; and the file is closed next.
        drop(self.0.unlock());
    }
}

/// The moment until which `patience` lasts. More than a year of it is a year: an `Instant` has an end.
pub(super) fn deadline_after(patience: Duration) -> Instant {
    Instant::now() + patience.min(Duration::from_secs(365 * 86_400))
}

/// The file, locked; `None` if another process keeps the lock until `deadline`.
///
/// flock(2) has no time limit. So a thread waits in it, and is abandoned at the deadline: it ends when it gets the
/// lock, which it releases at once because nobody receives the file any more.
pub(super) fn lock_until(file: File, deadline: Instant) -> io::Result<Option<Flock>> {
    match file.try_lock() {
        Ok(()) => return Ok(Some(Flock(file))),
        Err(TryLockError::WouldBlock) => {}
        Err(TryLockError::Error(error)) => return Err(error),
    }
    let patience = deadline.saturating_duration_since(Instant::now());
    if patience.is_zero() {
        return Ok(None);
    }
    let (send, receive) = mpsc::sync_channel(1);
    std::thread::Builder::new().name("flock".to_owned()).stack_size(WAITER_STACK).spawn(move || {
        let locked = loop {
            match file.lock() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        // An error of `send` hands the file back to be dropped here, and with it the lock.
        drop(send.send(locked.map(|()| Flock(file))));
    })?;
    match receive.recv_timeout(patience) {
        Ok(locked) => locked.map(Some),
        Err(RecvTimeoutError::Timeout) => Ok(None),
        Err(RecvTimeoutError::Disconnected) => Err(io::Error::other("the thread that waited for it ended")),
    }
}
