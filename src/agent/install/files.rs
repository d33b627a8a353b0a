//! Files for the runtime: the plugin's binary and the conflist.
//!
//! Each is written to a temporary file of the same directory, synced, and renamed. So no
//! process executes or reads half of one, a binary that is being executed is replaced without "text file busy"
//! (calico#8932), and containerd, whose watch sees renames and writes but no creation, loads the conflist
//! (containerd#11715).

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Cursor, Read, Seek, SeekFrom};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Where the kernel keeps a file's SELinux label, and more than one may have (SELinux' own limit is a page).
const LABEL: &str = "security.selinux";
const LABEL_MAX: usize = 4096;

/// A file that could not be installed.
#[derive(Debug, thiserror::Error)]
#[error("cannot install {}: {source}{}", path.display(), remedy(source, path))]
pub struct InstallError {
    /// Which.
    pub path: PathBuf,
    /// The system's reason.
    pub source: io::Error,
}

/// Outcome of installing a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Installed {
    /// It had that content and mode.
    Unchanged,
    /// It was written.
    Written,
}

/// Writes `content` to the file at `target`, with `mode`. Nothing is written if it has both already.
///
/// # Errors
/// Names the file and the reason, with the remedy where it is known.
pub fn install(target: &Path, content: &[u8], mode: u32) -> Result<Installed, InstallError> {
    install_from(target, &mut Cursor::new(content), mode)
}

/// The same with the content of `source`, which is read once to compare and once to copy, and is never in memory as a
/// whole.
///
/// # Errors
/// As [`install`].
pub fn install_from(
    target: &Path,
    source: &mut (impl Read + Seek),
    mode: u32,
) -> Result<Installed, InstallError> {
    let fail = |source| InstallError { path: target.to_owned(), source };
    if is_as_wanted(target, source, mode).map_err(fail)? {
        return Ok(Installed::Unchanged);
    }
    source.rewind().map_err(fail)?;
    replace_from(target, source, mode)?;
    Ok(Installed::Written)
}

/// The same, but written even where nothing differs: for a runtime whose watch missed the file.
///
/// # Errors
/// As [`install`].
pub fn replace(target: &Path, content: &[u8], mode: u32) -> Result<(), InstallError> {
    replace_from(target, &mut &*content, mode)
}

fn replace_from(target: &Path, content: &mut impl Read, mode: u32) -> Result<(), InstallError> {
    let fail = |source| InstallError { path: target.to_owned(), source };
    let directory = target.parent().ok_or_else(|| fail(io::ErrorKind::InvalidInput.into()))?;
    // Root executes what is in it: nobody else may write there, whatever the umask.
    fs::DirBuilder::new().recursive(true).mode(0o755).create(directory).map_err(fail)?;
    let temporary = temporary_name(target);
    let written = write_synced(&temporary, content, mode).and_then(|()| {
        keep_label(target, &temporary);
        fs::rename(&temporary, target)
    });
    if let Err(source) = written {
        let _ = fs::remove_file(&temporary);
        return Err(fail(source));
    }
    // The name is on the disk once its directory is. Some file systems cannot sync directories.
    if let Ok(directory) = File::open(directory) {
        let _ = directory.sync_all();
    }
    Ok(())
}

/// The content of a regular file. Neither follows a symlink nor waits for the other end of a FIFO.
///
/// # Errors
/// The system's reason, or that it is no regular file.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let flags = (rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits().cast_signed();
    let mut file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut content = Vec::new();
    file.read_to_end(&mut content)?;
    Ok(content)
}

/// Removes a file. Returns whether it was there.
///
/// # Errors
/// Names the file and the reason.
pub fn remove(target: &Path) -> Result<bool, InstallError> {
    match fs::remove_file(target) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(InstallError { path: target.to_owned(), source }),
    }
}

/// Files of a conf directory that a runtime takes before `ours`: it uses the first by name.
///
/// # Errors
/// When the directory cannot be read.
pub fn files_before(ours: &Path) -> io::Result<Vec<PathBuf>> {
    let (Some(directory), Some(name)) = (ours.parent(), ours.file_name()) else { return Ok(Vec::new()) };
    let mut before = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let extension = path.extension().and_then(|extension| extension.to_str());
        let is_conf = extension.is_some_and(|it| ["conf", "conflist", "json"].contains(&it));
        if is_conf && path.file_name().is_some_and(|it| it < name) {
            before.push(path);
        }
    }
    before.sort();
    Ok(before)
}

/// Not a name that a runtime would load as a conf, and hidden in listings.
fn temporary_name(target: &Path) -> PathBuf {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    target.with_file_name(format!(".{name}.ferruled"))
}

fn write_synced(path: &Path, content: &mut impl Read, mode: u32) -> io::Result<()> {
    // A process that crashed may have left anything under this name, a symlink included.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    io::copy(content, &mut file)?;
    // Regardless of the umask.
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.sync_all()
}

/// Gives the new file the SELinux label of the one that it replaces: a new one has the label that the policy derives from the
/// directory, and restorecon or an administrator may have given another, which the runtime may execute. Where the system
/// refuses, the file has the policy's label, as the first one had.
fn keep_label(target: &Path, new: &Path) {
    let mut label = [0_u8; LABEL_MAX];
    let Ok(length) = rustix::fs::lgetxattr(target, LABEL, &mut label) else { return };
    if let Some(label) = label.get(..length) {
        let _ = rustix::fs::lsetxattr(new, LABEL, label, rustix::fs::XattrFlags::empty());
    }
}

