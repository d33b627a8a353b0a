//! Names and marks of what ferrule makes, each a pure function of the attachment's key.
//!
//! They are found again without any record: a DEL whose record is lost still knows its link's name, and
//! a link left by a killed ADD still says whose it is.
//!
//! Marks of ownership (nothing without one is ever changed or removed):
//!
//! | on           | mark                                                                      |
//! |--------------|---------------------------------------------------------------------------|
//! | node's links | [`link_group`] in the creating message, then the [`alias`] with the key   |
//! | route        | [`ROUTE_PROTOCOL`]; routes to peers also the network's [`route_metric`]    |
//! | rule         | [`ROUTE_PROTOCOL`] and [`RULE_PRIORITY`], or [`POD_RULE_PRIORITY`]        |
//! | VXLAN link   | [`OVERLAY_DEVICE`] and, in the creating message, [`OVERLAY_GROUP`]        |

use std::net::IpAddr;

use crate::cni::ids::{AttachmentKey, ContainerId, IfName, NetworkName};
use crate::mac::MacAddr;

/// Protocol number of every route that ferrule makes (`rtm_protocol`; include/uapi/linux/rtnetlink.h).
///
/// Free in iproute2's rt_protos and in FRR, BIRD, calico (80), cilium and kube-router: `ip route show
/// proto 102` lists exactly what is ours.
pub const ROUTE_PROTOCOL: u8 = 102;

/// First bytes of the alias of every link that ferrule leaves on the node.
pub const ALIAS_PREFIX: &str = "ferrule:";

/// Name of the VXLAN link to nodes that are not on-link.
pub const OVERLAY_DEVICE: &str = "ferrule-vxlan";

/// Link group of that link: none that a pod's link has ([`is_link_group`]), so that nobody takes it for one.
pub const OVERLAY_GROUP: u32 = 0x6e00_0066;

/// Alias of that link, for people. Without [`ALIAS_PREFIX`], which says of a link that it is a pod's.
pub const OVERLAY_ALIAS: &str = "ferrule, to pods of nodes that are not on-link";

/// Place of the rules for what pods send, among the rules of policy routing. Before the main table (32766), and
/// before the places that `ip rule add` gives from there downwards, unless somebody adds hundreds.
pub const RULE_PRIORITY: u32 = 32_102;

/// Place of the rules for what goes to pods of this node: after the kernel's own, at 0, and before those of others.
/// `ip rule add` without a place takes the one before the first after 0, so some room is left: programs that rely on it
/// (wg-quick) add two, of which the second comes first.
pub const POD_RULE_PRIORITY: u32 = 8;

/// `IFALIASZ` less the terminating NUL (include/uapi/linux/if.h).
const ALIAS_MAX: usize = 255;

/// Name of the node's end of the attachment's veth pair: `veth` and eleven hexadecimal digits.
///
/// The prefix `veth` because udev's and NetworkManager's rules leave such links alone
/// (cni#77).
pub fn host_link(key: &AttachmentKey) -> String {
    format!("veth{:011x}", hash(key, "link") >> 20)
}

/// Name of the link through which goes what the pod sends, where that is limited: the digits of [`host_link`], so
/// that the two are seen to belong together.
pub fn ifb_link(key: &AttachmentKey) -> String {
    format!("ifb{:011x}", hash(key, "link") >> 20)
}

/// Every link of the node that may be the attachment's.
pub fn node_links(key: &AttachmentKey) -> [String; 2] {
    [host_link(key), ifb_link(key)]
}

/// Hardware address of the node's end. Locally administered, unicast.
pub fn host_mac(key: &AttachmentKey) -> MacAddr {
    local_mac(hash(key, "host"))
}

/// Hardware address of the pod's end, unless the runtime asks for another.
pub fn pod_mac(key: &AttachmentKey) -> MacAddr {
    local_mac(hash(key, "pod"))
}

/// What `ip link` shows of a host link: `ferrule:<network>/<container id>/<ifname> <pod>`, the pod by namespace and name and
/// then its uid.
///
/// `pod` is for people, and for whoever has lost the pod's record. It is cut where the kernel's limit demands; the key is
/// always whole, since [`crate::cni::ids`] bounds its parts.
pub fn alias(key: &AttachmentKey, pod: Option<&str>) -> String {
    let mut alias = format!("{ALIAS_PREFIX}{key}");
    if let Some(pod) = pod {
        alias.push(' ');
        alias.push_str(pod);
    }
    let mut end = alias.len().min(ALIAS_MAX);
    while !alias.is_char_boundary(end) {
        end -= 1;
    }
    alias.truncate(end);
    alias
}

/// Whether a link's alias says that it is this attachment's.
pub fn alias_names(alias: &str, key: &AttachmentKey) -> bool {
    alias.strip_prefix(ALIAS_PREFIX).and_then(|rest| rest.split(' ').next()) == Some(&key.to_string())
}

