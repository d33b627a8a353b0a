//! Packets that arrive, of which no application hears.

use std::io::ErrorKind;
use std::net::{IpAddr, TcpListener, UdpSocket};

use ferrule::desired::overlay::Routing;

use super::{door, has_table, probe, says};
use crate::cli::why::scene::{PORT, Scene, connects_to};
use crate::cli::{text, verb};
use kit::netns::inside;

#[test]
fn a_healthy_pair_is_answered_by_both_families() {
    let scene = Scene::new(Routing::Direct);
    let node = scene.node(0);
    for ipv4 in [true, false] {
        let (web, near) = (scene.end("web").address(ipv4).unwrap(), scene.end("near").address(ipv4).unwrap());
        // What the other node has is not known here; that it answers is.
        let far = probe(node, &format!("shop/client {}", door(&scene, "web", ipv4, PORT)), 0);
        let way = "went through prerouting, forward and postrouting of";
        let next_hop =
            if ipv4 { "left by up0 towards 192.168.77.11" } else { "left by up0 towards fd77::11" };
        says(&far, "answered", &["a TCP SYN", way, next_hop, &format!("a SYN-ACK from {web} came back")]);
        let close = probe(node, &format!("shop/client {}", door(&scene, "near", ipv4, PORT)), 0);
        says(&close, "answered", &[way, &format!("a SYN-ACK from {near}")]);
        let echo = probe(node, &format!("shop/client {web}"), 0);
        says(&echo, "answered", &["an ICMP echo request", &format!("an echo reply from {web}")]);
        let closed = probe(node, &format!("shop/client {}", door(&scene, "web", ipv4, 9)), 1);
        says(&closed, "refused", &[next_hop, &format!("a reset from {web} came back")]);
        assert_eq!(closed["answer"]["kind"], "reset");
        // The node itself sends, to a pod and to itself.
        let own = if ipv4 { "192.168.77.10" } else { "fd77::10" };
        let from_node = probe(node, &format!("{own} {}", door(&scene, "web", ipv4, PORT)), 0);
        says(&from_node, "answered", &["went through output and postrouting of", "left by up0"]);
        let itself = probe(node, &format!("{own} {}", door(&scene, "node-0", ipv4, PORT)), 0);
        says(&itself, "answered", &["output, postrouting, prerouting and input of", "was handed to"]);
        let to_node = probe(node, &format!("shop/client {}", door(&scene, "node-0", ipv4, PORT)), 0);
        says(&to_node, "answered", &["prerouting and input of", "was handed to"]);
        let outside = probe(node, &format!("shop/client {}", door(&scene, "outside", ipv4, PORT)), 0);
        says(&outside, "answered", &["left by up0, and a SYN-ACK from"]);
    }
}

#[test]
fn a_pair_by_vxlan_is_followed_in_the_tunnel() {
    let scene = Scene::new(Routing::Vxlan);
    for ipv4 in [true, false] {
        let web = probe(scene.node(0), &format!("shop/client {}", door(&scene, "web", ipv4, PORT)), 0);
        says(&web, "answered", &["output", "left by up0", ", in a tunnel's packet", "a SYN-ACK from"]);
        let asked = format!("shop/client {}/udp", door(&scene, "web", ipv4, 53));
        let ended = ["left by up0", ", in a tunnel's packet", "ended at the other node", "time exceeded"];
        says(&probe(scene.node(0), &asked, 3), "held", &ended);
    }
    kit::nft::run(
        scene.on(0),
        "add table inet ufw; add chain inet ufw output { type filter hook output priority 0; policy accept; }; add rule inet \
         ufw output udp dport 8472 drop comment \"no tunnels\"",
    )
    .unwrap();
    let web = probe(scene.node(0), &format!("shop/client {}", door(&scene, "web", true, PORT)), 1);
    says(&web, "dropped", &["in a tunnel's packet", "chain output of table inet ufw", "no tunnels"]);
}

/// A listener that would take a connection, and a socket that would take a datagram.
#[test]
fn no_application_sees_it() {
    let scene = Scene::new(Routing::Direct);
    for (name, ipv4) in [("web", true), ("near", true), ("web", false), ("near", false)] {
        let address: IpAddr = scene.end(name).address(ipv4).unwrap();
        let (listener, socket) = inside(scene.place(name), || {
            (TcpListener::bind((address, 7001)).unwrap(), UdpSocket::bind((address, 7001)).unwrap())
        });
        listener.set_nonblocking(true).unwrap();
        socket.set_nonblocking(true).unwrap();
        let asked = format!("shop/client {}", door(&scene, name, ipv4, 7001));
        says(&probe(scene.node(0), &asked, 0), "answered", &["a SYN-ACK"]);
        // How UDP ends is shown elsewhere; what the other node has for it is unknown here.
        let status = if name == "near" { 0 } else { 3 };
        says(&probe(scene.node(0), &format!("{asked}/udp"), status), "held", &["a UDP datagram"]);
        assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock, "{name}");
        assert_eq!(socket.recv(&mut [0; 16]).unwrap_err().kind(), ErrorKind::WouldBlock, "{name}");
        // Both would have taken one.
        assert!(connects_to(scene.pod("client"), address, 7001));
        assert!(listener.accept().is_ok());
        let any = if ipv4 { "0.0.0.0" } else { "::" };
        kit::traffic::send_udp(scene.pod("client"), any, &address.to_string(), 7001);
        scene.on(0).sh("sleep 0.2");
        assert_eq!(socket.recv(&mut [0; 16]).unwrap(), 1);
        // Nothing half open is left, of which the kernel would send its answer again.
        assert_eq!(scene.place(name).sh("ss -Htan state syn-recv"), "");
    }
}

