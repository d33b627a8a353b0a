//! What is known of a node before it exists: its network configuration names the other nodes too.

use std::net::{Ipv4Addr, Ipv6Addr};

/// A node's name and addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodePlan {
    /// `node-a`, `node-b` and so on; also the host name of its side of the underlay.
    pub name: String,
    /// Its own IPv4 address on the underlay, a /24.
    pub ipv4: Ipv4Addr,
    /// Its own IPv6 address on the underlay, a /64.
    pub ipv6: Ipv6Addr,
    /// The IPv4 addresses of its pods: a /24, unique in the lab.
    pub pod_cidr_v4: String,
    /// The IPv6 addresses of its pods: a /64, unique in the lab.
    pub pod_cidr_v6: String,
}

impl NodePlan {
    /// The first `count` nodes of a lab, at most 26.
    pub fn first(count: u8) -> Vec<Self> {
        (b'a'..=b'z')
            .zip(1..=count)
            .map(|(letter, number)| Self::numbered(char::from(letter), number))
            .collect()
    }

    fn numbered(letter: char, number: u8) -> Self {
        Self {
            name: format!("node-{letter}"),
            ipv4: Ipv4Addr::new(192, 168, 77, 10 + number),
            ipv6: Ipv6Addr::new(0xfd00, 0x77, 0, 0, 0, 0, 0, 0x10 + u16::from(number)),
            pod_cidr_v4: format!("10.244.{number}.0/24"),
            pod_cidr_v6: format!("fd00:10:244:{number:x}::/64"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::NodePlan;

    #[test]
    fn the_second_node_is_b_and_has_subnets_of_its_own() {
        let plans = NodePlan::first(2);
        assert_eq!(plans.len(), 2);
        assert_eq!(plans[1].name, "node-b");
        assert_eq!(plans[1].ipv4.to_string(), "192.168.77.12");
        assert_eq!(plans[1].ipv6.to_string(), "fd00:77::12");
        assert_eq!(plans[1].pod_cidr_v4, "10.244.2.0/24");
        assert_eq!(plans[1].pod_cidr_v6, "fd00:10:244:2::/64");
    }
}
