//! Packets that a rule of nft logs, as they come.

use std::net::UdpSocket;
use std::time::Duration;

use ferrule::linux::netns::Netns;
use ferrule::linux::nflog::PacketLog;

use kit::block_on;
use kit::netns::{Namespace, inside};
use kit::nft;

/// How long to wait for what must come: other tests may have the machine.
const PATIENT: Duration = Duration::from_secs(20);

/// A listener inside a namespace.
fn listen(namespace: &Namespace, group: u16) -> std::io::Result<PacketLog> {
    let runtime = tokio::runtime::Handle::current();
    let open = || {
        let _entered = runtime.enter();
        PacketLog::open_here(group)
    };
    Netns::open(namespace.path()).unwrap().run(open).unwrap()
}

#[test]
fn a_logged_packet_has_prefix_ends_and_ports() {
    let namespace = Namespace::with_uplink("node");
    nft::load(
        &namespace,
        "add table inet t\nadd chain inet t c { type filter hook output priority 0; }\n\
         add rule inet t c udp dport 53 log prefix \"told: \" group 77\n",
    );
    block_on(async {
        let mut log = listen(&namespace, 77).unwrap();
        let ends = [("192.168.9.1:0", "192.168.9.7:53"), ("[fd09::1]:0", "[fd09::7]:53")];
        for (from, to) in ends {
            let source = inside(&namespace, || {
                let socket = UdpSocket::bind(from).unwrap();
                socket.send_to(b"?", to).unwrap();
                socket.local_addr().unwrap()
            });
            let packet = tokio::time::timeout(PATIENT, log.next()).await.expect("a packet").unwrap();
            assert_eq!(packet.prefix, "told: ");
            assert_eq!((packet.source, packet.protocol), (source.ip(), 17));
            assert_eq!(packet.ports, Some((source.port(), 53)), "{to}");
            assert!(to.contains(&packet.destination.to_string()) && packet.out_device.is_some());
        }
        let refusal = listen(&namespace, 77).err().expect("a group has one listener");
        assert_eq!(refusal.raw_os_error(), Some(rustix::io::Errno::PERM.raw_os_error()));
        assert!(listen(&namespace, 78).is_ok());
    });
}