/// A target that cannot be read is not as wanted; a source that cannot be read is an error.
fn is_as_wanted(target: &Path, source: &mut (impl Read + Seek), mode: u32) -> io::Result<bool> {
    let Ok(metadata) = fs::symlink_metadata(target) else { return Ok(false) };
    if !metadata.is_file() || metadata.permissions().mode() & 0o7777 != mode {
        return Ok(false);
    }
    if source.seek(SeekFrom::End(0))? != metadata.len() {
        return Ok(false);
    }
    source.rewind()?;
    let Ok(found) = File::open(target) else { return Ok(false) };
    let (mut source, mut found) = (BufReader::new(source), BufReader::new(found));
    loop {
        let wanted = source.fill_buf()?;
        let Ok(there) = found.fill_buf() else { return Ok(false) };
        let length = wanted.len().min(there.len());
        if length == 0 {
            return Ok(wanted.len() == there.len());
        }
        if wanted[..length] != there[..length] {
            return Ok(false);
        }
        source.consume(length);
        found.consume(length);
    }
}

fn remedy(error: &io::Error, path: &Path) -> String {
    let directory = path.parent().unwrap_or(path).display();
    match error.kind() {
        io::ErrorKind::ReadOnlyFilesystem => format!(
            "; {directory} is on a read-only file system: mount it writable into the agent's pod, or name another \
             directory that the runtime looks in (--bin-dir and containerd's bin_dirs, --conf-dir and conf_dir)"
        ),
        io::ErrorKind::PermissionDenied => format!(
            "; the agent has to be root, and where SELinux is enforcing its policy must let it write to {directory} \
             (ausearch -m avc tells; seLinuxOptions of the agent's pod has to be type: spc_t, as in deploy/)"
        ),
        io::ErrorKind::StorageFull => format!("; make room on the file system of {directory}"),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("ferruled-install-{}-{name}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_file_is_written_once_and_again_only_when_it_differs() {
        use std::os::unix::fs::MetadataExt;
        let scratch = Scratch::new("once");
        let target = scratch.0.join("bin/ferrule");
        let inode = || fs::metadata(&target).unwrap().ino();
        assert_eq!(install(&target, b"one", 0o755).unwrap(), Installed::Written);
        let first = inode();
        assert_eq!(install(&target, b"one", 0o755).unwrap(), Installed::Unchanged);
        assert_eq!(inode(), first);
        fs::set_permissions(&target, fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(install(&target, b"one", 0o755).unwrap(), Installed::Written);
        assert_eq!(install(&target, b"two", 0o755).unwrap(), Installed::Written);
        assert_eq!(fs::read(&target).unwrap(), b"two");
        assert_eq!(fs::metadata(&target).unwrap().permissions().mode() & 0o7777, 0o755);
        assert_eq!(fs::read_dir(target.parent().unwrap()).unwrap().count(), 1, "no temporary file stays");
    }

    #[test]
    fn a_program_that_is_being_executed_is_replaced() {
        let scratch = Scratch::new("busy");
        let target = scratch.0.join("sleep");
        fs::copy("/bin/sleep", &target).unwrap();
        let mut child = std::process::Command::new(&target).arg("10").spawn().unwrap();
        assert_eq!(install(&target, b"#!/bin/sh\n", 0o755).unwrap(), Installed::Written);
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn what_stands_in_the_way_is_no_file_of_ours_to_follow() {
        let scratch = Scratch::new("link");
        let (target, elsewhere) = (scratch.0.join("10-ferrule.conflist"), scratch.0.join("elsewhere"));
        fs::write(&elsewhere, "theirs").unwrap();
        std::os::unix::fs::symlink(&elsewhere, &target).unwrap();
        std::os::unix::fs::symlink(&elsewhere, temporary_name(&target)).unwrap();
        assert_eq!(install(&target, b"ours", 0o644).unwrap(), Installed::Written);
        assert_eq!(fs::read(&elsewhere).unwrap(), b"theirs");
        assert!(fs::symlink_metadata(&target).unwrap().is_file());
    }

    #[test]
    fn an_error_names_the_file_and_the_remedy() {
        let error = install(Path::new("/proc/no/such"), b"", 0o644).unwrap_err();
        assert!(error.to_string().starts_with("cannot install /proc/no/such: "), "{error}");
        let error = InstallError {
            path: "/opt/cni/bin/ferrule".into(),
            source: io::Error::from(io::ErrorKind::ReadOnlyFilesystem),
        };
        assert!(error.to_string().contains("--bin-dir"), "{error}");
    }

    #[test]
    fn only_confs_that_come_first_by_name_are_in_our_way() {
        let scratch = Scratch::new("before");
        let ours = scratch.0.join("10-ferrule.conflist");
        let names = ["05-cilium.conflist", "10-aaa.conf", "10-kindnet.conflist", "00-readme.txt"];
        names.iter().for_each(|name| fs::write(scratch.0.join(name), "{}").unwrap());
        install(&ours, b"{}", 0o644).unwrap();
        let found = files_before(&ours).unwrap();
        assert_eq!(found, [scratch.0.join("05-cilium.conflist"), scratch.0.join("10-aaa.conf")]);
    }
}
