//! Settings of the node that a network needs, and what they were before, so that the node can be left as it was found.
//!
//! `<dataDir>/<network>/changed`: the boot on the first line, then `path before after` a line, the path with slashes.
//! Settings do not outlive a boot, and neither does what is said of them. Written before the change is made: who dies
//! between the two leaves a line that says of a setting what it still is.

use crate::store::boot::BootId;
use crate::store::error::{Damaged, StoreError};
use crate::store::guard::StoreGuard;
use crate::store::handle::Store;

const NAME: &str = "changed";

/// A setting that was changed, or would have been if it had not been right already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// Components below /proc/sys.
    pub path: Vec<String>,
    /// What it was when it was looked at for the first time.
    pub before: String,
    /// What it was set to.
    pub after: String,
}

impl Store {
    /// What was found in this boot, in the order in which it was changed.
    ///
    /// # Errors
    /// When the file cannot be read, or is none.
    pub fn changed(&self, boot: &BootId) -> Result<Vec<Changed>, StoreError> {
        let Some(content) = self.root.read(NAME)? else { return Ok(Vec::new()) };
        let text = String::from_utf8_lossy(&content.bytes);
        let mut lines = text.lines();
        if lines.next() != Some(boot.as_str()) {
            return Ok(Vec::new());
        }
        Ok(lines.filter_map(Changed::read).collect())
    }
}

impl StoreGuard<'_> {
    /// Remembers what was found. Of a setting that is known in this boot, what it was at first stays.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn remember_changed(&mut self, changes: &[Changed]) -> Result<(), StoreError> {
        // What cannot be read is nothing to go by.
        let mut known = self.store.changed(&self.boot).unwrap_or_default();
        for change in changes {
            match known.iter_mut().find(|it| it.path == change.path) {
                Some(it) => it.after.clone_from(&change.after),
                None => known.push(change.clone()),
            }
        }
        let mut text = format!("{}\n", self.boot);
        known.iter().for_each(|it| text.push_str(&it.write()));
        let root = &self.store.root;
        match root.read_to_replace(NAME)? {
            Some(old) => root.overwrite(NAME, &old, text.as_bytes()),
            None => Err(Damaged::new(root.path_of(NAME), "it is a directory").into()),
        }
    }
}

impl Changed {
    fn read(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let (path, before, after) = (words.next()?, words.next()?, words.next()?);
        let path: Vec<String> = path.split('/').map(str::to_owned).collect();
        (words.next().is_none()).then(|| Self { path, before: before.to_owned(), after: after.to_owned() })
    }

    fn write(&self) -> String {
        format!("{} {} {}\n", self.path.join("/"), self.before, self.after)
    }
}
