//! Sets and maps.

use std::net::{Ipv4Addr, Ipv6Addr};

use netlink_packet_netfilter::nftables::{SetAttribute, SetDescription, SetFlags, SetMessage};
use rtnetlink::packet_core::{DefaultNla, NLA_F_NESTED};

use super::super::attributes::Attributes;
use super::element::Element;
use super::table::Table;
use super::userdata;

/// Bits that a field's type takes in the type of a concatenation (`TYPE_BITS`, nftables, include/datatype.h).
const TYPE_BITS: u32 = 6;

/// `NFTA_LIST_ELEM` and `NFTA_SET_FIELD_LEN` (include/uapi/linux/netfilter/nf_tables.h).
const LIST_ELEMENT: u16 = 1;
const FIELD_LENGTH: u16 = 1;
const NFTA_SET_NAME: u16 = 2;
const NFTA_SET_FLAGS: u16 = 3;
const NFTA_SET_KEY_TYPE: u16 = 4;
const NFTA_SET_DATA_TYPE: u16 = 6;

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
    /// What becomes of a packet: data of a verdict map, alone.
    Verdict,
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
            // `NFT_DATA_VERDICT` (include/uapi/linux/netfilter/nf_tables.h)
            Self::Verdict => 0xffff_ff00,
        }
    }

    /// Bytes that a value takes.
    pub fn length(self) -> usize {
        match self {
            Self::Protocol => 1,
            Self::Port => 2,
            Self::Ipv4 | Self::LinkGroup => 4,
            Self::Ipv6 | Self::LinkName => 16,
            Self::Verdict => 0,
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
                Self::Verdict => String::new(),
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
    /// Whether keys are ranges: an element with [`Element::key_end`] where they have several fields (Linux 5.6 or later),
    /// and [`Element::range`] where they have one.
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
            && element.key_end.is_some() == (self.interval && self.key.len() > 1)
            && element.verdict.is_some() == (self.data == [Type::Verdict])
    }

    /// An element as `nft` prints it: `NAME { KEY . KEY : DATA . DATA }`.
    pub fn show(&self, element: &Element) -> String {
        let data = element.data.as_ref().map(|data| format!(" : {}", show(&self.data, &data.0, &data.0)));
        let end = element.key_end.as_ref().unwrap_or(&element.key);
        let key = show(&self.key, &element.key.0, &end.0);
        format!("{} {{ {key}{} }}", self.name, data.unwrap_or_default())
    }

    /// The set's table and name: enough to find it.
    pub(super) fn to_question(table: &Table, name: &str) -> SetMessage {
        SetMessage {
            attributes: vec![SetAttribute::Table(table.name.clone()), SetAttribute::Name(name.to_owned())],
        }
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
            // The kernel knows how long a verdict is.
            if self.data != [Type::Verdict] {
                attributes.push(SetAttribute::DataLen(length_of(&self.data)));
            }
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

impl Set {
    /// Reads what the kernel lists; its name if it is of a kind that there is no word for.
    pub(super) fn read(attributes: Attributes<'_>) -> Result<Self, String> {
        let name = attributes.text(NFTA_SET_NAME).unwrap_or_default();
        let read = || -> Option<(Vec<Type>, Vec<Type>, SetFlags)> {
            let flags = SetFlags::from_bits_retain(attributes.number(NFTA_SET_FLAGS).unwrap_or(0));
            let known = SetFlags::Interval | SetFlags::Concat | SetFlags::Map | SetFlags::Timeout;
            let data = attributes.number(NFTA_SET_DATA_TYPE);
            let data = if flags.contains(SetFlags::Map) { types_of(data?)? } else { Vec::new() };
            let key = types_of(attributes.number(NFTA_SET_KEY_TYPE)?)?;
            known.contains(flags).then_some((key, data, flags))
        };
        let Some((key, data, flags)) = read() else { return Err(name) };
        let (interval, expires) = (flags.contains(SetFlags::Interval), flags.contains(SetFlags::Timeout));
        Ok(Self { name, key, data, interval, expires })
    }
}

/// The fields of a concatenation; `None` if there is no word for one of them.
fn types_of(mut number: u32) -> Option<Vec<Type>> {
    const KNOWN: [Type; 7] =
        [Type::Ipv4, Type::Ipv6, Type::Protocol, Type::Port, Type::LinkName, Type::LinkGroup, Type::Verdict];
    if number == Type::Verdict.number() {
        return Some(vec![Type::Verdict]);
    }
    let mut fields = Vec::new();
    while number != 0 {
        let field = number & ((1 << TYPE_BITS) - 1);
        fields.insert(0, KNOWN.into_iter().find(|known| known.number() == field)?);
        number >>= TYPE_BITS;
    }
    Some(fields)
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
