//! What is remembered of an attachment: all that its removal needs, so that a DEL never has to work out
//! again what an ADD once did from a conf that has changed since.
//!
//! JSON, so that `cat` shows it. Fields that this version does not know are passed over; a file of a
//! newer format version is not guessed at.
//!
//! The last field is a checksum of all bytes before it. A bit that flips on a disk leaves JSON behind more often than
//! not, with another inode of the namespace, say, or another boot: an attachment that is alive would be found dead, and
//! its address given to a second pod. Whoever edits a record by hand removes the line: a record without is believed.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::cni::args::PodName;
use crate::cni::ids::{AttachmentKey, ContainerId, IfName, InvalidId, NetnsPath, NetworkName};
use crate::cni::problem::plain;
use crate::config::bandwidth::{Bandwidth, Limit};
use crate::config::host_port::HostPort;
use crate::desired::names::stable_hash_of_bytes;
use crate::desired::nftables::element::PodRules;
use crate::mac::MacAddr;
use crate::store::boot::BootId;
use crate::store::error::{Damaged, StoreError};

/// The format written here.
const VERSION: u64 = 1;

/// An attachment as the store remembers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Format version of the file.
    pub version: u64,
    pub network: NetworkName,
    pub container: ContainerId,
    pub ifname: IfName,
    /// The namespace that was attached, if the runtime named one.
    pub netns: Option<RecordedNetns>,
    /// The boot in which it was attached.
    pub boot_id: BootId,
    /// The host's end of the pair, if ferrule made one.
    pub host_link: Option<IfName>,
    /// One address per range set, in the order of the sets.
    pub addresses: Vec<IpAddr>,
    /// The pod, if the runtime said which.
    pub pod: Option<PodName>,
    /// Whether what the pod sends out of its network is masqueraded.
    pub masquerade: bool,
    /// Ports of the node that lead to the pod.
    pub host_ports: Vec<HostPort>,
    /// Hardware address of the pod's end, where it was asked for; else it follows from the key.
    pub mac: Option<MacAddr>,
    /// How much the pod may send and receive.
    pub bandwidth: Bandwidth,
    /// host-local's directory that `ferrulectl import` took it over from; `None` for what ferrule attached. The link and
    /// the routes of such an attachment are another plugin's work, and `host_link` is that plugin's.
    pub imported_from: Option<String>,
    /// When it was attached, in seconds since 1970 by the clock of that moment.
    pub created: u64,
}

/// A network namespace, so that it can be told from another one at the same path, or with the same inode
/// number: both come back in time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedNetns {
    /// Where the runtime keeps it.
    pub path: NetnsPath,
    /// Device of the nsfs file, as stat(2) says it.
    pub dev: u64,
    /// Inode of the nsfs file.
    pub ino: u64,
}

/// What an ADD says of itself when it claims its addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Whose the addresses are to be.
    pub key: AttachmentKey,
    /// The namespace to be attached.
    pub netns: Option<RecordedNetns>,
    /// The host's end of the pair to be made.
    pub host_link: Option<IfName>,
    pub pod: Option<PodName>,
    /// Whether it is to be masqueraded.
    pub masquerade: bool,
    /// Ports of the node that are to lead to it.
    pub host_ports: Vec<HostPort>,
    /// Hardware address of the pod's end, where it is asked for.
    pub mac: Option<MacAddr>,
    /// How much it may send and receive.
    pub bandwidth: Bandwidth,
    pub imported_from: Option<String>,
}

impl Record {
    pub(super) fn new(claim: Claim, addresses: Vec<IpAddr>, boot_id: BootId, created: u64) -> Self {
        let Claim { key, netns, host_link, pod, masquerade, host_ports, mac, bandwidth, imported_from } =
            claim;
        let AttachmentKey { network, container, ifname } = key;
        let version = VERSION;
        Self {
            version,
            network,
            container,
            ifname,
            netns,
            boot_id,
            host_link,
            addresses,
            pod,
            masquerade,
            host_ports,
            mac,
            bandwidth,
            imported_from,
            created,
        }
    }

