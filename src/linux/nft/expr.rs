//! What a rule is made of.
//!
//! A rule is a small program over sixteen registers of four bytes. Most expressions load something into
//! registers or compare them; one that does not hold ends the rule. `nft --debug=netlink list ruleset` prints
//! the programs of a namespace.

use netlink_packet_netfilter::nftables::{
    Bitwise, Cmp, DataAttribute, ExpressionAttribute, Expressions, Immediate, ListAttribute, Lookup, Meta,
    MetaKey, Operator, Payload, Register, Verdict as VerdictCode, VerdictAttribute,
};
use rtnetlink::packet_core::DefaultNla;

mod extension;
mod log;
mod read;
mod trace;
mod uapi;

pub use extension::Extension;
pub use log::Log;
use uapi::*;

/// A register: the first of four bytes is number 0, the last number 15. What is longer takes the next ones too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Reg(pub u8);

/// What a packet carries with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MetaField {
    /// `NFPROTO_*` of the packet, one byte.
    Family,
    /// Number of the transport protocol, one byte.
    Protocol,
    /// Name of the link that it came in by, sixteen bytes.
    InputName,
    /// Name of the link that it leaves by, sixteen bytes.
    OutputName,
    /// Group of the link that it came in by, four bytes in the host's order.
    InputGroup,
    /// Its mark, four bytes in the host's order.
    Mark,
}

/// Where an offset counts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Header {
    /// From the IP header.
    Network,
    /// From the header of TCP, UDP and so on.
    Transport,
}

/// How two values must stand to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Comparison {
    /// The same.
    Equal,
    /// Not the same.
    NotEqual,
    /// At least, as a number of big end first.
    AtLeast,
    /// At most, likewise.
    AtMost,
}

/// What becomes of a packet.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// This base chain lets it pass.
    Accept,
    /// It is gone.
    Drop,
    /// Back to the chain that sent it here; of a base chain, its policy.
    Return,
    /// Into another chain, and back.
    Jump(String),
    /// Into another chain, and not back.
    Goto(String),
}

/// What a counter has counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Counted {
    /// Packets.
    pub packets: u64,
    /// Bytes of them, from the IP header on.
    pub bytes: u64,
}

/// One step of a rule.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Expr {
    /// Loads what the packet carries with it.
    Meta {
        /// What.
        field: MetaField,
        /// Whereto.
        to: Reg,
    },
    /// Loads bytes of the packet.
    Payload {
        /// Where the offset counts from.
        header: Header,
        /// Bytes before them.
        offset: u32,
        /// How many.
        length: u32,
        /// Whereto.
        to: Reg,
    },
    /// Ends the rule unless a register holds what it must.
    Compare {
        /// The register.
        from: Reg,
        /// How.
        comparison: Comparison,
        /// With what.
        value: Vec<u8>,
    },
    /// Clears the bits that are not in the mask.
    Mask {
        /// From where and to where.
        at: Reg,
        /// The bits that stay.
        mask: Vec<u8>,
    },
    /// Turns a number of four bytes from the host's order to that of the network.
    ToNetworkOrder {
        /// From where and to where.
        at: Reg,
    },
    /// Ends the rule unless a set has the key; loads a map's data.
    Lookup {
        /// Its name.
        set: String,
        /// The key.
        key: Reg,
        /// Where a map's data go.
        data: Option<Reg>,
    },
    /// Decides as a verdict map says; on with the rule where it does not have the key.
    LookupVerdict {
        /// Its name.
        set: String,
        /// The key.
        key: Reg,
    },
    /// Decides.
    Verdict(Verdict),
    /// Sends the flow to another address and port.
    Dnat {
        /// NFPROTO_IPV4 or NFPROTO_IPV6.
        family: u8,
        /// The address.
        address: Reg,
        /// The port.
        port: Reg,
    },
    /// Gives the flow the address of the link that it leaves by.
    Masquerade {
        /// Whether its port is drawn by lot, so that two flows at once do not get the same.
        fully_random: bool,
    },
    /// Loads of what type (`RTN_*`) the destination is to the routing tables, four bytes in the host's order.
    DestinationType {
        /// Whether only the link counts that the packet came in by: an address of another link is not local to it.
        on_input_link: bool,
        /// Whereto.
        to: Reg,
    },
    /// Loads whether the routing tables lead to the destination by a link: 1 in the first of four bytes, or 0.
    HasRoute {
        /// Whereto.
        to: Reg,
    },
    /// Loads how the packet stands to its flow (`NF_CT_STATE_*`, one bit), four bytes in the host's order.
    FlowState {
        /// Whereto.
        to: Reg,
    },
    /// Loads the source address of the flow's packets in one direction, four or sixteen bytes. Ends the rule where the
    /// packet has no flow, or one of the other family.
    FlowSource {
        /// Whether the direction is that of the answers.
        of_answers: bool,
        /// Of IPv4, or else of IPv6.
        ipv4: bool,
        /// Whereto.
        to: Reg,
    },
    /// Loads what has become of the flow (`IPS_*`), four bytes in the host's order.
    FlowStatus {
        /// Whereto.
        to: Reg,
    },
    /// Counts the packet. What it has counted is told by [`PlacedRule`](super::rule::PlacedRule).
    Counter,
    /// Ends the rule for packets beyond so many a second.
    Limit {
        /// How many.
        per_second: u64,
        /// How many more at once.
        burst: u32,
    },
    /// Hands a copy of the packet to whoever listens to that group of nfnetlink_log.
    Log(Log),
    /// Has the kernel tell what becomes of the packet from here on, see [`trace`](super::trace); not any more, if the first
    /// byte is 0.
    Trace {
        /// The register with that byte.
        from: Reg,
    },
    /// A match or target of iptables, as iptables-nft writes those that nf_tables has no expression for.
    Extension(Extension),
    /// One that is here only because somebody else put it into the rule.
    Foreign(String),
}

