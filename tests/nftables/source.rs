//! A pod speaks for itself only. (That it teaches its node nothing is in `security`.)

use kit::nft;
use kit::node::{Node, OUTSIDE_V6};
use kit::packets::first_sender;
use kit::pod::{Pod, addresses_of};

/// IPv6 has no rp_filter.
#[test]
fn a_pod_cannot_send_with_an_ipv6_address_that_is_not_its_own() {
    let (node, pod, victim) = (Node::new(), Pod::new("pod"), Pod::new("victim"));
    let own = addresses_of(&node.add(&pod, &node.conf())).remove(1);
    let victims = addresses_of(&node.add(&victim, &node.conf())).remove(1);
    let send = |forged: &str| first_sender(pod.namespace(), node.outside(), OUTSIDE_V6, forged, &own);
    for forged in [victims.as_str(), "fd00:88::99", "2001:db8::5"] {
        pod.namespace().ip(&format!("address add {forged}/128 dev eth0 nodad"));
        assert_eq!(send(forged), own, "a packet from {forged} got through");
    }
    // The proof that the test can fail.
    nft::run(node.namespace(), "delete table inet ferrule").unwrap();
    assert_eq!(send("2001:db8::5"), "2001:db8::5");
}
