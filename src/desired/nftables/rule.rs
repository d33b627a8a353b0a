//! The words that rules are written in.
//!
//! Above the kernel's registers and below any meaning: [`Display`](fmt::Display) prints what `nft list` prints,
//! and a test holds the two against each other.

use std::fmt;

use ipnetwork::IpNetwork;

use crate::desired::nftables::table::{ChainName, SetName};

/// Part of a packet, or of what the kernel knows of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Field {
    /// Name of the link that it came in by.
    InLink,
    /// Name of the link that it leaves by.
    OutLink,
    /// Group of the link that it came in by.
    InGroup,
    /// Source address, of IPv4.
    Source4,
    /// Destination address, of IPv4.
    Destination4,
    /// Source address, of IPv6.
    Source6,
    /// Destination address, of IPv6.
    Destination6,
    /// Number of the transport protocol.
    Protocol,
    /// Destination port of TCP, UDP and SCTP, which have it at the same place.
    DestinationPort,
}

/// What must hold for a rule to go on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Match {
    /// It did not come in by this link.
    NotFromLink(&'static str),
    /// The address is in this network.
    Within(Field, IpNetwork),
    /// It is of ICMPv6, and its type is one of these, the last included.
    Icmp6Type(u8, u8),
    /// The mark has this bit.
    Marked(u32),
    /// The flow's destination was rewritten.
    Redirected,
    /// Its destination is an address of this node.
    ForThisNode,
    /// The set has it.
    In(Vec<Field>, SetName),
}

/// What is done then.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Action {
    /// No more of this base chain.
    Accept,
    /// It is gone.
    Drop,
    /// No more of this chain.
    Return,
    /// On in another chain.
    Goto(ChainName),
    /// To the address and port that a map has for it; on with the next rule if it has none.
    Redirect {
        /// Whether the map's addresses are of IPv4.
        ipv4: bool,
        /// The key.
        key: Vec<Field>,
        /// The map.
        map: SetName,
    },
    /// From the node's address.
    Masquerade {
        /// With a port drawn by lot: two flows at once never get the same, of which one would be lost
        /// (kubernetes#56903).
        fully_random: bool,
    },
}

/// A rule of the table.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Rule {
    /// The chain that it is in.
    pub chain: ChainName,
    /// All of these must hold.
    pub matches: Vec<Match>,
    /// Then this is done.
    pub action: Action,
    /// Why, for who reads the table at night.
    pub comment: String,
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InLink => "iifname",
            Self::OutLink => "oifname",
            Self::InGroup => "iifgroup",
            Self::Source4 => "ip saddr",
            Self::Destination4 => "ip daddr",
            Self::Source6 => "ip6 saddr",
            Self::Destination6 => "ip6 daddr",
            Self::Protocol => "meta l4proto",
            Self::DestinationPort => "th dport",
        })
    }
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFromLink(link) => write!(f, "iifname != \"{link}\""),
            Self::Within(field, network) if is_single(network) => write!(f, "{field} {}", network.ip()),
            Self::Within(field, network) => write!(f, "{field} {network}"),
            Self::Icmp6Type(first, last) => write!(f, "icmpv6 type {first}-{last}"),
            Self::Marked(bit) => write!(f, "meta mark & {bit:#010x} == {bit:#010x}"),
            Self::Redirected => f.write_str("ct status dnat"),
            Self::ForThisNode => f.write_str("fib daddr type local"),
            Self::In(fields, set) => write!(f, "{} @{set}", Concatenation(fields)),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accept => f.write_str("accept"),
            Self::Drop => f.write_str("drop"),
            Self::Return => f.write_str("return"),
            Self::Goto(chain) => write!(f, "goto {chain}"),
            Self::Redirect { ipv4, key, map } => {
                let family = if *ipv4 { "ip" } else { "ip6" };
                write!(f, "dnat {family} to {} map @{map}", Concatenation(key))
            }
            Self::Masquerade { fully_random: false } => f.write_str("masquerade"),
            Self::Masquerade { fully_random: true } => f.write_str("masquerade fully-random"),
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.matches.iter().try_for_each(|it| write!(f, "{it} "))?;
        write!(f, "{} comment \"{}\"", self.action, self.comment)
    }
}

struct Concatenation<'a>(&'a [Field]);

impl fmt::Display for Concatenation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, field) in self.0.iter().enumerate() {
            let dot = if place == 0 { "" } else { " . " };
            write!(f, "{dot}{field}")?;
        }
        Ok(())
    }
}

fn is_single(network: &IpNetwork) -> bool {
    network.prefix() == if network.is_ipv4() { 32 } else { 128 }
}
