//! An attachment as the verbs print it.

use std::net::IpAddr;

use serde::Serialize;

use crate::attachments::judged::JudgedAttachment;
use crate::attachments::liveness::{self, Life};
use crate::desired::names;

/// An attachment, for people and programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AttachmentReport {
    /// `namespace/name` of the pod, where the runtime told it.
    pub pod: Option<String>,
    /// The container's id.
    pub container: String,
    /// The interface's name in the container.
    pub ifname: String,
    /// Its addresses; none where the record cannot be read.
    pub addresses: Vec<IpAddr>,
    /// The node's end of its pair, where ferrule made one, or the old plugin and it is known.
    pub host_link: Option<String>,
    /// host-local's directory that it was taken over from; null for what ferrule attached.
    pub imported_from: Option<String>,
    /// When it was attached, in seconds since 1970.
    pub created: Option<u64>,
    /// How long ago that was; 0 for a time to come.
    pub age_seconds: Option<u64>,
    /// `alive`, `dead` or `unknown`.
    pub state: &'static str,
    /// What tells so.
    pub reason: String,
}

impl From<&JudgedAttachment> for AttachmentReport {
    fn from(judged: &JudgedAttachment) -> Self {
        let mut report = Self {
            pod: judged.pod(),
            container: judged.key.container.to_string(),
            ifname: judged.key.ifname.to_string(),
            addresses: Vec::new(),
            host_link: judged.has_link.then(|| names::host_link(&judged.key)),
            imported_from: None,
            created: None,
            age_seconds: None,
            state: "unknown",
            reason: String::new(),
        };
        match &judged.state {
            Ok((record, life)) => {
                report.addresses.clone_from(&record.addresses);
                report.host_link = record.host_link.as_ref().map(ToString::to_string);
                report.imported_from.clone_from(&record.imported_from);
                report.created = Some(record.created);
                report.age_seconds = Some(liveness::now().saturating_sub(record.created));
                report.state = if life.is_dead() { "dead" } else { "alive" };
                let has_lost_link =
                    *life == Life::NamespaceStands && record.host_link.is_some() && !judged.has_link;
                let reason = if has_lost_link { "its host link is gone" } else { life.reason() };
                report.reason = reason.to_owned();
            }
            Err(error) => report.reason = error.to_string(),
        }
        report
    }
}

impl AttachmentReport {
    /// Whether there is nothing to say but that it lives.
    pub fn is_well(&self) -> bool {
        self.state == "alive" && self.reason == Life::NamespaceStands.reason()
    }

    /// The container's id as `crictl pods` shows it.
    pub fn short_container(&self) -> String {
        self.container.chars().take(13).collect()
    }

    /// The addresses, with spaces between them.
    pub fn addresses(&self) -> String {
        self.addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(" ")
    }
}
