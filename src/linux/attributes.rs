//! Attributes as the kernel sends them: kind, length, value (include/uapi/linux/netlink.h).
//!
//! What is torn is not there. Numbers of nf_tables have their big end first, those of route netlink the host's order.

use std::net::IpAddr;

use rtnetlink::packet_core::NLA_TYPE_MASK;

use crate::mac::MacAddr;

/// `NFTA_LIST_ELEM`: an entry of any list.
const LIST_ELEMENT: u16 = 1;

/// Some attributes, one after another.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attributes<'a>(pub(super) &'a [u8]);

impl<'a> Attributes<'a> {
    /// Each with its kind.
    pub(super) fn iter(self) -> impl Iterator<Item = (u16, &'a [u8])> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let [l, m, k, n] = *rest.first_chunk::<4>()?;
            let length = usize::from(u16::from_ne_bytes([l, m]));
            let value = rest.get(4..length)?;
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            Some((u16::from_ne_bytes([k, n]) & NLA_TYPE_MASK, value))
        })
    }

    /// The value of the first attribute of a kind.
    pub(super) fn value(self, kind: u16) -> Option<&'a [u8]> {
        self.iter().find(|(found, _)| *found == kind).map(|(_, value)| value)
    }

    /// A value that is a number of nf_tables.
    pub(super) fn number(self, kind: u16) -> Option<u32> {
        self.value(kind)?.first_chunk::<4>().map(|bytes| u32::from_be_bytes(*bytes))
    }

    /// A value that is a text.
    pub(super) fn text(self, kind: u16) -> Option<String> {
        self.value(kind).map(text)
    }

    /// A value that is attributes in turn.
    pub(super) fn nested(self, kind: u16) -> Option<Self> {
        self.value(kind).map(Self)
    }

    /// A value that is a list: its entries.
    pub(super) fn list(self, kind: u16) -> impl Iterator<Item = Self> {
        let entries = self.nested(kind).unwrap_or(Self(&[])).iter();
        entries.filter(|(kind, _)| *kind == LIST_ELEMENT).map(|(_, value)| Self(value))
    }
}

/// A value that is a text, with or without a NUL at its end.
pub(super) fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value.strip_suffix(&[0]).unwrap_or(value)).into_owned()
}

/// A value that is a number of route netlink.
pub(super) fn number(value: &[u8]) -> Option<u32> {
    value.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

/// A value that is an address; its length tells the family.
pub(super) fn ip(value: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(value).ok().map(IpAddr::from);
    four.or_else(|| <[u8; 16]>::try_from(value).ok().map(IpAddr::from))
}

/// A value that is a hardware address of six bytes.
pub(super) fn mac(value: &[u8]) -> Option<MacAddr> {
    value.try_into().ok().map(MacAddr)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn torn_attributes_are_not_there_and_those_before_them_are() {
        let bytes = [8, 0, 1, 0, 0, 0, 0, 7, 7, 0, 2, 0x80, b'n', b'o', 0, 0, 9, 0, 3, 0, 1];
        let attributes = Attributes(&bytes);
        assert_eq!(attributes.number(1), Some(7));
        assert_eq!(attributes.text(2).as_deref(), Some("no"));
        assert_eq!((attributes.number(2), attributes.value(3)), (None, None));
        for length in 0..8 {
            assert_eq!(Attributes(&bytes[..length]).value(1), None, "{length}");
        }
        // Of no length: it would be found for ever.
        assert_eq!(Attributes(&[0; 16]).value(0), None);
        assert_eq!(attributes.list(3).count(), 0);
    }

    #[test]
    fn values_of_another_length_are_none() {
        assert_eq!((number(&[1, 0, 0]), ip(&[1; 5]), mac(&[1; 5])), (None, None, None));
        assert_eq!(ip(&[10, 0, 0, 1]), Some(IpAddr::from([10, 0, 0, 1])));
        assert_eq!(mac(&[1; 6]), Some(MacAddr([1; 6])));
        assert_eq!((text(b"veth0\0"), text(b"alias")), ("veth0".to_owned(), "alias".to_owned()));
    }
}