/// The attachment of `network` whose alias it is, and the pod's name and uid, as far as it tells them.
pub fn read_alias<'a>(
    alias: &'a str,
    network: &NetworkName,
) -> Option<(AttachmentKey, Option<&'a str>, Option<&'a str>)> {
    let rest = alias.strip_prefix(ALIAS_PREFIX)?;
    let mut words = rest.split(' ');
    let key = words.next()?;
    // One that is as long as it may be was cut.
    let (pod, uid) = (words.next(), words.next().filter(|_| alias.len() < ALIAS_MAX));
    let (container, ifname) = key.strip_prefix(network.as_str())?.strip_prefix('/')?.split_once('/')?;
    let (container, ifname) = (ContainerId::parse(container).ok()?, IfName::parse(ifname).ok()?);
    Some((AttachmentKey { network: network.clone(), container, ifname }, pod, uid))
}

/// Link group of a network's host links.
///
/// Unlike the alias it can be given in the message that creates the link, so that not even a kill right
/// after that message leaves an unmarked link. The upper byte is ours, the rest the network's.
pub fn link_group(network: &NetworkName) -> u32 {
    0x6600_0000 | low24(network)
}

/// Whether a link group is that of some network.
pub fn is_link_group(group: u32) -> bool {
    group >> 24 == 0x66
}

/// Link group of the links that one process is about to remove: 0x46 and the low 24 bits of its id (pid_max is 2^22).
pub fn doomed_group(process: u32) -> u32 {
    0x4600_0000 | (process & 0x00ff_ffff)
}

/// Whether a link group is that of a process that removes links. On a link that stays, it says that the process was
/// killed before it came to that.
pub fn is_doomed_group(group: u32) -> bool {
    group >> 24 == 0x46
}

/// Whether a name has the form of one of [`node_links`].
pub fn is_node_link(name: &str) -> bool {
    let digits = name.strip_prefix("veth").or_else(|| name.strip_prefix("ifb")).unwrap_or_default();
    digits.len() == 11 && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Metric of the routes to a network's peers.
///
/// Every network has its own, so that two networks on a node tell their routes apart, and no foreign
/// route has it: the kernel replaces a route by (destination, metric), hence never somebody else's.
pub fn route_metric(network: &NetworkName) -> u32 {
    0x0100_0000 | low24(network)
}

/// The table in which pods find the other nodes: the number of [`link_group`], which nobody else has for a table.
pub fn nodes_table(network: &NetworkName) -> u32 {
    link_group(network)
}

/// The table of a pod's interface: 0x67 and 24 bits of its name.
pub fn interface_table(interface: &str) -> u32 {
    0x6700_0000 | u32::try_from(stable_hash([interface, "interface"]) >> 40).unwrap_or(0)
}

/// Hardware address of the VXLAN link of the node that has this address. Every node computes those of all others.
pub fn vtep_mac(node: IpAddr) -> MacAddr {
    local_mac(stable_hash([node.to_string().as_str(), "vtep"]))
}

fn low24(network: &NetworkName) -> u32 {
    u32::try_from(stable_hash([network.as_str(), "network"]) >> 40).unwrap_or(0)
}

/// The first octet's two low bits: locally administered (1), not multicast (0); IEEE 802, section 8.2.
fn local_mac(hash: u64) -> MacAddr {
    let [_, _, first, rest @ ..] = hash.to_be_bytes();
    let [b, c, d, e, f] = rest;
    MacAddr([(first & 0xfc) | 0x02, b, c, d, e, f])
}

fn hash(key: &AttachmentKey, purpose: &str) -> u64 {
    stable_hash([key.network.as_str(), key.container.as_str(), key.ifname.as_str(), purpose])
}

/// FNV-1a over the parts, each ended by a NUL (which no part can hold), then MurmurHash3's finaliser so
/// that every bit depends on every byte.
///
/// Written out because its values are on disk and in the kernel: they must be the same after an upgrade
/// of ferrule or of the standard library, whose own hashers promise nothing of the kind.
pub fn stable_hash<'a>(parts: impl IntoIterator<Item = &'a str>) -> u64 {
    stable_hash_of_bytes(parts.into_iter().flat_map(|part| part.bytes().chain([0])))
}