#[test]
fn udp_ends_before_it_is_delivered() {
    let scene = Scene::new(Routing::Direct);
    let ask = |name: &str, status| {
        probe(scene.node(0), &format!("shop/client {}/udp", door(&scene, name, true, 53)), status)
    };
    let far = ask("web", 3);
    says(&far, "held", &["left by up0 towards 192.168.77.11", "ended at the other node", "time exceeded"]);
    assert_eq!(far["answer"]["from"], "192.168.77.11");
    // Nobody has those ports.
    says(&ask("near", 1), "held", &["was held before it left by"]);
    says(&ask("node-0", 1), "held", &["was held before it was handed to"]);
    says(&ask("node-1", 3), "held", &["was held before it left by up0"]);
    says(&ask("outside", 3), "held", &["was held before it left by up0"]);
}

/// Tables go with the process, however it ends; flows are forgotten.
#[test]
fn nothing_is_left_behind() {
    let scene = Scene::new(Routing::Direct);
    let (node, web) = (scene.node(0), door(&scene, "web", true, PORT));
    let flows =
        || scene.on(0).sh("conntrack -L 2>/dev/null | grep -c 'dport=8080' || true").trim().to_owned();
    scene.on(0).sh("conntrack -F 2>/dev/null");
    // Those that it does not know stay.
    assert!(scene.connects("client", "web", true));
    let before = flows();
    assert_ne!(before, "0");
    says(&probe(node, &format!("shop/client {web}"), 0), "answered", &[]);
    assert_eq!(flows(), before);
    // A packet that is not answered is waited for.
    scene.on(1).sh("nft 'add table inet x; add chain inet x y { type filter hook prerouting priority 0; }'");
    scene.on(1).sh("nft add rule inet x y tcp dport 8080 drop");
    for signal in ["INT", "KILL"] {
        let running = verb(node, &format!("why shop/client {web} --probe")).spawn();
        scene.on(0).wait_until("nft list tables | grep -q ferrule_probe");
        scene.on(0).sh(&format!("kill -{signal} {}", running.id()));
        running.wait_for_any_end();
        assert!(!has_table(node), "{signal}");
    }
}

/// Two at once, and a trace of somebody else's, are not mixed up.
#[test]
fn others_that_trace_are_not_mixed_up() {
    let scene = Scene::new(Routing::Direct);
    kit::nft::run(
        scene.on(0),
        "add table inet other; add chain inet other every { type filter hook prerouting priority -400; }; add rule inet other \
         every meta nftrace set 1; add chain inet other ping { type filter hook forward priority 0; }; add rule inet other ping \
         meta l4proto icmp drop",
    )
    .unwrap();
    let web = scene.end("web").address(true).unwrap();
    let pinging = scene.pod("client").command("ping").args(["-i", "0.01", &web.to_string()]).spawn();
    let mut pinging = pinging.unwrap();
    let call = || verb(scene.node(0), &format!("why shop/client {web}:{PORT} --probe --output json")).spawn();
    let both = [call(), call()].map(kit::call::Running::wait);
    pinging.kill().unwrap();
    pinging.wait().unwrap();
    for answer in both {
        assert_eq!(answer.status.code(), Some(0), "{answer:?}");
        let document: serde_json::Value = serde_json::from_slice(&answer.stdout).unwrap();
        let probe = &document["probes"][0];
        says(probe, "answered", &["a SYN-ACK from"]);
        let trace = probe["trace"].as_array().unwrap();
        assert!(trace.iter().all(|it| it["verdict"] != "drop"), "{probe:#}");
        assert!(trace.len() < 40, "{probe:#}");
    }
}

#[test]
fn where_it_cannot_be_sent_that_is_said() {
    let scene = Scene::new(Routing::Direct);
    let web = door(&scene, "web", true, PORT);
    let client = scene.end("client").address(true).unwrap();
    // By the node of the destination.
    let other = probe(scene.node(1), &format!("{client} shop/web:{PORT}"), 3);
    says(&other, "skipped", &["is not on this node", "run the same command there"]);
    let sctp = probe(scene.node(0), &format!("shop/client {web}/sctp"), 3);
    says(&sctp, "skipped", &["of this protocol none can be made"]);
    // As in the agent's container.
    let agents =
        ["setpriv", "--no-new-privs", "--inh-caps=-all,+net_admin", "--bounding-set=-all,+net_admin"];
    let shown = verb(scene.node(0), &format!("why shop/client {web} --probe")).through(agents).run();
    assert_eq!(shown.status.code(), Some(3), "{shown:?}");
    assert!(
        text(&shown).contains("probe   no packet was sent: it is sent from inside of the pod"),
        "{shown:?}"
    );
    let shown = verb(scene.node(0), &format!("why 192.168.77.10 {web} --probe")).through(agents).run();
    assert!(text(&shown).contains("raw sockets need CAP_NET_RAW"), "{shown:?}");
    assert_eq!(shown.status.code(), Some(3), "{shown:?}");
    // Without it nothing is sent, and nothing said of it.
    let silent = crate::cli::document(scene.node(0), &format!("why shop/client {web}"), 3);
    assert!(silent.get("probes").is_none(), "{silent:#}");
}
