//! Telling of packets: to a group of nfnetlink_log, and no more of them than somebody can read.

use netlink_packet_netfilter::nftables::Expressions;
use rtnetlink::packet_core::DefaultNla;

use super::super::super::attributes::Attributes;
use super::Expr;
use super::uapi::*;

/// `log prefix PREFIX group GROUP snaplen LENGTH`
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Log {
    /// Who listens.
    pub group: u16,
    /// What the message begins with; at most 127 bytes.
    pub prefix: String,
    /// How many bytes of the packet are copied.
    pub length: u32,
}

impl Log {
    pub(super) fn to_netlink(&self) -> Expressions {
        let mut prefix = self.prefix.clone().into_bytes();
        prefix.push(0);
        of(
            "log",
            [
                (NFTA_LOG_GROUP, self.group.to_be_bytes().to_vec()),
                (NFTA_LOG_PREFIX, prefix),
                (NFTA_LOG_SNAPLEN, self.length.to_be_bytes().to_vec()),
            ],
        )
    }

    pub(super) fn read(fields: Attributes<'_>) -> Option<Self> {
        let group = fields.value(NFTA_LOG_GROUP)?.first_chunk::<2>()?;
        Some(Self {
            group: u16::from_be_bytes(*group),
            prefix: fields.text(NFTA_LOG_PREFIX)?,
            length: fields.number(NFTA_LOG_SNAPLEN)?,
        })
    }
}

/// `limit rate RATE/second burst BURST packets`
pub(super) fn limit(per_second: u64, burst: u32) -> Expressions {
    of(
        "limit",
        [
            (NFTA_LIMIT_RATE, per_second.to_be_bytes().to_vec()),
            (NFTA_LIMIT_UNIT, 1_u64.to_be_bytes().to_vec()),
            (NFTA_LIMIT_BURST, burst.to_be_bytes().to_vec()),
        ],
    )
}

/// `None` if it counts bytes, or is over by another time, or is inverted.
pub(super) fn read_limit(fields: Attributes<'_>) -> Option<Expr> {
    let long = |kind| fields.value(kind)?.first_chunk::<8>().map(|bytes| u64::from_be_bytes(*bytes));
    let is_plain = |kind| fields.number(kind).unwrap_or(0) == 0;
    let counts_packets = is_plain(NFTA_LIMIT_TYPE) && is_plain(NFTA_LIMIT_FLAGS);
    (counts_packets && long(NFTA_LIMIT_UNIT)? == 1).then_some(Expr::Limit {
        per_second: long(NFTA_LIMIT_RATE)?,
        burst: fields.number(NFTA_LIMIT_BURST)?,
    })
}

fn of<const N: usize>(name: &str, attributes: [(u16, Vec<u8>); N]) -> Expressions {
    let attributes = attributes.into_iter().map(|(kind, value)| DefaultNla::new(kind, value));
    Expressions::Other { expression_type: name.to_owned(), attributes: attributes.collect() }
}
