//! Elements of sets and maps.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use netlink_packet_netfilter::nftables::{
    DataAttribute, ListAttribute, SetElementAttribute, SetElementFlags, SetElementList, SetElementMessage,
};
use rtnetlink::packet_core::DefaultNla;

use super::super::attributes::Attributes;
use super::expr::Verdict;
use super::table::Table;
use super::userdata;

/// `IFNAMSIZ`: a link's name in a key, filled up with NULs.
const LINK_NAME_LENGTH: usize = 16;

/// `NFTA_DATA_VALUE`, and what else netlink-packet-netfilter does not tell of
/// include/uapi/linux/netfilter/nf_tables.h.
const DATA_VALUE: u16 = 1;
const NFTA_SET_ELEM_LIST_SET: u16 = 2;
const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
const NFTA_SET_ELEM_KEY: u16 = 1;
const NFTA_SET_ELEM_DATA: u16 = 2;
const NFTA_SET_ELEM_FLAGS: u16 = 3;
const NFTA_SET_ELEM_TIMEOUT: u16 = 4;
const NFTA_SET_ELEM_USERDATA: u16 = 6;
const NFTA_SET_ELEM_KEY_END: u16 = 10;
const NFT_SET_ELEM_INTERVAL_END: u32 = 1;

/// An element.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Element {
    /// Name of the set or map.
    pub set: String,
    /// The key; of a range, its lower end.
    pub key: Bytes,
    /// The upper end of a range of concatenations, included in it.
    pub key_end: Option<Bytes>,
    /// Whether the key is the first behind a range: in a set of ranges of a single field, a range is an element with its
    /// first key and one such. A range that ends with the last key of all has none.
    pub ends_range: bool,
    /// What a map has under the key.
    pub data: Option<Bytes>,
    /// What a verdict map has under the key.
    pub verdict: Option<Verdict>,
    /// For people; not compared by the kernel. At most 127 bytes are kept.
    pub comment: Option<String>,
}

/// A key or data: its fields one after another, each filled up to registers of four bytes, as rules load them.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(pub Vec<u8>);

impl Bytes {
    /// Adds a link's name.
    #[must_use]
    pub fn link_name(self, name: &str) -> Self {
        let mut field = name.as_bytes().to_vec();
        field.resize(LINK_NAME_LENGTH, 0);
        self.field(&field)
    }

    /// Adds an address.
    #[must_use]
    pub fn address(self, address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => self.field(&address.octets()),
            IpAddr::V6(address) => self.field(&address.octets()),
        }
    }

    /// Adds a number of an IP protocol.
    #[must_use]
    pub fn protocol(self, protocol: u8) -> Self {
        self.field(&[protocol])
    }

    /// Adds a port.
    #[must_use]
    pub fn port(self, port: u16) -> Self {
        self.field(&port.to_be_bytes())
    }

    /// Adds a link's group, in the order of bytes that ranges need (and rules convert to).
    #[must_use]
    pub fn link_group(self, group: u32) -> Self {
        self.field(&group.to_be_bytes())
    }

    fn field(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// Reads an address that is all there is.
    pub fn to_address(&self) -> Option<IpAddr> {
        let four = <[u8; 4]>::try_from(self.0.as_slice()).ok().map(IpAddr::from);
        four.or_else(|| <[u8; 16]>::try_from(self.0.as_slice()).ok().map(IpAddr::from))
    }

    /// Reads an address and a port, as a map of hostPorts has them.
    pub fn to_address_and_port(&self) -> Option<(IpAddr, u16)> {
        let (address, rest): (IpAddr, _) = match self.0.len() {
            8 => self.0.split_first_chunk::<4>().map(|(it, rest)| (Ipv4Addr::from(*it).into(), rest))?,
            20 => self.0.split_first_chunk::<16>().map(|(it, rest)| (Ipv6Addr::from(*it).into(), rest))?,
            _ => return None,
        };
        rest.first_chunk::<2>().map(|port| (address, u16::from_be_bytes(*port)))
    }
}

impl Element {
    /// An element of a set that is its key alone.
    pub fn new(set: &str, key: Bytes) -> Self {
        let set = set.to_owned();
        Self { set, key, key_end: None, ends_range: false, data: None, verdict: None, comment: None }
    }

    /// An element of a verdict map.
    pub fn with_verdict(set: &str, key: Bytes, verdict: Verdict) -> Self {
        Self { verdict: Some(verdict), ..Self::new(set, key) }
    }

    /// A range of addresses in a set of that single field: its first key and, unless it is the last of all, the one
    /// behind its last.
    pub fn range(set: &str, first: IpAddr, last: IpAddr) -> Vec<Self> {
        let behind = match last {
            IpAddr::V4(last) => u32::from(last).checked_add(1).map(|it| IpAddr::V4(it.into())),
            IpAddr::V6(last) => u128::from(last).checked_add(1).map(|it| IpAddr::V6(it.into())),
        };
        let mut elements = vec![Self::new(set, Bytes::default().address(first))];
        elements.extend(
            behind
                .map(|behind| Self { ends_range: true, ..Self::new(set, Bytes::default().address(behind)) }),
        );
        elements
    }