    /// The record that a claim would get, for a dry run.
    pub fn foreseen(claim: Claim, addresses: Vec<IpAddr>, boot_id: BootId) -> Self {
        Self::new(claim, addresses, boot_id, 0)
    }

    pub fn key(&self) -> AttachmentKey {
        AttachmentKey {
            network: self.network.clone(),
            container: self.container.clone(),
            ifname: self.ifname.clone(),
        }
    }

    /// What the attachment has in the nftables table; nothing where ferrule made no link for it. An imported pod's link
    /// works as another plugin made it: its pod may have to ask for its gateway by neighbour discovery, say.
    pub fn rules(&self) -> Option<PodRules> {
        if self.imported_from.is_some() {
            return None;
        }
        let host_link = self.host_link.as_ref()?.to_string();
        let name = self.pod.as_ref().map_or_else(|| self.container.to_string(), ToString::to_string);
        Some(PodRules {
            network: self.network.clone(),
            host_link,
            name: Some(name),
            addresses: self.addresses.clone(),
            masquerade: self.masquerade,
            host_ports: self.host_ports.clone(),
        })
    }

    /// The record was written in that boot. If it was not, its attachment is gone.
    pub fn is_from(&self, boot: &BootId) -> bool {
        self.boot_id == *boot
    }

    /// The record is younger than `limit` at the time `now` (seconds since 1970). One from the future,
    /// left by a clock that was set back, is not young: else it might stay so for years.
    pub fn is_younger_than(&self, limit: Duration, now: u64) -> bool {
        now.checked_sub(self.created).is_some_and(|age| age < limit.as_secs())
    }

    /// The file's content, with a final newline.
    pub fn to_json(&self) -> Vec<u8> {
        let written = Written {
            version: self.version,
            network: self.network.to_string(),
            container: self.container.to_string(),
            ifname: self.ifname.to_string(),
            netns: self.netns.as_ref().map(|netns| WrittenNetns {
                path: netns.path.to_string(),
                dev: netns.dev,
                ino: netns.ino,
            }),
            boot_id: self.boot_id.to_string(),
            host_link: self.host_link.as_ref().map(IfName::to_string),
            addresses: self.addresses.clone(),
            pod: self.pod.clone(),
            masquerade: self.masquerade,
            host_ports: self.host_ports.clone(),
            mac: self.mac.map(|mac| mac.to_string()),
            ingress: self.bandwidth.ingress.map(WrittenLimit::of),
            egress: self.bandwidth.egress.map(WrittenLimit::of),
            imported_from: self.imported_from.clone(),
            created: self.created,
        };
        // Strings and numbers: serialising them cannot fail.
        let mut json = serde_json::to_vec_pretty(&written).unwrap_or_default();
        if json.ends_with(b"\n}") {
            json.truncate(json.len() - 2);
        }
        let sum = checksum(&json);
        json.extend_from_slice(format!("{SUM}{sum}\"\n}}\n").as_bytes());
        json
    }

    /// Reads a file's content; `path` is for the message.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] or [`StoreError::NewerFormat`].
    pub fn from_json(json: &[u8], path: &Path) -> Result<Self, StoreError> {
        let damaged = |reason: String| StoreError::from(Damaged::new(path, reason));
        // In its words may stand what the file says.
        let no_record =
            |error: serde_json::Error| damaged(format!("it is no record: {}", plain(&error.to_string())));
        // The version first: of a newer format nothing else is known.
        let header: Header = serde_json::from_slice(json).map_err(no_record)?;
        match header.version {
            VERSION => {}
            0 => return Err(damaged("its version is 0".to_owned())),
            version => return Err(StoreError::NewerFormat { path: path.to_owned(), version }),
        }
        if let Some(sum) = header.sum
            && !is_sum_of(&sum, json)
        {
            return Err(damaged("its checksum is not that of what it says".to_owned()));
        }
        let written: Written = serde_json::from_slice(json).map_err(no_record)?;
        written.check().map_err(damaged)
    }
}

