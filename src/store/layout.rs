//! A directory of the store, and everything that is done to files in it.
//!
//! All names are resolved against an open directory and no symbolic link is ever followed, so nothing
//! outside the data directory can be read, written or removed, whatever somebody put into it. Opening
//! never blocks: a FIFO in the place of a record is reported as damage.

use std::ffi::{OsStr, OsString};
use std::fs::{DirBuilder, File};
use std::io::{Read, Write};
use std::mem::MaybeUninit;
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RawDir, Stat};
use rustix::io::Errno;

use crate::store::env::{Env, FaultPoint};
use crate::store::error::{Damaged, StoreError};

/// Largest file that is read, and so that is written. A record has some hundred bytes, and 170 more for each hostPort, of
/// which a conf may have 30,000. Prefixes or ends of tunnels of 50,000 nodes are 4 MiB.
const FILE_MAX: u64 = 8 << 20;

const DIR_MODE: Mode = Mode::RWXU;

/// Of directories that are shared with others. Said, because of the umask there may be none.
const SHARED_DIR_MODE: u32 = 0o755;
const FILE_MODE: Mode = Mode::RUSR.union(Mode::WUSR);

/// Which file a name stands for: two names with the same are the same file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct FileId {
    dev: u64,
    ino: u64,
}

impl FileId {
    fn of(stat: &Stat) -> Self {
        Self { dev: stat.st_dev, ino: stat.st_ino }
    }

    /// The number is this file's inode number, which another device may have as well.
    pub fn has_inode(self, ino: u64) -> bool {
        self.ino == ino
    }
}

/// A regular file of the store, open and read.
pub(super) struct Content {
    pub file: File,
    pub id: FileId,
    pub bytes: Vec<u8>,
}

/// An open directory of the store.
pub(super) struct Dir {
    fd: OwnedFd,
    path: PathBuf,
    env: Arc<dyn Env>,
}

