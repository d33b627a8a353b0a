//! Reads the attachments that a GC is to leave alone.
//!
//! Everything that is not on this list gets removed. So an element that cannot be read is a problem that
//! stops the GC, never one attachment less on the list, and neither is a list that is missing an empty one.

use serde_json::Value;

use crate::cni::ids::{ContainerId, IfName};
use crate::cni::json::{Node, Noted};

const KEY: &str = "cni.dev/valid-attachments";

/// The key's name in an early draft of version 1.1.0, which runtimes still write as well (cni#1101).
const DRAFT_KEY: &str = "cni.dev/attachments";

/// Reads the list. `null` is how Go writes an empty one.
pub(super) fn read_valid_attachments(root: &Node<'_, '_>) -> Vec<(ContainerId, IfName)> {
    let Some(key) = [KEY, DRAFT_KEY].into_iter().find(|key| root.has(key)) else {
        root.refuse_member(KEY, "is missing; without it every attachment would be taken for a leftover");
        return Vec::new();
    };
    if root.value().get(key) == Some(&Value::String(String::new())) {
        // An empty text counts as absent elsewhere; nobody writes an empty list like that.
        root.refuse_member(key, "is a string where a list is needed");
    }
    let Some(list) = root.list(key) else { return Vec::new() };
    list.items().filter_map(|item| read_attachment(&item).ok()).collect()
}

fn read_attachment(node: &Node<'_, '_>) -> Result<(ContainerId, IfName), Noted> {
    if !node.is_object() {
        return Err(Noted);
    }
    let container = node.try_parsed("containerID", ContainerId::parse);
    let ifname = node.try_parsed("ifname", IfName::parse);
    for (key, is_missing) in [("containerID", container == Ok(None)), ("ifname", ifname == Ok(None))] {
        if is_missing {
            node.refuse_member(key, "is missing");
        }
    }
    Ok((container?.ok_or(Noted)?, ifname?.ok_or(Noted)?))
}
