//! What the network's store holds, read from its files as an administrator sees them.

use crate::Failure;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// A record.
#[derive(Debug, Clone)]
pub struct Record {
    /// Its addresses, sorted.
    pub addresses: Vec<String>,
    /// Name of its host link.
    pub link: String,
    /// "protocol port" and the pod's port, of each hostPort.
    pub ports: Vec<(String, String)>,
    inode: u64,
}

/// What one moment showed of the store.
#[derive(Debug, Clone, Default)]
pub struct Store {
    /// The records, by container id.
    pub records: BTreeMap<String, Record>,
    /// The addresses that are held, with the inode of their file.
    pub held: BTreeMap<String, u64>,
    /// What is on its way in or out.
    pub unfinished: BTreeMap<String, u64>,
}

impl Store {
    /// Reads all of it.
    ///
    /// # Errors
    /// Also where a record is damaged or bears another's name.
    pub fn read(store: &Path) -> Result<Self, Failure> {
        let mut found = Self::default();
        for (name, inode) in inodes(&store.join("by-id"))? {
            let path = store.join("by-id").join(&name);
            let record: Value = serde_json::from_slice(&fs::read(&path)?)
                .map_err(|error| format!("{} is damaged: {error}", path.display()))?;
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let container = text(&record["container"]);
            if name != format!("{container}@eth0") {
                return Err(format!("{} is the record of {container}", path.display()).into());
            }
            let values = |key: &str| record[key].as_array().cloned().unwrap_or_default();
            let mut addresses: Vec<String> = values("addresses").iter().map(text).collect();
            addresses.sort();
            let port = |port: &Value| {
                (
                    format!("{} {}", text(&port["protocol"]), port["hostPort"]),
                    port["containerPort"].to_string(),
                )
            };
            let ports = values("hostPorts").iter().map(port).collect();
            found
                .records
                .insert(container, Record { addresses, link: text(&record["hostLink"]), ports, inode });
        }
        found.held = inodes(&store.join("by-ip"))?;
        found.unfinished = inodes(&store.join("tmp"))?;
        Ok(found)
    }

    /// Where it contradicts itself. A call that was killed may have left something on its way.
    pub fn contradictions(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut owners: BTreeMap<&str, &str> = BTreeMap::new();
        let mut inodes: BTreeSet<u64> = self.unfinished.values().copied().collect();
        for (id, record) in &self.records {
            inodes.insert(record.inode);
            for address in &record.addresses {
                if let Some(other) = owners.insert(address, id) {
                    found.push(format!("{address} is in the records of {other} and {id}"));
                }
                if self.held.get(address) != Some(&record.inode) {
                    found.push(format!("{address} of {id} is not held for it"));
                }
            }
            if record.addresses.len() != 2 {
                found.push(format!("{id} has {:?} and not one address a family", record.addresses));
            }
        }
        let orphans = self.held.iter().filter(|(_, inode)| !inodes.contains(inode));
        found.extend(
            orphans.map(|(address, _)| format!("{address} is held, and no record has it: it is lost")),
        );
        found
    }
}

/// The names in a directory, none if it is not there, and whose names they are.
fn inodes(directory: &Path) -> Result<BTreeMap<String, u64>, Failure> {
    let Ok(entries) = fs::read_dir(directory) else { return Ok(BTreeMap::new()) };
    let mut found = BTreeMap::new();
    for entry in entries {
        let entry = entry?;
        found.insert(entry.file_name().to_string_lossy().into_owned(), entry.metadata()?.ino());
    }
    Ok(found)
}
