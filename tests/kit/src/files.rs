//! Files: a directory that exists as long as its guard, and what tests ask of others, such as whether a command left
//! all of them as they were.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::process::expect;

/// An empty directory, removed with all that is in it on drop, also when the test panics.
pub struct Scratch(PathBuf);

impl Scratch {
    /// Makes one. `role` shows in its name.
    pub fn new(role: &str) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("ferrule-{}-{count}-{role}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Makes a FIFO in it.
    pub fn make_fifo(&self, name: &str) {
        expect("mkfifo", &[self.0.join(name).to_str().unwrap()]);
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The names in a directory, sorted; none if it is not there.
pub fn names_in(directory: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let name = |entry: fs::DirEntry| entry.file_name().into_string().unwrap();
    let mut names: Vec<String> = entries.map(|entry| name(entry.unwrap())).collect();
    names.sort();
    names
}

/// Every path below a directory, with size and time of last change.
pub fn listing(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for name in names_in(directory) {
        let path = directory.join(name);
        let metadata = fs::symlink_metadata(&path).unwrap();
        found.push(format!("{} {} {:?}", path.display(), metadata.len(), metadata.modified().unwrap()));
        if metadata.is_dir() {
            found.extend(listing(&path));
        }
    }
    found
}

/// Waits until a file that somebody writes has `words` in it.
pub fn wait_for_words(file: &Path, words: &str) {
    let script = "for _ in $(seq 2000); do grep -qsF \"$1\" \"$0\" && exit 0; sleep 0.01; done; exit 1";
    expect("sh", &["-c", script, file.to_str().unwrap(), words]);
}