/// The same over bytes, whose bounds are for the caller to mark.
pub fn stable_hash_of_bytes(bytes: impl IntoIterator<Item = u8>) -> u64 {
    let mut state: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in bytes {
        state = (state ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    state ^= state >> 33;
    state = state.wrapping_mul(0xff51_afd7_ed55_8ccd);
    state ^= state >> 33;
    state = state.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    state ^ (state >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn key(container: &str) -> AttachmentKey {
        AttachmentKey {
            network: NetworkName::parse("podnet").unwrap(),
            container: ContainerId::parse(container).unwrap(),
            ifname: IfName::parse("eth0").unwrap(),
        }
    }

    /// The values are what an older ferrule left on nodes: a change here orphans every running pod.
    #[test]
    fn names_are_the_same_for_ever() {
        assert_eq!(host_link(&key("c1")), "vethc9863206815");
        assert_eq!(ifb_link(&key("c1")), "ifbc9863206815");
        assert_eq!(host_mac(&key("c1")).to_string(), "b2:91:96:97:8b:4a");
        assert_eq!(link_group(&key("c1").network), 0x6600_0000 | 0x0006_1f56);
        assert_eq!(route_metric(&key("c1").network), 0x0100_0000 | 0x0006_1f56);
        // Nodes of two versions must agree on these.
        assert_eq!(vtep_mac("192.168.1.10".parse().unwrap()).to_string(), "a6:de:57:15:7e:09");
        assert_eq!(vtep_mac("fd01::10".parse().unwrap()).to_string(), "da:01:54:de:5b:14");
    }

    #[test]
    fn the_overlays_link_is_no_pods_link() {
        assert!(!is_link_group(OVERLAY_GROUP) && !is_doomed_group(OVERLAY_GROUP));
        assert!(!is_node_link(OVERLAY_DEVICE) && !OVERLAY_ALIAS.starts_with(ALIAS_PREFIX));
        assert!(OVERLAY_DEVICE.len() <= 15 && OVERLAY_ALIAS.len() <= ALIAS_MAX);
    }

    #[test]
    fn ten_thousand_pods_have_ten_thousand_links() {
        let mut seen = HashSet::new();
        for n in 0..10_000 {
            let key = key(&format!("c{n}"));
            let name = host_link(&key);
            assert_eq!(name.len(), 15);
            assert!(is_node_link(&name) && is_node_link(&ifb_link(&key)));
            assert!(seen.insert(name));
            assert_ne!(host_mac(&key), pod_mac(&key));
            assert!(host_mac(&key).is_unicast());
        }
    }

    #[test]
    fn marks_of_others_are_not_taken_for_ours() {
        assert!(is_link_group(link_group(&key("c1").network)));
        for group in [0, 1, 0x6500_0000, 0x6700_0000, 0x66] {
            assert!(!is_link_group(group), "{group:#x}");
        }
        for name in
            ["veth", "vethc986320681", "vethC9863206815", "vethc98632068150", "eth0", "vethc9863206815:1"]
        {
            assert!(!is_node_link(name), "{name}");
        }
    }

    #[test]
    fn the_alias_holds_the_key_whole_and_fits_the_kernel() {
        let key = AttachmentKey {
            network: NetworkName::parse(&"n".repeat(crate::cni::ids::NETWORK_NAME_MAX)).unwrap(),
            container: ContainerId::parse(&"c".repeat(crate::cni::ids::CONTAINER_ID_MAX)).unwrap(),
            ifname: IfName::parse("fifteen-bytes-x").unwrap(),
        };
        let alias = alias(&key, Some(&"ä".repeat(300)));
        assert!(alias.len() <= ALIAS_MAX, "{}", alias.len());
        assert!(alias_names(&alias, &key));
    }

    #[test]
    fn an_alias_reads_as_it_was_written() {
        let key = key("c1");
        let read = |text: &str| {
            let own = |word: Option<&str>| word.map(str::to_owned);
            read_alias(text, &key.network).map(|(key, pod, uid)| (key, own(pod), own(uid)))
        };
        assert_eq!(read(&alias(&key, None)), Some((key.clone(), None, None)));
        let (pod, uid) = ("kube-system/dns", "0b1e-77");
        let named = |uid: Option<&str>| Some((key.clone(), Some(pod.to_owned()), uid.map(str::to_owned)));
        assert_eq!(read(&alias(&key, Some(pod))), named(None));
        assert_eq!(read(&alias(&key, Some(&format!("{pod} {uid}")))), named(Some(uid)));
        // A part of a uid is nobody's.
        assert_eq!(read(&alias(&key, Some(&format!("{pod} {}", "1".repeat(300))))), named(None));
        for other in
            ["ferrule:podnet2/c1/eth0", "ferrule:podnet/c1", "podnet/c1/eth0", "ferrule:podnet/../eth0", ""]
        {
            assert_eq!(read(other), None, "{other}");
        }
    }

    #[test]
    fn an_alias_of_another_attachment_is_not_taken_for_ours() {
        assert!(alias_names("ferrule:podnet/c1/eth0 kube-system/dns", &key("c1")));
        for other in ["ferrule:podnet/c12/eth0", "ferrule:podnet/c1/eth01", "podnet/c1/eth0", "", "ferrule:"]
        {
            assert!(!alias_names(other, &key("c1")), "{other}");
        }
    }
}
