//! What a network's store has on disk, read with the standard library alone.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde_json::Value;

/// All of it.
pub struct Disk {
    /// The attachments, by container id.
    pub records: BTreeMap<String, Record>,
    /// The boot that the store says it is of; `None` if nobody has been there.
    pub boot: Option<String>,
    /// Files and names that belong to no attachment.
    pub left: Vec<String>,
}

/// What a record says.
pub struct Record {
    pub addresses: Vec<IpAddr>,
    /// Inode of the namespace.
    pub netns: u64,
    pub host_link: String,
}

impl Disk {
    /// Reads the store at `root`. Nothing is there before its first ADD.
    ///
    /// # Errors
    /// A record that is none, or whose addresses are not held by that very file.
    pub fn read(root: &Path) -> Result<Self, String> {
        let mut by_ip = inodes(&root.join("by-ip"));
        let mut records = BTreeMap::new();
        for (name, inode) in inodes(&root.join("by-id")) {
            let record = Record::read(&root.join("by-id").join(&name))?;
            for address in &record.addresses {
                if by_ip.remove(&address.to_string()) != Some(inode) {
                    return Err(format!("{address} has no name for {name}"));
                }
            }
            records.insert(name.trim_end_matches("@eth0").to_owned(), record);
        }
        let boot = match root.join("by-id").is_dir() {
            true => Some(fs::read_to_string(root.join("boot")).unwrap_or_default().trim_end().to_owned()),
            false => None,
        };
        let unfinished = inodes(&root.join("tmp")).into_keys().map(|name| format!("tmp/{name}"));
        let held = by_ip.into_keys().map(|name| format!("by-ip/{name}"));
        Ok(Self { records, boot, left: unfinished.chain(held).collect() })
    }
}

impl Record {
    fn read(path: &Path) -> Result<Self, String> {
        let wrong = |why: &dyn std::fmt::Display| format!("{}: {why}", path.display());
        let text = fs::read(path).map_err(|error| wrong(&error))?;
        let json: Value = serde_json::from_slice(&text).map_err(|error| wrong(&error))?;
        let addresses = json["addresses"].as_array().into_iter().flatten();
        let addresses = addresses.filter_map(|address| address.as_str()?.parse().ok()).collect();
        let netns = json["netns"]["ino"].as_u64().ok_or_else(|| wrong(&"no namespace"))?;
        let host_link = json["hostLink"].as_str().ok_or_else(|| wrong(&"no link"))?.to_owned();
        Ok(Self { addresses, netns, host_link })
    }
}

/// The inode of each name in a directory; none if it is not there.
fn inodes(directory: &Path) -> BTreeMap<String, u64> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return BTreeMap::new(),
        Err(error) => panic!("{}: {error}", directory.display()),
    };
    let read = |entry: fs::DirEntry| {
        (entry.file_name().into_string().unwrap(), fs::symlink_metadata(entry.path()).unwrap().ino())
    };
    entries.map(|entry| read(entry.unwrap())).collect()
}
