//! What the store of a network holds, read from its files: the names and texts that an administrator sees with `ls`
//! and `cat`, and never by the code under test.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::files::names_in;

/// Where the store of one network is, or would be.
#[derive(Clone)]
pub struct Store(PathBuf);

impl Store {
    /// That of `network` below `data_dir`.
    pub fn of(data_dir: &Path, network: &str) -> Self {
        Self(data_dir.join(network))
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The addresses that it holds, sorted: the names in `by-ip`.
    pub fn held(&self) -> Vec<String> {
        names_in(&self.0.join("by-ip"))
    }

    /// The attachments that it knows, sorted: the names in `by-id`.
    pub fn known(&self) -> Vec<String> {
        names_in(&self.0.join("by-id"))
    }

    /// What an interrupted command left half-done.
    pub fn unfinished(&self) -> Vec<String> {
        names_in(&self.0.join("tmp"))
    }

    /// Where the record of `container`'s eth0 is.
    pub fn record_path(&self, container: &str) -> PathBuf {
        self.0.join("by-id").join(format!("{container}@eth0"))
    }

    /// That record, which must be there and whole.
    pub fn record(&self, container: &str) -> Value {
        let path = self.record_path(container);
        let text = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// Has `change` rewrite each record, and leaves out the checksum, as whoever edits one by hand does.
    pub fn rewrite_records(&self, change: impl Fn(&mut Value)) {
        for name in self.known() {
            self.rewrite(name.trim_end_matches("@eth0"), &change);
        }
    }

    /// The same with the record of `container`'s eth0 alone.
    pub fn rewrite(&self, container: &str, change: impl Fn(&mut Value)) {
        let mut record = self.record(container);
        change(&mut record);
        record.as_object_mut().unwrap().remove("sum");
        // In place: the other names of the file are links to the same inode.
        fs::write(self.record_path(container), record.to_string()).unwrap();
    }

    /// Panics unless it holds, knows and has begun nothing.
    pub fn expect_empty(&self) {
        let nothing = Vec::<String>::new();
        assert_eq!(self.known(), nothing, "records");
        assert_eq!(self.held(), nothing, "held addresses");
        assert_eq!(self.unfinished(), nothing, "half-done records");
    }
}