    /// The same with a comment.
    #[must_use]
    pub fn with_comment(self, comment: String) -> Self {
        Self { comment: Some(comment), ..self }
    }

    fn to_attributes(&self, end: Option<Duration>) -> ListAttribute<SetElementAttribute> {
        let value = |bytes: &Bytes| DataAttribute::Value(bytes.0.clone());
        let mut attributes = vec![SetElementAttribute::Key(value(&self.key))];
        attributes.extend(
            self.key_end
                .as_ref()
                .map(|end| SetElementAttribute::KeyEnd(vec![DefaultNla::new(DATA_VALUE, end.0.clone())])),
        );
        attributes.extend(self.data.as_ref().map(|data| SetElementAttribute::Data(value(data))));
        attributes.extend(
            self.verdict
                .as_ref()
                .map(|verdict| SetElementAttribute::Data(DataAttribute::Verdict(verdict.to_netlink()))),
        );
        attributes
            .extend(self.ends_range.then_some(SetElementAttribute::Flags(SetElementFlags::IntervalEnd)));
        attributes.extend(
            self.comment
                .as_ref()
                .map(|comment| SetElementAttribute::UserData(userdata::from_comment(comment))),
        );
        // A timeout alone would only matter to elements that are added after it.
        attributes.extend(end.into_iter().flat_map(|end| {
            let milliseconds = u64::try_from(end.as_millis()).unwrap_or(u64::MAX);
            [SetElementAttribute::Timeout(milliseconds), SetElementAttribute::Expiration(milliseconds)]
        }));
        ListAttribute::Element(attributes)
    }

    /// The elements that a message lists and that stay; those that have no key, such as a catch-all, are not among them.
    pub(super) fn read_all_lasting(message: Attributes<'_>) -> Vec<Self> {
        let lasting = |it: &Attributes<'_>| it.value(NFTA_SET_ELEM_TIMEOUT).is_none();
        let set = message.text(NFTA_SET_ELEM_LIST_SET).unwrap_or_default();
        let elements = message.list(NFTA_SET_ELEM_LIST_ELEMENTS).filter(lasting);
        elements.filter_map(|element| Self::read(&set, element)).collect()
    }

    /// The elements that a message lists; those that have no key, such as a catch-all, are not among them.
    pub(super) fn read_all(message: Attributes<'_>) -> Vec<Self> {
        let set = message.text(NFTA_SET_ELEM_LIST_SET).unwrap_or_default();
        let elements = message.list(NFTA_SET_ELEM_LIST_ELEMENTS);
        elements.filter_map(|element| Self::read(&set, element)).collect()
    }

    fn read(set: &str, attributes: Attributes<'_>) -> Option<Self> {
        let data = |kind| attributes.nested(kind)?.value(DATA_VALUE).map(|bytes| Bytes(bytes.to_vec()));
        Some(Self {
            set: set.to_owned(),
            key: data(NFTA_SET_ELEM_KEY)?,
            key_end: data(NFTA_SET_ELEM_KEY_END),
            ends_range: ends_range(attributes),
            data: data(NFTA_SET_ELEM_DATA),
            verdict: attributes.nested(NFTA_SET_ELEM_DATA).and_then(Verdict::read),
            comment: attributes.value(NFTA_SET_ELEM_USERDATA).and_then(userdata::to_comment),
        })
    }
}

fn ends_range(element: Attributes<'_>) -> bool {
    element.number(NFTA_SET_ELEM_FLAGS).is_some_and(|flags| flags & NFT_SET_ELEM_INTERVAL_END != 0)
}

/// The keys that a message lists, each with whether it [ends a range](Element::ends_range).
pub(super) fn element_keys<'a>(message: Attributes<'a>) -> impl Iterator<Item = (&'a [u8], bool)> {
    let read = |element: Attributes<'a>| {
        let key = element.nested(NFTA_SET_ELEM_KEY)?.value(DATA_VALUE)?;
        Some((key, ends_range(element)))
    };
    message.list(NFTA_SET_ELEM_LIST_ELEMENTS).filter_map(read)
}

/// A message about `elements` of a set; about the set as a whole if there are none.
pub(super) fn message_about(table: &Table, set: &str, elements: &[Element]) -> SetElementMessage {
    message_with_end(table, set, elements, None)
}

/// The same, with an end for each of the elements.
pub(super) fn message_with_end(
    table: &Table,
    set: &str,
    elements: &[Element],
    end: Option<Duration>,
) -> SetElementMessage {
    let mut attributes = vec![SetElementList::Table(table.name.clone()), SetElementList::Set(set.to_owned())];
    if !elements.is_empty() {
        let elements = elements.iter().map(|element| element.to_attributes(end)).collect();
        attributes.push(SetElementList::Elements(elements));
    }
    SetElementMessage { attributes }
}