impl Reg {
    fn to_netlink(self) -> Register {
        Register::from(self.number())
    }

    fn number(self) -> u32 {
        NFT_REG32_00 + u32::from(self.0)
    }

    fn from_number(number: u32) -> Option<Self> {
        let slot = match number {
            // The older names, of four registers each.
            1..=4 => (number - 1) * 4,
            8..=23 => number - NFT_REG32_00,
            _ => return None,
        };
        u8::try_from(slot).ok().map(Self)
    }
}

impl MetaField {
    fn to_netlink(self) -> MetaKey {
        match self {
            Self::Family => MetaKey::Nfproto,
            Self::Protocol => MetaKey::L4Proto,
            Self::InputName => MetaKey::Iifname,
            Self::OutputName => MetaKey::Oifname,
            Self::InputGroup => MetaKey::Iifgroup,
            Self::Mark => MetaKey::Mark,
        }
    }
}

impl Header {
    /// `NFT_PAYLOAD_*_HEADER`
    fn number(self) -> u32 {
        match self {
            Self::Network => 1,
            Self::Transport => 2,
        }
    }
}

impl Comparison {
    fn to_netlink(self) -> Operator {
        match self {
            Self::Equal => Operator::Equal,
            Self::NotEqual => Operator::NotEqual,
            Self::AtLeast => Operator::GreatherThanEqual,
            Self::AtMost => Operator::LessThanEqual,
        }
    }
}

impl Verdict {
    pub(super) fn to_netlink(&self) -> Vec<VerdictAttribute> {
        let (code, chain) = match self {
            Self::Accept => (VerdictCode::Other(NF_ACCEPT), None),
            Self::Drop => (VerdictCode::Other(NF_DROP), None),
            Self::Return => (VerdictCode::Return, None),
            Self::Jump(chain) => (VerdictCode::Jump, Some(chain)),
            Self::Goto(chain) => (VerdictCode::Goto, Some(chain)),
        };
        let mut attributes = vec![VerdictAttribute::Code(code)];
        attributes.extend(chain.map(|chain| VerdictAttribute::Chain(chain.clone())));
        attributes
    }
}

impl Counted {
    /// A counter that goes on from here.
    pub(super) fn to_netlink(self) -> ListAttribute<ExpressionAttribute> {
        let numbers = [(NFTA_COUNTER_BYTES, self.bytes), (NFTA_COUNTER_PACKETS, self.packets)];
        let numbers = numbers.map(|(kind, number)| DefaultNla::new(kind, number.to_be_bytes().to_vec()));
        Expressions::Other { expression_type: "counter".to_owned(), attributes: numbers.to_vec() }.into()
    }
}

