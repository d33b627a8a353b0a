//! Errors of the store: what failed, on which file or address, and the remedy.
//!
//! `attachments::error_codes` maps them to CNI codes.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cni::ids::AttachmentKey;

/// Why an operation on the store failed. Nothing of the operation stays behind: what could not be undone at once is
/// undone by the next holder of the lock.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Every address of the set is held.
    #[error(
        "no free address in {set}: {held} of {capacity} are held, by pods that exist (those of dead pods were \
         released just now); give the network a larger range or the node fewer pods"
    )]
    Exhausted {
        /// The range set, as its ranges.
        set: String,
        /// How many addresses of it have a record.
        held: u128,
        /// How many it can hand out.
        capacity: u128,
    },
    /// An address that was asked for has a record already.
    #[error("{address} is taken by {holder}; ask for another address, or remove that attachment first")]
    Taken {
        address: IpAddr,
        /// Whose it is: `<container id>@<ifname>`, or what stands in its place.
        holder: String,
    },
    /// An address that was asked for lies in a subnet of the conf but is no pod's to have.
    #[error("{address} is {role} of its subnet and cannot be given to a pod; ask for another address")]
    Reserved {
        address: IpAddr,
        /// What it is instead.
        role: &'static str,
    },
    /// An address that was asked for lies in none of the ranges.
    #[error("{address} lies outside every range of the network ({sets}); ask for an address inside one")]
    Outside { address: IpAddr, sets: String },
    /// Two addresses were asked for where the conf gives one.
    #[error("{first} and {second} were both asked for, but a pod gets one address of {set}; ask for one")]
    Surplus {
        /// The address that came first.
        first: IpAddr,
        /// The one too many.
        second: IpAddr,
        /// The range set to which both belong.
        set: String,
    },
    /// The attachment has a record, so an ADD went before and no DEL since.
    #[error("{key} is attached already; DEL it before another ADD")]
    AlreadyAttached { key: AttachmentKey },
    /// Another process kept a lock for too long.
    #[error(
        "{path} was locked by another process for {waited:?}; try again, and if it stays locked see who \
         holds it (lslocks)"
    )]
    LockTimeout { path: PathBuf, waited: Duration },
    /// A file of the store is not what it should be.
    #[error(transparent)]
    Damaged(#[from] Damaged),
    /// What is to be written could not be read again.
    #[error(
        "{path} would have {size} bytes, and the store reads {max} at most; ask for fewer hostPorts or addresses"
    )]
    TooLarge { path: PathBuf, size: u64, max: u64 },
    /// A record was written by a newer ferrule.
    #[error(
        "{path} has format version {version}, which this ferrule does not know; use the ferrule that wrote \
         it, or a newer one"
    )]
    NewerFormat { path: PathBuf, version: u64 },
    #[error("cannot {operation} {path}: {source}{}", remedy(source))]
    Io { operation: &'static str, path: PathBuf, source: io::Error },
}

/// A file or directory of the store that is not what it should be: torn, foreign, or no regular file.
/// It is never followed and never waited on. Its addresses are not handed out until it is released.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{path} is damaged: {reason}; DEL of its attachment or a reboot clears a record, else remove it by hand"
)]
pub struct Damaged {
    pub path: PathBuf,
    pub reason: String,
}

impl Damaged {
    pub(super) fn new(path: impl Into<PathBuf>, reason: impl Into<String>) -> Self {
        Self { path: path.into(), reason: reason.into() }
    }
}

impl StoreError {
    pub(super) fn io(operation: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        Self::Io { operation, path: path.to_owned(), source: source.into() }
    }
}

/// The remedy for an error of the system, where there is a known one.
fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; make room (df, df -i), or set dataDir to a file system that has some"
        }
        io::ErrorKind::ReadOnlyFilesystem => "; set dataDir to a directory that can be written",
        io::ErrorKind::PermissionDenied => "; ferrule runs as root, see what confines it",
        io::ErrorKind::TooManyLinks => "; the file system allows no more links, set dataDir to another",
        io::ErrorKind::NotADirectory => "; see what is there, and remove it",
        _ => "",
    }
}
