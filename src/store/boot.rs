//! Which boot of the machine this is.
//!
//! No network namespace outlives a boot, so a record of an earlier one is dead, whoever wrote it.

use std::fmt;
use std::path::Path;

use crate::store::error::{Damaged, StoreError};

/// Where the kernel says it (drivers/char/random.c): a UUID, drawn anew at each boot.
const SOURCE: &str = "/proc/sys/kernel/random/boot_id";

/// Names one boot of the machine.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BootId(String);

impl BootId {
    /// Takes `text` if it can be a boot id: 1 to 64 letters, digits and hyphens.
    pub fn parse(text: &str) -> Option<Self> {
        let is_id = (1..=64).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        is_id.then(|| Self(text.to_owned()))
    }

    /// The id as the kernel writes it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Asks the kernel which boot this is.
///
/// # Errors
/// When /proc is not mounted or shows something else there.
pub fn current_boot_id() -> Result<BootId, StoreError> {
    let path = Path::new(SOURCE);
    let text = std::fs::read_to_string(path).map_err(|error| StoreError::io("read", path, error))?;
    BootId::parse(text.trim_end()).ok_or_else(|| Damaged::new(path, "it holds no boot id").into())
}
