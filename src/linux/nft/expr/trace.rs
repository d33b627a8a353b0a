//! `meta nftrace set`

use netlink_packet_netfilter::nftables::Expressions;

use super::super::super::attributes::Attributes;
use super::uapi::{NFT_META_NFTRACE, NFTA_META_KEY, NFTA_META_SREG};
use super::{Expr, Reg, other};

pub(super) fn to_netlink(from: Reg) -> Expressions {
    other("meta", &[(NFTA_META_KEY, NFT_META_NFTRACE), (NFTA_META_SREG, from.number())])
}

pub(super) fn read(fields: Attributes<'_>) -> Option<Expr> {
    let is_trace = fields.number(NFTA_META_KEY) == Some(NFT_META_NFTRACE);
    let from = fields.number(NFTA_META_SREG).filter(|_| is_trace)?;
    Reg::from_number(from).map(|from| Expr::Trace { from })
}
