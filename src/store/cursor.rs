//! Where round robin stands: the address last handed out, for each range set.
//!
//! Kept as addresses, one a line, so that it means the same after the ranges of the conf have changed.
//! It only says where to begin looking: any content will do, and nonsense counts as none. Something else than a file
//! of our own is replaced.

use std::net::IpAddr;

use crate::config::range::RangeSet;
use crate::store::error::StoreError;
use crate::store::layout::{Content, Dir};

const NAME: &str = "next";

/// The addresses last handed out.
pub(super) struct Cursor {
    /// `None` where something stands in its place that cannot be removed: then it is not remembered.
    content: Option<Content>,
    last: Vec<IpAddr>,
}

impl Cursor {
    /// Reads it from the store at `root`.
    pub fn read(root: &Dir) -> Result<Self, StoreError> {
        let content = root.read_to_replace(NAME)?;
        let text = String::from_utf8_lossy(content.as_ref().map_or(&[], |content| &content.bytes));
        let last = text.lines().filter_map(|line| line.parse().ok()).collect();
        Ok(Self { content, last })
    }

    /// The address that the set handed out last, if it is known.
    pub fn last_of(&self, set: &RangeSet) -> Option<IpAddr> {
        let is_in = |address: &IpAddr| set.range_of(*address).is_some();
        // One that the set lacks since lies in its subnet still.
        let is_near = |address: &IpAddr| set.ranges().iter().any(|range| range.subnet().contains(*address));
        let mut last = self.last.iter().copied();
        last.clone().find(is_in).or_else(|| last.find(is_near))
    }

    /// Remembers the last address of each set.
    pub fn advance(&self, root: &Dir, last: &[IpAddr]) -> Result<(), StoreError> {
        let Some(content) = self.content.as_ref().filter(|_| self.last != last) else { return Ok(()) };
        let text: String = last.iter().map(|address| format!("{address}\n")).collect();
        root.overwrite(NAME, content, text.as_bytes())
    }
}
