//! Sets and maps.

use std::net::{Ipv4Addr, Ipv6Addr};

use netlink_packet_netfilter::nftables::{SetAttribute, SetDescription, SetFlags, SetMessage};
use rtnetlink::packet_core::{DefaultNla, NLA_F_NESTED};

use super::element::Element;
use super::table::Table;
use super::userdata;

/// Bits that a field's type takes in the type of a concatenation (`TYPE_BITS`, nftables, include/datatype.h).
const TYPE_BITS: u32 = 6;

/// `NFTA_LIST_ELEM` and `NFTA_SET_FIELD_LEN` (include/uapi/linux/netfilter/nf_tables.h).
const LIST_ELEMENT: u16 = 1;
const FIELD_LENGTH: u16 = 1;

/// `NFTNL_UDATA_SET_KEYBYTEORDER` (libnftnl, include/libnftnl/udata.h) and `BYTEORDER_HOST_ENDIAN` (nftables,
/// include/datatype.h): without them `nft list` takes a link's name for a number and prints nothing.
const KEY_BYTE_ORDER: u8 = 0;
const HOST_ORDER: u32 = 1;

/// What a field of a key or of data is. To the kernel it is only a length; the name is for `nft list`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Type {
    /// An IPv4 address.
    Ipv4,
    /// An IPv6 address.
    Ipv6,
    /// A number of an IP protocol.
    Protocol,
    /// A port of TCP, UDP or SCTP.
    Port,
    /// A link's name.
    LinkName,
    /// A link's group.
    LinkGroup,
}

impl Type {
    /// `enum datatypes` of nftables (include/datatype.h).
    fn number(self) -> u32 {
        match self {
            Self::Ipv4 => 7,
            Self::Ipv6 => 8,
            Self::Protocol => 12,
            Self::Port => 13,
            Self::LinkGroup => 35,
            Self::LinkName => 41,
        }
    }

    /// Bytes that a value takes.
    pub fn length(self) -> usize {
        match self {
            Self::Protocol => 1,
            Self::Port => 2,
            Self::Ipv4 | Self::LinkGroup => 4,
            Self::Ipv6 | Self::LinkName => 16,
        }
    }

    /// A value as `nft` prints it; an empty text if there are too few bytes.
    fn show(self, bytes: &[u8]) -> String {
        let show = || -> Option<String> {
            Some(match self {
                Self::Ipv4 => Ipv4Addr::from(*bytes.first_chunk()?).to_string(),
                Self::Ipv6 => Ipv6Addr::from(*bytes.first_chunk()?).to_string(),
                Self::Port => u16::from_be_bytes(*bytes.first_chunk()?).to_string(),
                Self::LinkGroup => u32::from_be_bytes(*bytes.first_chunk()?).to_string(),
                Self::LinkName => {
                    let name = bytes.split(|&byte| byte == 0).next()?;
                    format!("\"{}\"", String::from_utf8_lossy(name))
                }
                Self::Protocol => match bytes.first()? {
                    6 => "tcp".to_owned(),
                    17 => "udp".to_owned(),
                    132 => "sctp".to_owned(),
                    number => number.to_string(),
                },
            })
        };
        show().unwrap_or_default()
    }

    /// Bytes that it takes in a concatenation, in registers of four bytes.
    pub fn padded_length(self) -> usize {
        self.length().next_multiple_of(4)
    }
}

/// A set, or, with data, a map.
///
/// `nft add set TABLE NAME { type KEY . KEY; flags interval; }`, or `flags timeout;`
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Set {
    /// Its name, unique in the table.
    pub name: String,
    /// The fields of a key.
    pub key: Vec<Type>,
    /// The fields of a map's data; empty for a set.
    pub data: Vec<Type>,
    /// Whether keys are ranges. Of concatenations only: Linux 5.6 or later.
    pub interval: bool,
    /// Whether elements may be given an end, see [`Change::ExpireElements`](super::change::Change::ExpireElements).
    pub expires: bool,
}

impl Set {
    /// Whether the kernel would take the element for one of this set: by the lengths of its key and data.
    pub fn fits(&self, element: &Element) -> bool {
        let length = |fields: &[Type]| fields.iter().map(|field| field.padded_length()).sum::<usize>();
        element.key.0.len() == length(&self.key)
            && element.data.as_ref().map_or(0, |data| data.0.len()) == length(&self.data)
            && element.key_end.is_some() == self.interval
    }

    /// An element as `nft` prints it: `NAME { KEY . KEY : DATA . DATA }`.
    pub fn show(&self, element: &Element) -> String {
        let data = element.data.as_ref().map(|data| format!(" : {}", show(&self.data, &data.0, &data.0)));
        let end = element.key_end.as_ref().unwrap_or(&element.key);
        let key = show(&self.key, &element.key.0, &end.0);
        format!("{} {{ {key}{} }}", self.name, data.unwrap_or_default())
    }

    /// `id` tells it from other sets that are made in the same transaction.
    pub(super) fn to_message(&self, table: &Table, id: u32) -> SetMessage {
        let mut flags = SetFlags::empty();
        let concatenated_ranges = self.interval && self.key.len() > 1;
        flags.set(SetFlags::Interval, self.interval);
        flags.set(SetFlags::Concat, concatenated_ranges);
        flags.set(SetFlags::Map, !self.data.is_empty());
        flags.set(SetFlags::Timeout, self.expires);
        let mut attributes = vec![
            SetAttribute::Table(table.name.clone()),
            SetAttribute::Name(self.name.clone()),
            SetAttribute::Flags(flags),
            SetAttribute::KeyType(type_of(&self.key)),
            SetAttribute::KeyLen(length_of(&self.key)),
            SetAttribute::Id(id),
        ];
        if !self.data.is_empty() {
            attributes.push(SetAttribute::DataType(type_of(&self.data)));
            attributes.push(SetAttribute::DataLen(length_of(&self.data)));
        }
        if self.key == [Type::LinkName] {
            attributes.push(SetAttribute::UserData(userdata::from_number(KEY_BYTE_ORDER, HOST_ORDER)));
        }
        if concatenated_ranges {
            let fields = self.key.iter().map(|field| field_length(*field)).collect();
            attributes.push(SetAttribute::Description(vec![SetDescription::Concat(fields)]));
        }
        SetMessage { attributes }
    }
}

/// Values of a concatenation, those that begin and end differently as ranges.
fn show(fields: &[Type], first: &[u8], last: &[u8]) -> String {
    let mut start = 0;
    let shown = fields.iter().map(|field| {
        let value = |bytes: &[u8]| field.show(bytes.get(start..).unwrap_or_default());
        let (first, last) = (value(first), value(last));
        start += field.padded_length();
        if first == last { first } else { format!("{first}-{last}") }
    });
    shown.collect::<Vec<_>>().join(" . ")
}

fn type_of(fields: &[Type]) -> u32 {
    fields.iter().fold(0, |concatenation, field| concatenation << TYPE_BITS | field.number())
}

/// A single field stands alone; several fill whole registers each.
fn length_of(fields: &[Type]) -> u32 {
    let length = match fields {
        [field] => field.length(),
        fields => fields.iter().map(|field| field.padded_length()).sum(),
    };
    u32::try_from(length).unwrap_or(u32::MAX)
}

fn field_length(field: Type) -> DefaultNla {
    let length = u32::try_from(field.length()).unwrap_or(u32::MAX);
    let mut value = 8_u16.to_ne_bytes().to_vec();
    value.extend(FIELD_LENGTH.to_ne_bytes());
    value.extend(length.to_be_bytes());
    DefaultNla::new(LIST_ELEMENT | NLA_F_NESTED, value)
}
