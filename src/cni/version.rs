//! The versions of the CNI specification that ferrule speaks.
//!
//! All of them, for ever: a runtime replays at DEL the version that it used at ADD, however old the
//! pod is (docs/design.md).

use std::fmt;

/// A version of the specification, in the order of their publication.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SpecVersion {
    /// The first: one `ip4`, one `ip6`. A conf without `cniVersion` means this one.
    V0_1_0,
    /// As 0.1.0, with DNS and `interfaces` still absent.
    V0_2_0,
    /// Results list `interfaces` and `ips`.
    V0_3_0,
    /// As 0.3.0, with plugin lists corrected.
    V0_3_1,
    /// CHECK.
    V0_4_0,
    /// `ips[].version` is gone.
    V1_0_0,
    /// GC, STATUS; `mtu` of interfaces; further fields of routes.
    V1_1_0,
}

impl SpecVersion {
    /// Every version, oldest first.
    pub const ALL: [SpecVersion; 7] = [
        SpecVersion::V0_1_0,
        SpecVersion::V0_2_0,
        SpecVersion::V0_3_0,
        SpecVersion::V0_3_1,
        SpecVersion::V0_4_0,
        SpecVersion::V1_0_0,
        SpecVersion::V1_1_0,
    ];

    /// The newest, in which ferrule answers when the conf's version cannot be told.
    pub const NEWEST: SpecVersion = SpecVersion::V1_1_0;

    /// The version that `text` names, if ferrule speaks it.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|version| version.as_str() == text)
    }

    /// As it stands in `cniVersion`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V0_1_0 => "0.1.0",
            Self::V0_2_0 => "0.2.0",
            Self::V0_3_0 => "0.3.0",
            Self::V0_3_1 => "0.3.1",
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }
}

impl fmt::Display for SpecVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_version_is_read_as_it_is_written_and_newer_is_greater() {
        for version in SpecVersion::ALL {
            assert_eq!(SpecVersion::parse(version.as_str()), Some(version));
        }
        assert!(SpecVersion::ALL.is_sorted());
        assert_eq!(SpecVersion::ALL.last(), Some(&SpecVersion::NEWEST));
    }

    #[test]
    fn what_is_not_a_version_is_none() {
        for text in ["", "1", "1.0", "1.2.0", "v1.0.0", "1.0.0 ", "01.0.0"] {
            assert_eq!(SpecVersion::parse(text), None, "{text:?}");
        }
    }
}
