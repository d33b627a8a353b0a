//! A packet, and what rules read of it.

use std::net::IpAddr;

use crate::desired::nftables::expr::{ACK, SYN};
use crate::linux::nft::element::Bytes;
use crate::linux::nft::expr::{Header, MetaField};

/// The first packet of a flow, after destinations were rewritten; or the first that answers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// The link of the pod that it comes from; `None`: it comes from elsewhere.
    pub input: Option<String>,
    /// The link of the pod that it goes to; `None`: it goes elsewhere.
    pub output: Option<String>,
    /// Whether it goes to the node itself.
    pub to_node: bool,
    /// Who sends it.
    pub source: IpAddr,
    /// Who is meant.
    pub destination: IpAddr,
    /// An `IPPROTO_*`.
    pub protocol: u8,
    /// Destination port; 0 of protocols that have none. Of an answer it is the source's.
    pub port: u16,
    /// Whether it is an answer.
    pub answers: bool,
}

impl Packet {
    pub(super) fn meta(&self, field: MetaField) -> Option<Vec<u8>> {
        // NFPROTO_IPV4, NFPROTO_IPV6
        let family = if self.source.is_ipv4() { 2 } else { 10 };
        let name = |link: &Option<String>| Bytes::default().link_name(link.as_deref().unwrap_or_default()).0;
        match field {
            MetaField::Family => Some(vec![family]),
            MetaField::Protocol => Some(vec![self.protocol]),
            MetaField::InputName => Some(name(&self.input)),
            MetaField::OutputName => Some(name(&self.output)),
            MetaField::InputGroup | MetaField::Mark => None,
        }
    }

    pub(super) fn payload(&self, header: Header, offset: u32, length: u32) -> Option<Vec<u8>> {
        let is_ipv4 = self.source.is_ipv4();
        match (header, offset, length) {
            (Header::Transport, 0, 2) if self.answers => Some(self.port.to_be_bytes().to_vec()),
            (Header::Transport, 2, 2) if !self.answers => Some(self.port.to_be_bytes().to_vec()),
            // The flags of TCP.
            (Header::Transport, 13, 1) => Some(vec![if self.answers { SYN | ACK } else { SYN }]),
            (Header::Network, 9, 1) if is_ipv4 => Some(vec![self.protocol]),
            (Header::Network, 6, 1) if !is_ipv4 => Some(vec![self.protocol]),
            (Header::Network, ..) => self.part_of_addresses(offset, length),
            (Header::Transport, ..) => None,
        }
    }

    /// Bytes of the source and of the destination, which follow one another: nft compares no more of them than a prefix has.
    fn part_of_addresses(&self, offset: u32, length: u32) -> Option<Vec<u8>> {
        let begin = usize::try_from(offset).ok()?.checked_sub(if self.source.is_ipv4() { 12 } else { 8 })?;
        let end = begin.checked_add(usize::try_from(length).ok()?)?;
        [octets(self.source), octets(self.destination)].concat().get(begin..end).map(<[u8]>::to_vec)
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_has_the_fields_that_rules_of_the_table_ask_for() {
        let packet = |source: &str, destination: &str| Packet {
            input: Some("veth1".into()),
            output: None,
            to_node: false,
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            protocol: 17,
            port: 53,
            answers: false,
        };
        let four = packet("10.0.0.1", "10.0.0.2");
        assert_eq!(four.payload(Header::Network, 16, 4), Some(vec![10, 0, 0, 2]));
        assert_eq!(four.payload(Header::Network, 16, 3), Some(vec![10, 0, 0]));
        assert_eq!(four.payload(Header::Network, 9, 1), Some(vec![17]));
        assert_eq!(four.payload(Header::Network, 8, 16), None);
        assert_eq!(four.payload(Header::Network, 17, 4), None);
        assert_eq!(four.payload(Header::Transport, 2, 2), Some(vec![0, 53]));
        assert_eq!(four.payload(Header::Transport, 13, 1), Some(vec![2]));
        assert_eq!(four.payload(Header::Transport, 0, 2), None);
        assert_eq!(four.meta(MetaField::Family), Some(vec![2]));
        assert_eq!(four.meta(MetaField::OutputName), Some(vec![0; 16]));
        assert_eq!(four.meta(MetaField::Mark), None);
        let answer = Packet { answers: true, ..four.clone() };
        assert_eq!(answer.payload(Header::Transport, 0, 2), Some(vec![0, 53]));
        assert_eq!(answer.payload(Header::Transport, 2, 2), None);
        let six = packet("fd00::1", "fd00::2");
        assert_eq!(six.payload(Header::Network, 24, 16).map(|it| it[15]), Some(2));
        assert_eq!(six.meta(MetaField::InputName).map(|it| it[..5].to_vec()), Some(b"veth1".to_vec()));
    }
}
