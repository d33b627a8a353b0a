//! Whether a store could be written, found out without writing.

use std::path::Path;

use rustix::fs::{Access, AtFlags, CWD, accessat};

use super::error::StoreError;
use crate::cni::ids::NetworkName;

/// Looks whether the store of `network` below `data_dir` can be written, or made where it is not there yet.
///
/// A read-only file system and missing rights are seen; a full one is not, since only writing would tell.
///
/// # Errors
/// [`StoreError::Io`], naming the directory that stands in the way.
pub fn probe(data_dir: &Path, network: &NetworkName) -> Result<(), StoreError> {
    let store = data_dir.join(network.as_str());
    for directory in store.ancestors() {
        match accessat(CWD, directory, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS) {
            Ok(()) if directory.is_dir() => return Ok(()),
            Ok(()) => return Err(StoreError::io("use", directory, rustix::io::Errno::NOTDIR)),
            // Not made yet: then its parent must let it be made.
            Err(rustix::io::Errno::NOENT) => {}
            Err(errno) => return Err(StoreError::io("write to", directory, errno)),
        }
    }
    Ok(())
}
