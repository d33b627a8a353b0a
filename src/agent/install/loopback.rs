//! The plugin `loopback`: a runtime executes one of that name for every pod (containerd up to 2.2), and on RKE2, k3s and
//! k0s without their own network nobody brings it. ferrule is one too: a copy of the plugin by that name.
//!
//! Whose the file is that is there already is told by a sentence of ferrule's help, which every version of the plugin has
//! in it. That needs no list of what was installed, which could be lost or be wrong.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::agent::install::files::{self, InstallError, Installed};

/// Words of the plugin's help (`src/main.rs`).
const MARK: &[u8] = b"ferrule gives Kubernetes pods their network: a CNI plugin";

/// How much of a file is searched at a time.
const PIECE: usize = 64 << 10;

/// Where the runtime looks for it.
pub fn target(bin_dir: &Path) -> PathBuf {
    bin_dir.join("loopback")
}

/// Installs `plugin` as `loopback` where there is none, and replaces another version of it. Another's is left alone.
///
/// # Errors
/// Names the file, the reason and the remedy.
pub fn install(bin_dir: &Path, plugin: &Path) -> Result<Installed, InstallError> {
    let target = target(bin_dir);
    if exists(&target) && !is_ours(&target)? {
        return Ok(Installed::Unchanged);
    }
    let failed = |source| InstallError { path: target.clone(), source };
    files::install_from(&target, &mut File::open(plugin).map_err(failed)?, 0o755)
}

/// Removes it, unless it is another's. Returns whether that was done.
///
/// # Errors
/// Names the file and the reason.
pub fn remove(bin_dir: &Path) -> Result<bool, InstallError> {
    let target = target(bin_dir);
    if exists(&target) && is_ours(&target)? { files::remove(&target) } else { Ok(false) }
}

/// A link that leads nowhere is somebody's too.
fn exists(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// Whether the file is a ferrule of any version. What is no file, or a link that leads nowhere, is not.
fn is_ours(path: &Path) -> Result<bool, InstallError> {
    let failed = |source| InstallError { path: path.to_owned(), source };
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => has_mark(File::open(path).map_err(failed)?).map_err(failed),
        Ok(_) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(failed(source)),
    }
}

fn has_mark(mut file: impl Read) -> io::Result<bool> {
    let mut seen = Vec::new();
    loop {
        // The mark may lie across two pieces.
        seen.drain(..seen.len().saturating_sub(MARK.len()));
        let read = file.by_ref().take(PIECE as u64).read_to_end(&mut seen)?;
        if seen.windows(MARK.len()).any(|words| words == MARK) {
            return Ok(true);
        }
        if read == 0 {
            return Ok(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_is_found_wherever_it_is() {
        for before in [0, 1, PIECE - MARK.len(), PIECE - 1, PIECE, 3 * PIECE - 7] {
            let mut file = vec![b'f'; before];
            assert!(!has_mark(file.as_slice()).unwrap());
            file.extend(MARK);
            assert!(!has_mark(&file[..file.len() - 1]).unwrap());
            assert!(has_mark(file.as_slice()).unwrap(), "{before}");
            file.extend([b'f'; 2 * PIECE]);
            assert!(has_mark(file.as_slice()).unwrap(), "{before}");
        }
    }
}