impl Dir {
    /// Opens the data directory itself. Only here symbolic links are followed, since the administrator names the path.
    /// `None` if it does not exist.
    pub fn open_root(path: &Path, env: Arc<dyn Env>) -> Result<Option<Self>, StoreError> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        match rustix::fs::openat(CWD, path, flags, Mode::empty()) {
            Ok(fd) => Ok(Some(Self { fd, path: path.to_owned(), env })),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(StoreError::io("open", path, error)),
        }
    }

    /// Opens the data directory, made first if it is missing.
    pub fn make_root(path: &Path, env: Arc<dyn Env>) -> Result<Self, StoreError> {
        use std::os::unix::fs::DirBuilderExt;
        if let Some(root) = Self::open_root(path, Arc::clone(&env))? {
            return Ok(root);
        }
        // Only the last one is private: its parents, such as /var/lib/cni, are shared with others.
        let made = match path.parent() {
            Some(parent) => DirBuilder::new().recursive(true).mode(SHARED_DIR_MODE).create(parent),
            None => Ok(()),
        };
        let made = made.and_then(|()| match DirBuilder::new().mode(DIR_MODE.bits()).create(path) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        });
        made.map_err(|error| StoreError::io("make directory", path, error))?;
        let missing = || StoreError::io("open", path, Errno::NOENT);
        Self::open_root(path, env)?.ok_or_else(missing)
    }

    /// Opens a directory inside this one. `None` if it does not exist.
    pub fn open_dir(&self, name: impl AsRef<OsStr>) -> Result<Option<Self>, StoreError> {
        let name = name.as_ref();
        self.admit("open", false, name)?;
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
        match rustix::fs::openat(&self.fd, name, flags, Mode::empty()) {
            Ok(fd) => Ok(Some(Self { fd, path: self.path.join(name), env: Arc::clone(&self.env) })),
            Err(Errno::NOENT) => Ok(None),
            Err(Errno::NOTDIR | Errno::LOOP) => {
                Err(Damaged::new(self.path.join(name), "it is no directory").into())
            }
            Err(error) => Err(self.failure("open", name, error)),
        }
    }

    /// As [`Dir::make_dir`], for a directory whose name is the store's own: what else stands there is removed first.
    pub fn replace_dir(&self, name: impl AsRef<OsStr>) -> Result<Self, StoreError> {
        let name = name.as_ref();
        let made = self.make_dir(name);
        if !matches!(made, Err(StoreError::Damaged(_))) {
            return made;
        }
        self.admit("remove", true, name)?;
        match rustix::fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            // Somebody else has just done the same.
            Ok(()) | Err(Errno::NOENT | Errno::ISDIR | Errno::PERM) => self.make_dir(name),
            Err(error) => Err(self.failure("remove", name, error)),
        }
    }

    /// Opens a directory inside this one, made first if it is missing.
    pub fn make_dir(&self, name: impl AsRef<OsStr>) -> Result<Self, StoreError> {
        let name = name.as_ref();
        if let Some(dir) = self.open_dir(name)? {
            return Ok(dir);
        }
        self.admit("make directory", true, name)?;
        match rustix::fs::mkdirat(&self.fd, name, DIR_MODE) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(self.failure("make directory", name, error)),
        }
        self.open_dir(name)?.ok_or_else(|| self.failure("open", name, Errno::NOENT))
    }

    /// Which file `name` stands for, of whatever kind. `None` if there is none.
    pub fn identify(&self, name: impl AsRef<OsStr>) -> Result<Option<FileId>, StoreError> {
        let name = name.as_ref();
        self.admit("stat", false, name)?;
        match rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(FileId::of(&stat))),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(self.failure("stat", name, error)),
        }
    }

    /// Reads a regular file. `None` if there is none.
    ///
    /// # Errors
    /// [`Damaged`] if it is something else than a regular file, or too large.
    pub fn read(&self, name: impl AsRef<OsStr>) -> Result<Option<Content>, StoreError> {
        let name = name.as_ref();
        match self.open_regular(name, OFlags::RDONLY)? {
            Some((file, stat)) => self.read_opened(name, file, &stat).map(Some),
            None => Ok(None),
        }
    }

    /// Opens a regular file of any size, and tells that. `None` if there is none.
    ///
    /// # Errors
    /// [`Damaged`] if it is something else than a regular file.
    pub fn open(&self, name: impl AsRef<OsStr>) -> Result<Option<(File, u64)>, StoreError> {
        let opened = self.open_regular(name.as_ref(), OFlags::RDONLY)?;
        Ok(opened.map(|(file, stat)| (file, u64::try_from(stat.st_size).unwrap_or_default())))
    }

    /// Reads a regular file that is to be written as well, made first if it is missing. It must have no
    /// other name: writing would change what that one stands for.
    pub fn read_to_write(&self, name: impl AsRef<OsStr>) -> Result<Content, StoreError> {
        let name = name.as_ref();
        let opened = self.open_regular(name, OFlags::RDWR | OFlags::CREATE)?;
        let (file, stat) = opened.ok_or_else(|| self.failure("open", name, Errno::NOENT))?;
        if stat.st_nlink > 1 {
            return Err(Damaged::new(self.path.join(name), "it has a second name (hard link)").into());
        }
        self.read_opened(name, file, &stat)
    }

    /// As [`Dir::read_to_write`], for a file that the store can do without: what else stands in its place is removed
    /// first. `None` if that cannot be done, as with a directory that has something in it.
    pub fn read_to_replace(&self, name: impl AsRef<OsStr>) -> Result<Option<Content>, StoreError> {
        let name = name.as_ref();
        match self.read_to_write(name) {
            Err(StoreError::Damaged(_)) if self.remove(name)? => self.read_to_write(name).map(Some),
            Err(StoreError::Damaged(_)) => Ok(None),
            other => other.map(Some),
        }
    }

    /// Opens a regular file to lock it, made first if it is missing.
    pub fn open_lock(&self, name: impl AsRef<OsStr>) -> Result<(File, FileId), StoreError> {
        let name = name.as_ref();
        let opened = self.open_regular(name, OFlags::RDWR | OFlags::CREATE)?;
        let (file, stat) = opened.ok_or_else(|| self.failure("open", name, Errno::NOENT))?;
        Ok((file, FileId::of(&stat)))
    }

    /// Makes a file that must not exist yet.
    pub fn create(&self, name: impl AsRef<OsStr>) -> Result<File, StoreError> {
        let name = name.as_ref();
        self.admit("create", true, name)?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(&self.fd, name, flags, FILE_MODE) {
            Ok(fd) => Ok(File::from(fd)),
            Err(error) => Err(self.failure("create", name, error)),
        }
    }

    /// Writes all of `bytes` to the file that [`Dir::create`] made under `name`.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`] for what [`Dir::read`] would refuse; then nothing is written.
    pub fn write(&self, name: impl AsRef<OsStr>, mut file: &File, bytes: &[u8]) -> Result<(), StoreError> {
        let name = name.as_ref();
        self.check_size(name, bytes)?;
        self.admit("write", true, name)?;
        file.write_all(bytes).map_err(|error| self.failure("write", name, error))
    }

    /// Replaces what an open file holds, in place. Whoever dies meanwhile leaves a mixture, so this is only
    /// for files whose reader ignores what it cannot parse. Cheaper than a new file and a rename, which
    /// ext4 answers by starting to write to the disk (`auto_da_alloc`).
    pub fn overwrite(&self, name: impl AsRef<OsStr>, old: &Content, bytes: &[u8]) -> Result<(), StoreError> {
        use std::os::unix::fs::FileExt;
        let name = name.as_ref();
        self.check_size(name, bytes)?;
        self.admit("write", true, name)?;
        old.file.write_all_at(bytes, 0).map_err(|error| self.failure("write", name, error))?;
        if old.bytes.len() > bytes.len() {
            self.admit("truncate", true, name)?;
            old.file.set_len(bytes.len() as u64).map_err(|error| self.failure("truncate", name, error))?;
        }
        Ok(())
    }

    /// Gives the file `name` another name in `other`. `false` if that name exists already.
    pub fn link(&self, name: &OsStr, other: &Self, other_name: &OsStr) -> Result<bool, StoreError> {
        other.admit("link", true, other_name)?;
        match rustix::fs::linkat(&self.fd, name, &other.fd, other_name, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) => Ok(false),
            Err(error) => Err(other.failure("link", other_name, error)),
        }
    }

    /// Moves `name` to `other`, over what may be there. `false` if there is no `name`.
    pub fn rename(&self, name: &OsStr, other: &Self, other_name: &OsStr) -> Result<bool, StoreError> {
        other.admit("rename to", true, other_name)?;
        match rustix::fs::renameat(&self.fd, name, &other.fd, other_name) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(other.failure("rename to", other_name, error)),
        }
    }

    /// Removes a name of any kind; a directory only if it is empty. An absent name is success. `false`
    /// if it is a directory with something in it, which is left alone.
    pub fn remove(&self, name: impl AsRef<OsStr>) -> Result<bool, StoreError> {
        let name = name.as_ref();
        self.admit("remove", true, name)?;
        match rustix::fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(true),
            Err(Errno::ISDIR | Errno::PERM) => self.remove_dir(name),
            Err(error) => Err(self.failure("remove", name, error)),
        }
    }

    /// Removes an empty directory. `false` if it is not empty.
    pub fn remove_dir(&self, name: impl AsRef<OsStr>) -> Result<bool, StoreError> {
        let name = name.as_ref();
        self.admit("remove", true, name)?;
        match rustix::fs::unlinkat(&self.fd, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(true),
            Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
            Err(error) => Err(self.failure("remove", name, error)),
        }
    }

    /// Calls `visit` with each name and its inode number, in no order, until it breaks.
    pub fn visit_names(
        &self,
        mut visit: impl FnMut(&OsStr, u64) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        self.admit("list", false, OsStr::new(""))?;
        let failure = |error| StoreError::io("list", &self.path, error);
        // A descriptor of its own, for its own position in the directory.
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.fd, ".", flags, Mode::empty()).map_err(failure)?;
        let mut buffer = [MaybeUninit::<u8>::uninit(); 8192];
        let mut entries = RawDir::new(&fd, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = entry.map_err(failure)?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            self.admit("list", false, name)?;
            if visit(name, entry.ino()).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// At most `limit` names, in no order.
    pub fn names(&self, limit: usize) -> Result<Vec<OsString>, StoreError> {
        let mut names = Vec::new();
        self.visit_names(|name, _| {
            if names.len() == limit {
                return ControlFlow::Break(());
            }
            names.push(name.to_owned());
            ControlFlow::Continue(())
        })?;
        Ok(names)
    }

    /// Where a name of this directory is, for messages.
    pub fn path_of(&self, name: impl AsRef<OsStr>) -> PathBuf {
        self.path.join(name.as_ref())
    }

    fn open_regular(&self, name: &OsStr, access: OFlags) -> Result<Option<(File, Stat)>, StoreError> {
        self.admit("open", access.contains(OFlags::CREATE), name)?;
        let damaged =
            |what: &str| StoreError::from(Damaged::new(self.path.join(name), format!("it is {what}")));
        let flags = access | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(&self.fd, name, flags, FILE_MODE) {
            Ok(fd) => File::from(fd),
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP) => return Err(damaged("a symbolic link")),
            Err(Errno::ISDIR) => return Err(damaged("a directory")),
            // What open(2) says of a socket, and of a device without a driver.
            Err(Errno::NXIO) => return Err(damaged("a socket or a device")),
            Err(error) => return Err(self.failure("open", name, error)),
        };
        let stat = rustix::fs::fstat(&file).map_err(|error| self.failure("stat", name, error))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Ok(Some((file, stat))),
            FileType::Directory => Err(damaged("a directory")),
            FileType::Fifo => Err(damaged("a FIFO")),
            _ => Err(damaged("no regular file")),
        }
    }

    fn read_opened(&self, name: &OsStr, file: File, stat: &Stat) -> Result<Content, StoreError> {
        self.admit("read", false, name)?;
        // Room for the end of the file as well, so that one read finds all of it and one its end.
        let size = u64::try_from(stat.st_size).unwrap_or_default().min(FILE_MAX);
        let mut bytes = Vec::with_capacity(size as usize + 32);
        let read = (&file).take(FILE_MAX + 1).read_to_end(&mut bytes);
        read.map_err(|error| self.failure("read", name, error))?;
        if bytes.len() as u64 > FILE_MAX {
            return Err(
                Damaged::new(self.path.join(name), format!("it is larger than {FILE_MAX} bytes")).into()
            );
        }
        Ok(Content { file, id: FileId::of(stat), bytes })
    }

    fn check_size(&self, name: &OsStr, bytes: &[u8]) -> Result<(), StoreError> {
        let (size, max) = (bytes.len() as u64, FILE_MAX);
        if size > max { Err(StoreError::TooLarge { path: self.path.join(name), size, max }) } else { Ok(()) }
    }

    fn admit(&self, operation: &'static str, changes: bool, name: &OsStr) -> Result<(), StoreError> {
        let admitted = self.env.admit(FaultPoint { operation, changes });
        admitted.map_err(|error| self.failure(operation, name, error))
    }

    fn failure(&self, operation: &'static str, name: &OsStr, error: impl Into<std::io::Error>) -> StoreError {
        StoreError::io(operation, &self.path.join(name), error)
    }
}
