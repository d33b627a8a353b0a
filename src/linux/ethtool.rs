//! Offloads of a link, as `ethtool -k` and `-K` read and set them: generic netlink's family `ethtool` (Linux 5.7,
//! Documentation/networking/ethtool-netlink.rst).

use std::io;

use rtnetlink::packet_core::NLM_F_ACK;
use rtnetlink::sys;
use rtnetlink::sys::protocols::NETLINK_GENERIC;
use rustix::io::Errno;

use super::answer::Answers;
use super::attributes::Attributes;
use super::error::{KernelError, Reason};
use super::exchange::Connection;
use super::message::{Object, Request};
use super::socket;

/// include/uapi/linux/genetlink.h
const GENL_ID_CTRL: u16 = 16;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;

/// include/uapi/linux/ethtool_netlink_generated.h
const ETHTOOL_MSG_FEATURES_GET: u8 = 11;
const ETHTOOL_MSG_FEATURES_SET: u8 = 12;
const ETHTOOL_A_FEATURES_HEADER: u16 = 1;
const ETHTOOL_A_FEATURES_WANTED: u16 = 3;
const ETHTOOL_A_FEATURES_ACTIVE: u16 = 4;
const ETHTOOL_A_HEADER_DEV_NAME: u16 = 2;
const ETHTOOL_A_BITSET_BITS: u16 = 3;
const ETHTOOL_A_BITSET_BITS_BIT: u16 = 1;
const ETHTOOL_A_BITSET_BIT_NAME: u16 = 2;
const ETHTOOL_A_BITSET_BIT_VALUE: u16 = 3;

/// `NLA_F_NESTED` (include/uapi/linux/netlink.h).
const NESTED: u16 = 1 << 15;

/// Length of `struct genlmsghdr`.
const HEADER: usize = 4;

/// The checksum of what leaves is left to the card, or to whatever the frame is handed on to (NETIF_F_HW_CSUM, and the
/// older ones of one family).
const CHECKSUMS: [&str; 3] = ["tx-checksum-ip-generic", "tx-checksum-ipv4", "tx-checksum-ipv6"];

/// Speaks to the kernel about links' offloads.
pub struct Ethtool(Connection);

impl Ethtool {
    /// About those of the namespace of the calling thread.
    ///
    /// # Errors
    /// The kernel's: no descriptors left.
    pub fn open_here() -> io::Result<Self> {
        let opened = sys::Socket::new(NETLINK_GENERIC)?;
        opened.set_non_blocking(true)?;
        socket::explain_refusals(&opened)?;
        Ok(Self(Connection::over(opened)))
    }

    /// Whether the checksums of what leaves by a link are left to it.
    ///
    /// # Errors
    /// The kernel's refusal: it is older than 5.7, or has no such link.
    pub async fn offloads_checksums(&self, link: &str) -> Result<bool, KernelError> {
        let operation = format!("read features dev {link}");
        let header = header_of(link);
        let answer = self.ask(ETHTOOL_MSG_FEATURES_GET, header, 0, &operation).await?;
        let is_any = answer.is_some_and(|answer| {
            let attributes = Attributes(answer.payload.get(HEADER..).unwrap_or_default());
            active(attributes).iter().any(|name| CHECKSUMS.contains(&name.as_str()))
        });
        Ok(is_any)
    }

    /// Has the kernel compute the checksums of what leaves by a link, or leaves them to the link: `ethtool -K LINK tx off`.
    ///
    /// # Errors
    /// The kernel's refusal: it is older than 5.7, or has no such link.
    pub async fn set_checksum_offload(&self, link: &str, is_on: bool) -> Result<(), KernelError> {
        let operation = format!("set features dev {link} tx {}", if is_on { "on" } else { "off" });
        let mut body = header_of(link);
        // A link that has one by that name only.
        let bit = bit(CHECKSUMS[0], is_on);
        let bits = attribute(ETHTOOL_A_BITSET_BITS | NESTED, &bit);
        body.extend(attribute(ETHTOOL_A_FEATURES_WANTED | NESTED, &bits));
        self.ask(ETHTOOL_MSG_FEATURES_SET, body, NLM_F_ACK, &operation).await.map(drop)
    }

    async fn ask(
        &self,
        command: u8,
        body: Vec<u8>,
        flags: u16,
        operation: &str,
    ) -> Result<Option<Object>, KernelError> {
        let family = self.family().await.map_err(|reason| reason.of(operation.to_owned()))?;
        self.exchange(family, command, body, flags).await.map_err(|reason| reason.of(operation.to_owned()))
    }

    /// The number that this kernel has given the family.
    async fn family(&self) -> Result<u16, Reason> {
        let name = attribute(CTRL_ATTR_FAMILY_NAME, b"ethtool\0");
        let answer = self.exchange(GENL_ID_CTRL, CTRL_CMD_GETFAMILY, name, 0).await?;
        let id = answer.as_ref().and_then(|answer| {
            let attributes = Attributes(answer.payload.get(HEADER..)?);
            attributes.value(CTRL_ATTR_FAMILY_ID)?.first_chunk::<2>().map(|bytes| u16::from_ne_bytes(*bytes))
        });
        id.ok_or_else(|| Reason::ours(Errno::NOENT, "the kernel has no generic netlink family ethtool"))
    }

    async fn exchange(
        &self,
        family: u16,
        command: u8,
        body: Vec<u8>,
        flags: u16,
    ) -> Result<Option<Object>, Reason> {
        // struct genlmsghdr: the command, the family's version, and two bytes of nothing.
        let mut message = vec![command, 1, 0, 0];
        message.extend(body);
        let request = Request { kind: family, flags: flags | NLM_F_ACK, body: message, held: None };
        let verdicts = self.0.exchange(&[request], |first| Answers::to(first, 1)).await?;
        verdicts.into_iter().next().unwrap_or_else(|| Err(Reason::lost()))
    }
}

fn header_of(link: &str) -> Vec<u8> {
    let name = attribute(ETHTOOL_A_HEADER_DEV_NAME, &[link.as_bytes(), b"\0"].concat());
    attribute(ETHTOOL_A_FEATURES_HEADER | NESTED, &name)
}

/// A bit that is to be changed; it is to be set if it has a value.
fn bit(name: &str, is_set: bool) -> Vec<u8> {
    let mut inner = attribute(ETHTOOL_A_BITSET_BIT_NAME, &[name.as_bytes(), b"\0"].concat());
    if is_set {
        inner.extend(attribute(ETHTOOL_A_BITSET_BIT_VALUE, &[]));
    }
    attribute(ETHTOOL_A_BITSET_BITS_BIT | NESTED, &inner)
}

/// Names of the features that are on.
fn active(attributes: Attributes<'_>) -> Vec<String> {
    let bits = attributes.nested(ETHTOOL_A_FEATURES_ACTIVE).and_then(|it| it.nested(ETHTOOL_A_BITSET_BITS));
    let bits = bits.unwrap_or(Attributes(&[])).iter();
    bits.filter_map(|(_, value)| Attributes(value).text(ETHTOOL_A_BITSET_BIT_NAME)).collect()
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}
