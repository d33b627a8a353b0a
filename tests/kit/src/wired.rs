//! What ADD does, done by hand with `ip`: for tests of one part of ferrule alone, without the plugin.

use crate::netns::Namespace;

/// A pod with a pair to its node, and routes both ways.
pub struct WiredPod {
    /// Its namespace.
    pub namespace: Namespace,
    /// The node's end of the pair.
    pub host_link: String,
    /// One address of each family.
    pub addresses: [String; 2],
}

/// What may differ.
pub struct Wiring<'w> {
    /// The node's end of the pair.
    pub host_link: &'w str,
    /// Further words for `ip link add` about it: "group 7".
    pub more: &'w str,
    /// Two digits that no other pod of the node has in its hardware addresses.
    pub number: u8,
    /// One address of each family.
    pub addresses: [String; 2],
    /// The node's own addresses, from which it speaks to the pod.
    pub node: [&'w str; 2],
}

impl WiredPod {
    /// Makes one on `node`. `role` shows in its namespace's name.
    pub fn new(role: &str, node: &Namespace, wiring: Wiring<'_>) -> Self {
        let Wiring { host_link, more, number, addresses, node: sources } = wiring;
        let namespace = Namespace::new(role);
        let [four, six] = &addresses;
        let (host_mac, pod_mac) =
            (format!("02:00:00:00:01:{number:02}"), format!("02:00:00:00:02:{number:02}"));
        node.ip_batch(&format!(
            "link add {host_link} address {host_mac} {more} type veth peer eth0 address {pod_mac} netns {}\n\
             link set {host_link} addrgenmode none\nlink set {host_link} up\n\
             neighbour add {four} lladdr {pod_mac} dev {host_link} nud permanent\n\
             neighbour add {six} lladdr {pod_mac} dev {host_link} nud permanent\n\
             route add {four}/32 dev {host_link} src {} proto 102\n\
             route add {six}/128 dev {host_link} src {} proto 102\n",
            namespace.name(),
            sources[0],
            sources[1]
        ));
        namespace.ip_batch(&format!(
            "link set lo up\nlink set eth0 up\n\
             address add {four}/32 dev eth0\naddress add {six}/128 dev eth0 nodad\n\
             neighbour add 169.254.1.1 lladdr {host_mac} dev eth0 nud permanent\n\
             neighbour add fe80::1 lladdr {host_mac} dev eth0 nud permanent\n\
             route add default via 169.254.1.1 dev eth0 onlink\nroute add default via fe80::1 dev eth0 onlink\n"
        ));
        Self { namespace, host_link: host_link.to_owned(), addresses }
    }
}
