//! Network namespaces: opening one by path, telling two apart, and running code inside one.
//!
//! The path comes from outside and may name anything at all. Nothing is opened before it is known to be a
//! namespace: opening a FIFO waits for a writer, opening a device can have effects of its own.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{io, thread};

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// `f_type` of the file system that namespaces live on (include/uapi/linux/magic.h).
const NSFS_MAGIC: u32 = 0x6e73_6673;

/// Stack of a thread that only enters a namespace, opens a socket and writes sysctls there. Reserved, not
/// touched: the size costs nothing until it is used, and a panic's backtrace must fit in a debug build.
const STACK_SIZE: usize = 256 * 1024;

/// The namespace of whoever reads it.
const CURRENT: &str = "/proc/thread-self/ns/net";

/// Why a network namespace could not be opened or entered.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    /// Nothing is there. For a DEL that is as good as done.
    #[error("{path}: there is no such network namespace", path = path.display())]
    NotFound {
        /// The path as given.
        path: PathBuf,
    },
    /// Something is there, and it is no network namespace.
    #[error("{path} is {what}, not a network namespace", path = path.display())]
    NotNetns {
        /// The path as given.
        path: PathBuf,
        /// What it is, with its article.
        what: &'static str,
    },
    /// The kernel refused to open it.
    #[error("open network namespace {path}: {source}", path = path.display())]
    Open {
        /// The path as given.
        path: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The kernel refused to let a thread in, or to make one.
    #[error("enter network namespace {path}: {source}", path = path.display())]
    Enter {
        /// The path as given.
        path: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
}

/// Tells a namespace from every other that exists at the same time.
///
/// Inode numbers return after a namespace is gone: two equal identities taken at different times prove the
/// same namespace only together with the path and the boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NetnsIdentity {
    /// Device number of the file system of namespaces.
    pub dev: u64,
    /// Inode number, as in `readlink /proc/self/ns/net`.
    pub ino: u64,
}

/// An open network namespace. Lives at least as long as this value or a clone of it.
#[derive(Debug, Clone)]
pub struct Netns {
    fd: Arc<OwnedFd>,
    identity: NetnsIdentity,
    path: Arc<Path>,
}

impl NetnsIdentity {
    /// That of the namespace which the calling thread is in.
    ///
    /// # Errors
    /// [`NetnsError::Open`] where /proc is not mounted.
    pub fn current() -> Result<Self, NetnsError> {
        match rustix::fs::stat(CURRENT) {
            Ok(stat) => Ok(Self { dev: stat.st_dev, ino: stat.st_ino }),
            Err(errno) => Err(NetnsError::Open { path: PathBuf::from(CURRENT), source: errno.into() }),
        }
    }
}

impl Netns {
    /// Opens the network namespace at `path`. Never blocks, whatever is there.
    ///
    /// A namespace of another kind (of mounts, of processes) is opened too: only entering tells the kinds apart,
    /// and that takes a thread. It shows at the first [`Netns::run`], as [`NetnsError::NotNetns`]; a veth whose
    /// peer should be made there is refused (EINVAL; `get_net_ns_by_fd` of net/core/net_namespace.c).
    ///
    /// # Errors
    /// [`NetnsError::NotFound`] if nothing is there; [`NetnsError::NotNetns`] if it is no namespace at all, saying
    /// what it is instead; [`NetnsError::Open`] for everything else.
    pub fn open(path: &Path) -> Result<Self, NetnsError> {
        let refuse = |errno: Errno| match errno {
            Errno::NOENT | Errno::NOTDIR => NetnsError::NotFound { path: path.to_owned() },
            _ => NetnsError::Open { path: path.to_owned(), source: errno.into() },
        };
        // O_PATH finds the file without opening it.
        let found = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(refuse)?;
        let stat = rustix::fs::fstat(&found).map_err(refuse)?;
        // The field's type differs between architectures; the magic number fits each.
        #[allow(clippy::unnecessary_cast, reason = "f_type is 32 bits wide on some architectures")]
        let magic = rustix::fs::fstatfs(&found).map_err(refuse)?.f_type as u32;
        if magic != NSFS_MAGIC {
            let what = describe(FileType::from_raw_mode(stat.st_mode));
            return Err(NetnsError::NotNetns { path: path.to_owned(), what });
        }
        // By the descriptor and not by the path, behind which another file may be by now.
        let fd = rustix::fs::open(
            format!("/proc/self/fd/{}", found.as_raw_fd()),
            OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map_err(refuse)?;
        let identity = NetnsIdentity { dev: stat.st_dev, ino: stat.st_ino };
        Ok(Self { fd: Arc::new(fd), identity, path: path.into() })
    }

    /// Opens the network namespace that the calling thread is in.
    ///
    /// # Errors
    /// [`NetnsError::NotFound`] where /proc is not mounted.
    pub fn current() -> Result<Self, NetnsError> {
        Self::open(Path::new(CURRENT))
    }

    /// Which namespace it is.
    pub fn identity(&self) -> NetnsIdentity {
        self.identity
    }

    /// The path that it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `work` inside the namespace and returns what it returned.
    ///
    /// On a thread of its own that ends with it: the calling thread never changes its namespace, so no
    /// failure to return can leave it in the wrong one. The calling thread waits. A panic of `work` goes on in
    /// the calling thread.
    ///
    /// # Errors
    /// [`NetnsError::NotNetns`] if it is a namespace of another kind, [`NetnsError::Enter`] if the kernel
    /// refuses (CAP_SYS_ADMIN is needed). `work` has not run then.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
        let refuse = |source| NetnsError::Enter { path: self.path.to_path_buf(), source };
        thread::scope(|scope| {
            let inside = thread::Builder::new()
                .name("netns".to_owned())
                .stack_size(STACK_SIZE)
                .spawn_scoped(scope, || {
                    move_into_link_name_space(self.as_fd(), Some(LinkNameSpaceType::Network))?;
                    Ok(work())
                })
                .map_err(refuse)?;
            match inside.join() {
                Ok(Ok(value)) => Ok(value),
                // setns(2): the descriptor is of another type than asked for.
                Ok(Err(Errno::INVAL)) => Err(NetnsError::NotNetns {
                    path: self.path.to_path_buf(),
                    what: "a namespace of another kind",
                }),
                Ok(Err(errno)) => Err(refuse(errno.into())),
                Err(panic) => resume_unwind(panic),
            }
        })
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Two are equal if they are the same namespace, by whatever path.
impl PartialEq for Netns {
    fn eq(&self, other: &Self) -> bool {
        self.identity == other.identity
    }
}

impl Eq for Netns {}

fn describe(kind: FileType) -> &'static str {
    match kind {
        FileType::RegularFile => "a regular file",
        FileType::Directory => "a directory",
        FileType::Symlink => "a symbolic link",
        FileType::Fifo => "a FIFO",
        FileType::Socket => "a socket",
        FileType::CharacterDevice => "a character device",
        FileType::BlockDevice => "a block device",
        FileType::Unknown => "a file of an unknown kind",
    }
}
