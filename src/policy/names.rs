//! Names of the table's chains and sets. Agent, ADD and command line meet by them.

use crate::policy::digest::digest;
use crate::policy::plan::{Direction, Tier};

/// Name of the table, of family `inet`.
pub const TABLE: &str = "ferrule-policy";

/// The map that leads packets from a pod to its policies, by the link that they come in by.
pub const FROM_POD: &str = "from_pod";

/// The map that leads packets to a pod to its policies, by the link that they leave by.
pub const TO_POD: &str = "to_pod";

/// Which IPv4 addresses live behind which link: what a pod sends to itself.
pub const OWN4: &str = "own4";

/// Which IPv6 addresses live behind which link.
pub const OWN6: &str = "own6";

/// The map of a direction: [`FROM_POD`], [`TO_POD`].
pub fn map(direction: Direction) -> &'static str {
    match direction {
        Direction::Egress => FROM_POD,
        Direction::Ingress => TO_POD,
    }
}

/// The chain of one pod: `in-<uid>`, `out-<uid>`. Both empty where nothing isolates the pod.
pub fn pod_chain(direction: Direction, uid: &str) -> String {
    format!("{}-{uid}", word(direction))
}

/// What chains of a pod are named by: its uid. That of a static pod is a hash, which any pod of any namespace may claim by
/// annotations that say it mirrors a static pod; so there namespace and name are a part of it.
pub fn own_uid(uid: &str, namespace: &str, name: &str) -> String {
    let is_hash = uid.len() == 32 && uid.bytes().all(|it| it.is_ascii_hexdigit());
    if is_hash { digest(format!("{namespace}/{name}/{uid}").as_bytes()) } else { uid.to_owned() }
}

/// The chain of pods of a namespace that the agent does not know yet: `hold-in-<namespace>`, `hold-out-<namespace>`.
pub fn hold_chain(direction: Direction, namespace: &str) -> String {
    format!("hold-{}-{namespace}", word(direction))
}

/// The chain in which what no rule allows ends: `denied_in`, `denied_out`.
pub fn denied_chain(direction: Direction) -> &'static str {
    match direction {
        Direction::Egress => "denied_out",
        Direction::Ingress => "denied_in",
    }
}

fn word(direction: Direction) -> &'static str {
    match direction {
        Direction::Egress => "out",
        Direction::Ingress => "in",
    }
}

/// The chain of rules with this digest: `pi-<digest>` of ingress, `po-<digest>` of egress.
pub fn rules_chain(direction: Direction, digest: &str) -> String {
    match direction {
        Direction::Egress => format!("po-{digest}"),
        Direction::Ingress => format!("pi-{digest}"),
    }
}

/// The chain of a tier of ClusterNetworkPolicies: `ai-<digest>` and `ao-<digest>` of Admin, `bi-` and `bo-` of Baseline.
pub fn tier_chain(tier: Tier, direction: Direction, digest: &str) -> String {
    let prefix = match (tier, direction) {
        (Tier::Admin, Direction::Ingress) => "ai",
        (Tier::Admin, Direction::Egress) => "ao",
        (Tier::Baseline, Direction::Ingress) => "bi",
        (Tier::Baseline, Direction::Egress) => "bo",
        (Tier::NetworkPolicy, direction) => return rules_chain(direction, digest),
    };
    format!("{prefix}-{digest}")
}

/// The chain of what is allowed at one port or range of ports, by a digest of that: `pp-<digest>-tcp-80`,
/// `pp-<digest>-tcp-80-90`, `pp-<digest>-tcp`.
pub fn port_chain(digest: &str, protocol: u8, first: u16, last: u16) -> String {
    let protocol: &dyn std::fmt::Display = match protocol {
        TCP => &"tcp",
        UDP => &"udp",
        SCTP => &"sctp",
        _ => &protocol,
    };
    match (first, last) {
        (0, u16::MAX) => format!("pp-{digest}-{protocol}"),
        (first, last) if first == last => format!("pp-{digest}-{protocol}-{first}"),
        (first, last) => format!("pp-{digest}-{protocol}-{first}-{last}"),
    }
}

/// The chain that ports with the same rules have in common, by a digest of those: `pp-<digest>-many`.
pub fn shared_port_chain(digest: &str) -> String {
    format!("pp-{digest}-many")
}

/// The chain with the map of some of a chain's ports: `pg-<digest>`.
pub fn group_chain(digest: &str) -> String {
    format!("pg-{digest}")
}

/// `IPPROTO_TCP`
pub const TCP: u8 = 6;

/// `IPPROTO_UDP`
pub const UDP: u8 = 17;

/// `IPPROTO_SCTP`
pub const SCTP: u8 = 132;
