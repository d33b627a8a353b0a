//! Whether a store could be written, found out without writing.

use std::path::Path;

use rustix::fs::{Access, AtFlags, CWD, FileType, accessat, statat, statvfs};

use crate::cni::ids::NetworkName;
use crate::store::error::{Damaged, StoreError};
use crate::store::handle::LOCK;

/// Looks whether the store of `network` below `data_dir` can be written, or made where it is not there yet.
///
/// A read-only file system and missing rights are seen, and what stands in the place of the store or of its lock, which
/// no command removes; a file system without a single block or inode is seen as well.
///
/// # Errors
/// [`StoreError::Io`], naming the directory that stands in the way; [`StoreError::Damaged`].
pub fn probe(data_dir: &Path, network: &NetworkName) -> Result<(), StoreError> {
    let store = data_dir.join(network.as_str());
    for (path, must_be, what) in [
        (store.clone(), FileType::Directory, "no directory"),
        (store.join(LOCK), FileType::RegularFile, "no regular file"),
    ] {
        let found =
            statat(CWD, &path, AtFlags::SYMLINK_NOFOLLOW).map(|it| FileType::from_raw_mode(it.st_mode));
        // That it is not there, or cannot be reached, shows below.
        if found.is_ok_and(|found| found != must_be) {
            return Err(Damaged::new(path, format!("it is {what}")).into());
        }
    }
    for directory in store.ancestors() {
        match accessat(CWD, directory, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS) {
            Ok(()) if directory.is_dir() => return has_room(directory),
            Ok(()) => return Err(StoreError::io("use", directory, rustix::io::Errno::NOTDIR)),
            // Not made yet: then its parent must let it be made.
            Err(rustix::io::Errno::NOENT) => {}
            Err(errno) => return Err(StoreError::io("write to", directory, errno)),
        }
    }
    Ok(())
}

/// Whether the file system has a block and an inode left. One that counts neither says 0 of 0.
fn has_room(directory: &Path) -> Result<(), StoreError> {
    let has = statvfs(directory).map_err(|errno| StoreError::io("look at", directory, errno))?;
    if (has.f_blocks > 0 && has.f_bfree == 0) || (has.f_files > 0 && has.f_ffree == 0) {
        return Err(StoreError::io("write to", directory, rustix::io::Errno::NOSPC));
    }
    Ok(())
}
