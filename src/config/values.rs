//! Values that more than one key of a conf has: addresses, hardware addresses, MTUs, paths.
//!
//! Each error is a text that follows the JSON path of what was read.

use std::net::IpAddr;
use std::path::PathBuf;

use crate::cni::args::parse_requested;
use crate::cni::problem::quote;
use crate::mac::MacAddr;

/// Largest MTU of a link (`ETH_MAX_MTU`, include/uapi/linux/if_ether.h).
pub(super) const MTU_MAX: u32 = 65535;

/// Smallest MTU of a link that carries IPv4 (`ETH_MIN_MTU`; RFC 791, section 3.2).
const MTU_MIN: u32 = 68;

/// Smallest MTU of a link that carries IPv6 (RFC 8200, section 5). On a smaller one the kernel has nothing of IPv6, no
/// setting either (`addrconf_notify`, net/ipv6/addrconf.c).
pub const MTU_MIN_IPV6: u32 = 1280;

/// An address, with or without a prefix length.
pub(super) fn parse_ip(text: &str) -> Result<IpAddr, String> {
    parse_requested(text)
        .ok_or_else(|| format!("is {}, which is no address; write it like 10.244.1.5", quote(text)))
}

/// A hardware address that a pod's interface can have.
pub(super) fn parse_mac(text: &str) -> Result<MacAddr, String> {
    let mac = MacAddr::parse(text).filter(|mac| mac.is_unicast());
    mac.ok_or_else(|| {
        format!("is {}, which is no unicast address; write it like 0a:58:0a:f4:01:05", quote(text))
    })
}

/// An MTU that a link can have; `None` for 0.
pub(super) fn check_mtu(mtu: u32, has_ipv6: bool) -> Result<Option<u32>, String> {
    let (least, family) = if has_ipv6 { (MTU_MIN_IPV6, "IPv6") } else { (MTU_MIN, "IPv4") };
    match mtu {
        0 => Ok(None),
        mtu if mtu < least => {
            Err(format!("is {mtu}, and {family} needs {least} at least; 0 takes the MTU of the node's link"))
        }
        mtu if mtu > MTU_MAX => Err(format!("is {mtu}, and no link has more than {MTU_MAX}")),
        mtu => Ok(Some(mtu)),
    }
}

/// A path that means the same from every working directory.
pub(super) fn parse_absolute(text: &str) -> Result<PathBuf, String> {
    if text.starts_with('/') {
        return Ok(PathBuf::from(text));
    }
    Err(format!("is {}, which is not an absolute path", quote(text)))
}
