//! Matches and targets of iptables (xt_*), which nf_tables runs for those rules that it has no expressions for.

use netlink_packet_netfilter::nftables::Expressions;
use rtnetlink::packet_core::DefaultNla;

use super::uapi::{NFTA_MATCH_INFO, NFTA_MATCH_NAME, NFTA_MATCH_REV};

/// A match or target of iptables.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Extension {
    /// Whether it is a target (`-j`) and not a match (`-m`).
    pub is_target: bool,
    /// Its name.
    pub name: String,
    /// Which form its `info` has.
    pub revision: u32,
    /// The struct of include/uapi/linux/netfilter/xt_*.h that belongs to the name.
    pub info: Vec<u8>,
}

/// `XT_MAX_COMMENT_LEN` (include/uapi/linux/netfilter/xt_comment.h), the final NUL included.
const EXTENSION_COMMENT_LENGTH: usize = 256;

impl Extension {
    /// `-m comment --comment TEXT`. At most 255 bytes are kept.
    pub fn comment(text: &str) -> Self {
        let mut info: Vec<u8> = text.bytes().take(EXTENSION_COMMENT_LENGTH - 1).collect();
        info.resize(EXTENSION_COMMENT_LENGTH, 0);
        Self { is_target: false, name: "comment".to_owned(), revision: 0, info }
    }

    /// The text, if it is a comment.
    pub fn to_comment(&self) -> Option<&str> {
        let is_comment = !self.is_target && self.name == "comment";
        let text = self.info.split(|&byte| byte == 0).next().filter(|_| is_comment)?;
        str::from_utf8(text).ok()
    }
}

impl Extension {
    pub(super) fn to_netlink(&self) -> Expressions {
        let mut name = self.name.clone().into_bytes();
        name.push(0);
        Expressions::Other {
            expression_type: if self.is_target { "target" } else { "match" }.to_owned(),
            attributes: vec![
                DefaultNla::new(NFTA_MATCH_NAME, name),
                DefaultNla::new(NFTA_MATCH_REV, self.revision.to_be_bytes().to_vec()),
                DefaultNla::new(NFTA_MATCH_INFO, self.info.clone()),
            ],
        }
    }
}