impl Expr {
    pub(super) fn to_netlink(&self) -> ListAttribute<ExpressionAttribute> {
        let value = |bytes: &[u8]| DataAttribute::Value(bytes.to_vec());
        let expressions = match self {
            Self::Meta { field, to } => Expressions::Meta(vec![
                Meta::Key(field.to_netlink()),
                Meta::DestinationRegister(to.to_netlink()),
            ]),
            Self::Payload { header, offset, length, to } => Expressions::Payload(vec![
                Payload::DestinationRegister(to.to_netlink()),
                Payload::Base(header.number()),
                Payload::Offset(*offset),
                Payload::Len(*length),
            ]),
            Self::Compare { from, comparison, value: wanted } => Expressions::Cmp(vec![
                Cmp::SourceRegister(from.to_netlink()),
                Cmp::Op(comparison.to_netlink()),
                Cmp::Data(value(wanted)),
            ]),
            Self::Mask { at, mask } => Expressions::Bitwise(vec![
                Bitwise::SourceRegister(at.to_netlink()),
                Bitwise::DestinationRegister(at.to_netlink()),
                Bitwise::Length(u32::try_from(mask.len()).unwrap_or(u32::MAX)),
                Bitwise::Mask(value(mask)),
                Bitwise::Xor(value(&vec![0; mask.len()])),
            ]),
            Self::ToNetworkOrder { at } => other(
                "byteorder",
                &[
                    (NFTA_BYTEORDER_SREG, at.number()),
                    (NFTA_BYTEORDER_DREG, at.number()),
                    (NFTA_BYTEORDER_OP, NFT_BYTEORDER_HTON),
                    (NFTA_BYTEORDER_LEN, 4),
                    (NFTA_BYTEORDER_SIZE, 4),
                ],
            ),
            Self::Lookup { set, key, data } => {
                let mut attributes = vec![Lookup::Set(set.clone()), Lookup::SourceRegister(key.to_netlink())];
                attributes.extend(data.map(|data| Lookup::DestinationRegister(data.to_netlink())));
                Expressions::Lookup(attributes)
            }
            Self::LookupVerdict { set, key } => Expressions::Lookup(vec![
                Lookup::Set(set.clone()),
                Lookup::SourceRegister(key.to_netlink()),
                Lookup::DestinationRegister(Register::Verdict),
            ]),
            Self::Verdict(verdict) => Expressions::Immediate(vec![
                Immediate::DestinationRegister(Register::Verdict),
                Immediate::Data(DataAttribute::Verdict(verdict.to_netlink())),
            ]),
            Self::Dnat { family, address, port } => other(
                "nat",
                &[
                    (NFTA_NAT_TYPE, NFT_NAT_DNAT),
                    (NFTA_NAT_FAMILY, u32::from(*family)),
                    (NFTA_NAT_REG_ADDR_MIN, address.number()),
                    (NFTA_NAT_REG_PROTO_MIN, port.number()),
                ],
            ),
            Self::Masquerade { fully_random } => {
                let flags = if *fully_random { NF_NAT_RANGE_PROTO_RANDOM_FULLY } else { 0 };
                other("masq", &[(NFTA_MASQ_FLAGS, flags)])
            }
            Self::DestinationType { on_input_link, to } => {
                let flags = if *on_input_link { NFTA_FIB_F_DADDR | NFTA_FIB_F_IIF } else { NFTA_FIB_F_DADDR };
                other(
                    "fib",
                    &[
                        (NFTA_FIB_DREG, to.number()),
                        (NFTA_FIB_RESULT, NFT_FIB_RESULT_ADDRTYPE),
                        (NFTA_FIB_FLAGS, flags),
                    ],
                )
            }
            Self::HasRoute { to } => other(
                "fib",
                &[
                    (NFTA_FIB_DREG, to.number()),
                    (NFTA_FIB_RESULT, NFT_FIB_RESULT_OIF),
                    (NFTA_FIB_FLAGS, NFTA_FIB_F_DADDR | NFTA_FIB_F_PRESENT),
                ],
            ),
            Self::FlowState { to } => {
                other("ct", &[(NFTA_CT_KEY, NFT_CT_STATE), (NFTA_CT_DREG, to.number())])
            }
            Self::FlowSource { of_answers, ipv4, to } => {
                let key = if *ipv4 { NFT_CT_SRC_IP } else { NFT_CT_SRC_IP6 };
                let attributes = [
                    (NFTA_CT_KEY, key.to_be_bytes().to_vec()),
                    (NFTA_CT_DREG, to.number().to_be_bytes().to_vec()),
                    (NFTA_CT_DIRECTION, vec![u8::from(*of_answers)]),
                ];
                let attributes = attributes.into_iter().map(|(kind, value)| DefaultNla::new(kind, value));
                Expressions::Other { expression_type: "ct".to_owned(), attributes: attributes.collect() }
            }
            Self::FlowStatus { to } => {
                other("ct", &[(NFTA_CT_KEY, NFT_CT_STATUS), (NFTA_CT_DREG, to.number())])
            }
            Self::Counter => other("counter", &[]),
            Self::Limit { per_second, burst } => log::limit(*per_second, *burst),
            Self::Log(log) => log.to_netlink(),
            Self::Trace { from } => trace::to_netlink(*from),
            Self::Extension(extension) => extension.to_netlink(),
            Self::Foreign(name) => other(name, &[]),
        };
        expressions.into()
    }
}

/// An expression that netlink-packet-netfilter has no words for: numbers, big end first.
fn other(name: &str, numbers: &[(u16, u32)]) -> Expressions {
    let attributes =
        numbers.iter().map(|&(kind, number)| DefaultNla::new(kind, number.to_be_bytes().to_vec()));
    Expressions::Other { expression_type: name.to_owned(), attributes: attributes.collect() }
}
