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
use crate::config::host_port::HostPort;
use crate::desired::names::stable_hash_of_bytes;
use crate::desired::nftables::element::PodRules;
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
    pub imported_from: Option<String>,
}

impl Record {
    pub(super) fn new(claim: Claim, addresses: Vec<IpAddr>, boot_id: BootId, created: u64) -> Self {
        let Claim { key, netns, host_link, pod, masquerade, host_ports, imported_from } = claim;
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
fn checksum(bytes: &[u8]) -> String {
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
    imported_from: Option<String>,
    created: u64,
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
            imported_from: self.imported_from,
            created: self.created,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `cat` shows. Stores on people's nodes hold this form: it may grow, and never change.
    const GOLDEN: &str = r#"{
  "version": 1,
  "network": "podnet",
  "container": "8e5d3ecb0b9f",
  "ifname": "eth0",
  "netns": {
    "path": "/run/netns/cni-1",
    "dev": 4,
    "ino": 4026532201
  },
  "bootId": "6c3b1c1e-5f0a-4a57-9d7e-0d6f1a2b3c4d",
  "hostLink": "veth0123456789a",
  "addresses": [
    "10.244.1.2",
    "fd00:10:244:1::2"
  ],
  "pod": {
    "namespace": "default",
    "name": "web-0"
  },
  "masquerade": true,
  "hostPorts": [
    {
      "hostIP": "127.0.0.1",
      "hostPort": 8080,
      "containerPort": 80,
      "protocol": "tcp"
    }
  ],
  "created": 1795445360,
  "sum": "fe965990cdb3c7f6"
}
"#;

    const SUM_OF_GOLDEN: &str = "fe965990cdb3c7f6";

    fn read(json: &str) -> Result<Record, StoreError> {
        Record::from_json(json.as_bytes(), Path::new("by-id/x"))
    }

    #[test]
    fn a_record_is_written_as_it_is_read() {
        let record = read(GOLDEN).unwrap();
        assert_eq!(record.key().to_string(), "podnet/8e5d3ecb0b9f/eth0");
        assert_eq!(String::from_utf8(record.to_json()).unwrap(), GOLDEN);
    }

    /// As older versions wrote it, and as somebody leaves it who has edited it by hand.
    fn without_sum() -> String {
        GOLDEN.replace(&format!("{SUM}{SUM_OF_GOLDEN}\""), "")
    }

    #[test]
    fn a_record_without_checksum_is_believed_a_wrong_one_is_not() {
        assert_eq!(read(&without_sum()).unwrap(), read(GOLDEN).unwrap());
        let edited = GOLDEN.replace("web-0", "web-1");
        assert!(read(&edited).unwrap_err().to_string().contains("checksum"));
        let compact = serde_json::from_str::<serde_json::Value>(GOLDEN).unwrap().to_string();
        assert!(read(&compact).unwrap_err().to_string().contains("checksum"));
    }

    #[test]
    fn one_that_was_imported_says_from_where() {
        let mark = "  \"importedFrom\": \"/var/lib/cni/networks/podnet\",\n  \"created\"";
        let json = GOLDEN.replace("  \"created\"", mark).replace(SUM_OF_GOLDEN, "ec4b12e4ef1e5ade");
        let record = read(&json).unwrap();
        assert_eq!(record.imported_from.as_deref(), Some("/var/lib/cni/networks/podnet"));
        assert_eq!(String::from_utf8(record.to_json()).unwrap(), json);
    }

    #[test]
    fn what_only_some_attachments_have_may_be_missing() {
        let json = r#"{"version":1,"network":"n","container":"c","ifname":"i","bootId":"b",
            "addresses":[],"created":0,"colour":"blue"}"#;
        let record = read(json).unwrap();
        assert_eq!((record.rules(), record.masquerade, record.host_ports.len()), (None, false, 0));
        assert_eq!((record.netns, record.host_link, record.pod), (None, None, None));
        assert_eq!(record.imported_from, None);
    }

    #[test]
    fn a_pods_name_that_could_forge_a_line_is_left_out() {
        for bad in ["web-0\\n", "web/0", "", "web-0\\u001b[2J"] {
            let record = read(&without_sum().replace("web-0", bad)).unwrap();
            assert_eq!((record.pod, record.addresses.len()), (None, 2), "{bad}");
        }
        let mark = "\"importedFrom\": \"/var\\n\", \"created\"";
        assert!(matches!(read(&without_sum().replace("\"created\"", mark)), Err(StoreError::Damaged(_))));
    }

    #[test]
    fn a_word_that_is_none_of_ours_does_not_break_the_message() {
        for word in ["t\\u009bcp", "\\n", &"x".repeat(4000)] {
            let error = read(&without_sum().replace("tcp", word)).unwrap_err().to_string();
            assert!(error.contains("unknown variant") && !error.contains(char::is_control), "{error:?}");
            assert!(error.len() < 500, "{}", error.len());
        }
    }

    #[test]
    fn a_value_that_would_be_dangerous_to_use_is_damage() {
        for (good, bad) in [
            ("podnet", "../podnet"),
            ("8e5d3ecb0b9f", "a/b"),
            ("\"eth0\"", "\"\""),
            ("/run/netns/cni-1", "run"),
            ("veth0123456789a", "veth0123456789abcdef"),
            ("10.244.1.2", "10.244.1"),
            ("4026532201", "-1"),
            ("6c3b1c1e-5f0a", "/"),
            ("\"version\": 1", "\"version\": 0"),
            ("\"version\": 1", "\"version\": \"1\""),
        ] {
            let error = read(&without_sum().replace(good, bad)).unwrap_err();
            assert!(matches!(error, StoreError::Damaged(_)), "{bad}: {error}");
            assert!(!error.to_string().contains("checksum"), "{bad}: {error}");
        }
    }
}
