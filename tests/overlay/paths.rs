//! Whether the pods' largest packets reach the other nodes.

use std::net::IpAddr;

use ferrule::cni::ids::NetworkName;
use ferrule::datapath::path_mtu::{Passage, Path, paths, try_some};
use ferrule::desired::overlay::Routing;

use super::world::World;
use kit::nft;

/// What VXLAN leaves of 1500.
const POD_MTU: u32 = 1450;

/// What becomes of packets as large as the pods', sent by node 1.
fn tried(world: &World) -> Vec<(Path, Passage)> {
    let network = NetworkName::parse("podnet").unwrap();
    world.node(1).on(async |node| try_some(&paths(node, &network).await.unwrap(), POD_MTU, 16, 0).await)
}

fn path(node: &str, by_overlay: bool) -> Path {
    Path { node: node.parse::<IpAddr>().unwrap(), by_overlay }
}

#[test]
fn a_way_that_carries_less_than_the_pods_send_is_found() {
    let world = World::new();
    world.settle(Routing::Auto);
    let (direct, direct6, by_overlay) =
        (path("192.168.1.13", false), path("fd01::13", false), path("192.168.2.12", true));
    assert_eq!(by_overlay.length(POD_MTU), 1500);
    let free = |it: Path| (it, Passage::Free);
    assert_eq!(tried(&world), [free(direct), free(by_overlay), free(direct6)]);
    // A router that says so, on the way of the tunnel.
    world.router.ip("link set port2 mtu 1400");
    let narrow = (by_overlay, Passage::Narrow { mtu: 1400 });
    assert_eq!(tried(&world), [free(direct), narrow, free(direct6)]);
    // A link that loses what is too large for it, and says nothing.
    let lose = |what: &str| {
        let chain = "type filter hook prerouting priority -500;";
        let script = format!("table inet lose {{\nchain lost {{\n{chain}\n{what} drop\n}}\n}}\n");
        nft::load(&world.node(3).namespace, &format!("table inet lose\ndelete table inet lose\n{script}"));
    };
    lose("meta length > 1300");
    let lost = |it: Path| (it, Passage::Lost);
    assert_eq!(tried(&world), [lost(direct), narrow, lost(direct6)]);
    // A firewall that answers nothing: nobody knows.
    lose("meta l4proto udp");
    let unknown = |it: Path| (it, Passage::Unknown);
    assert_eq!(tried(&world), [unknown(direct), narrow, unknown(direct6)]);
}