/// What stands before the checksum, and after the bytes that it is of.
const SUM: &str = ",\n  \"sum\": \"";

/// 16 hexadecimal digits. FNV-1a at heart, of which each step can be undone: no change of a single byte goes unnoticed.
pub(super) fn checksum(bytes: &[u8]) -> String {
    format!("{:016x}", stable_hash_of_bytes(bytes.iter().copied()))
}

/// Whether `sum` is of the bytes before it.
fn is_sum_of(sum: &str, json: &[u8]) -> bool {
    let place = json.windows(SUM.len()).rposition(|window| window == SUM.as_bytes());
    place.and_then(|place| json.get(..place)).is_some_and(|bytes| checksum(bytes) == sum)
}

#[derive(Deserialize)]
struct Header {
    version: u64,
    #[serde(default)]
    sum: Option<String>,
}

/// The record as it is written, not judged yet.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    version: u64,
    network: String,
    container: String,
    ifname: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    netns: Option<WrittenNetns>,
    boot_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    host_link: Option<String>,
    addresses: Vec<IpAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pod: Option<PodName>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    masquerade: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    host_ports: Vec<HostPort>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mac: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ingress: Option<WrittenLimit>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    egress: Option<WrittenLimit>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    imported_from: Option<String>,
    created: u64,
}

/// A limit of bandwidth: bits per second, and bits.
#[derive(Serialize, Deserialize)]
struct WrittenLimit {
    rate: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    burst: Option<u64>,
}

impl WrittenLimit {
    fn of(limit: Limit) -> Self {
        Self { rate: limit.rate, burst: limit.burst }
    }

    fn read(self) -> Limit {
        Limit { rate: self.rate, burst: self.burst }
    }
}

#[derive(Serialize, Deserialize)]
struct WrittenNetns {
    path: String,
    dev: u64,
    ino: u64,
}

impl Written {
    fn check(self) -> Result<Record, String> {
        let wrong = |field: &'static str| move |error: InvalidId| format!("its {field} {error}");
        let netns = match self.netns {
            Some(WrittenNetns { path, dev, ino }) => {
                let path = NetnsPath::parse(&path).map_err(wrong("netns.path"))?;
                Some(RecordedNetns { path, dev, ino })
            }
            None => None,
        };
        let host_link = self.host_link.as_deref().map(IfName::parse).transpose();
        if self.imported_from.as_ref().is_some_and(|directory| directory.contains(char::is_control)) {
            return Err("its importedFrom has a control character in it".to_owned());
        }
        Ok(Record {
            version: self.version,
            network: NetworkName::parse(&self.network).map_err(wrong("network"))?,
            container: ContainerId::parse(&self.container).map_err(wrong("container"))?,
            ifname: IfName::parse(&self.ifname).map_err(wrong("ifname"))?,
            netns,
            boot_id: BootId::parse(&self.boot_id).ok_or("its bootId is no boot id")?,
            host_link: host_link.map_err(wrong("hostLink"))?,
            addresses: self.addresses,
            // For people only: no reason to lose the rest.
            pod: self.pod.filter(PodName::has_plain_words),
            masquerade: self.masquerade,
            host_ports: self.host_ports,
            // What is none is as good as not asked for: the node's end is made right by it, and nothing else.
            mac: self.mac.as_deref().and_then(MacAddr::parse),
            bandwidth: Bandwidth {
                ingress: self.ingress.map(WrittenLimit::read),
                egress: self.egress.map(WrittenLimit::read),
            },
            imported_from: self.imported_from,
            created: self.created,
        })
    }
}

#[cfg(test)]
mod tests;
