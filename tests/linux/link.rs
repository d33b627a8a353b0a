//! Links, addresses and neighbours.

use std::collections::HashSet;
use std::net::IpAddr;
use std::path::Path;

use ferrule::linux::addr::Address;
use ferrule::linux::change::Change;
use ferrule::linux::link::{Ipv4Conf, LinkEnd, LinkRef, LinkSettings, VethPair};
use ferrule::linux::neigh::{Neighbour, Reachability};
use ferrule::linux::netlink::Netlink;
use ferrule::linux::netns::Netns;
use ferrule::mac::MacAddr;
use futures_util::future::join;
use serde_json::{Value, json};

use kit::netns::Namespace;
use kit::{block_on, ip};

const HOST_MAC: MacAddr = MacAddr([0x02, 0, 0, 0, 0, 0x0a]);
const PEER_MAC: MacAddr = MacAddr([0x02, 0, 0, 0, 0, 0x0b]);

/// Two namespaces and a way into each.
struct Hosts {
    node: Namespace,
    pod: Namespace,
}

impl Hosts {
    fn new() -> Self {
        Self { node: Namespace::new("node"), pod: Namespace::new("pod") }
    }

    fn netlink_of_node(&self) -> Netlink {
        Netlink::open_in(&Netns::open(self.node.path()).unwrap()).unwrap()
    }

    fn netlink_of_pod(&self) -> Netlink {
        Netlink::open_in(&Netns::open(self.pod.path()).unwrap()).unwrap()
    }

    fn pair(&self, host: &str, peer: &str) -> VethPair {
        VethPair {
            host: LinkEnd { name: host.to_owned(), mac: HOST_MAC },
            peer: LinkEnd { name: peer.to_owned(), mac: PEER_MAC },
            peer_netns: Netns::open(self.pod.path()).unwrap(),
            mtu: 1380,
            group: 4242,
        }
    }
}

fn by_name(name: &str) -> LinkRef {
    LinkRef::Name(name.to_owned())
}

async fn submit_one(netlink: &Netlink, change: Change) -> Result<(), String> {
    netlink.submit([change]).await.remove(0).map_err(|refusal| refusal.to_string())
}

fn flags(link: &Value) -> Vec<&str> {
    link["flags"].as_array().unwrap().iter().filter_map(Value::as_str).collect()
}

#[test]
fn one_message_makes_both_ends_where_they_belong() {
    let hosts = Hosts::new();
    block_on(async {
        let netlink = hosts.netlink_of_node();
        let created = netlink.submit([Change::CreateVeth(hosts.pair("veth0", "eth0"))]);
        // Sent in the order of the calls: the look-up sees the link, and nothing is awaited between the two.
        let (created, link) = join(created, netlink.link(by_name("veth0"))).await;
        assert_eq!(created, [Ok(())]);
        let link = link.unwrap().expect("made before it was looked up");
        assert_eq!((link.name.as_str(), link.mac, link.mtu), ("veth0", Some(HOST_MAC), 1380));
        assert_eq!((link.up, link.alias, link.group), (false, None, 4242));
        assert_eq!(link.kind.as_deref(), Some("veth"));
        assert_eq!(link.index, ip::index(&hosts.node, "veth0"));
        assert_eq!(link.peer_index, Some(ip::index(&hosts.pod, "eth0")));
        assert!(link.peer_netns_id.is_some());
    });
    let host = ip::link(&hosts.node, "veth0").unwrap();
    assert_eq!(host["address"], "02:00:00:00:00:0a");
    assert_eq!((&host["mtu"], &host["group"]), (&json!(1380), &json!("4242")));
    let peer = ip::link(&hosts.pod, "eth0").unwrap();
    assert_eq!(peer["address"], "02:00:00:00:00:0b");
    assert_eq!((&peer["mtu"], &peer["group"]), (&json!(1380), &json!("default")));
    // NET_ADDR_SET: udev's MACAddressPolicy leaves such an address alone.
    assert_eq!(hosts.node.in_sys("class/net/veth0/addr_assign_type"), "3");
    assert_eq!(hosts.pod.in_sys("class/net/eth0/addr_assign_type"), "3");
}

#[test]
fn a_name_that_is_taken_is_refused_in_the_kernels_words() {
    let hosts = Hosts::new();
    block_on(async {
        let netlink = hosts.netlink_of_node();
        let pairs = [hosts.pair("veth0", "eth0"), hosts.pair("veth0", "eth1"), hosts.pair("veth1", "eth0")];
        let verdicts = netlink.submit(pairs.map(Change::CreateVeth)).await;
        assert_eq!(verdicts[0], Ok(()));
        assert!(verdicts[1].as_ref().unwrap_err().is_exists());
        assert!(verdicts[2].as_ref().unwrap_err().is_exists());
        let words = verdicts[1].as_ref().unwrap_err().to_string();
        let begin = "add link veth0 type veth peer eth1 netns /run/netns/ferrule-";
        assert!(words.starts_with(begin), "{words}");
        assert!(words.contains("File exists (os error 17)"), "{words}");
    });
    assert_eq!(ip::links(&hosts.pod).len(), 2, "lo and eth0");
    assert!(ip::link(&hosts.node, "veth1").is_none());
}

#[test]
fn a_peer_is_not_made_in_a_namespace_of_another_kind() {
    let hosts = Hosts::new();
    let mistaken = Netns::open(Path::new("/proc/self/ns/mnt")).unwrap();
    let pair = VethPair { peer_netns: mistaken, ..hosts.pair("veth0", "eth0") };
    block_on(async {
        let verdicts = hosts.netlink_of_node().submit([Change::CreateVeth(pair)]).await;
        assert!(verdicts[0].as_ref().unwrap_err().is_invalid(), "{verdicts:?}");
    });
    assert_eq!(ip::links(&hosts.node).len(), 1);
}

#[test]
fn settings_change_what_they_name_and_nothing_else() {
    let hosts = Hosts::new();
    hosts.node.ip("link add eth0.100 type veth peer other");
    let alias = "ferrule:".to_owned() + &"x".repeat(247);
    let set = |settings| Change::SetLink { link: by_name("eth0.100"), settings };
    block_on(async {
        let netlink = hosts.netlink_of_node();
        let quiet = LinkSettings {
            ipv4_conf: vec![(Ipv4Conf::RpFilter, 1), (Ipv4Conf::SendRedirects, 0), (Ipv4Conf::ProxyArp, 1)],
            no_ipv6_link_local: true,
            ..LinkSettings::default()
        };
        let named = LinkSettings {
            up: Some(true),
            alias: Some(alias.clone()),
            group: Some(7),
            mtu: Some(1400),
            ..LinkSettings::default()
        };
        let nothing = LinkSettings::default();
        let verdicts = netlink.submit([set(quiet), set(named), set(nothing)]).await;
        assert_eq!(verdicts, [Ok(()), Ok(()), Ok(())]);
        let link = netlink.link(by_name("eth0.100")).await.unwrap().unwrap();
        assert_eq!(link.alias.as_deref(), Some(alias.as_str()));
        assert!(link.up);
    });
    let link = ip::link(&hosts.node, "eth0.100").unwrap();
    assert_eq!(link["ifalias"], alias);
    assert_eq!((&link["group"], &link["mtu"]), (&json!("7"), &json!(1400)));
    assert!(flags(&link).contains(&"UP"));
    assert_eq!(link["inet6_addr_gen_mode"], "none");
    for (key, value) in [("rp_filter", "1"), ("send_redirects", "0"), ("proxy_arp", "1")] {
        assert_eq!(hosts.node.sysctl(&format!("net/ipv4/conf/eth0.100/{key}")), value, "{key}");
    }
    block_on(async {
        let down = LinkSettings { up: Some(false), ..LinkSettings::default() };
        assert_eq!(submit_one(&hosts.netlink_of_node(), set(down)).await, Ok(()));
    });
    let link = ip::link(&hosts.node, "eth0.100").unwrap();
    assert!(!flags(&link).contains(&"UP"));
    assert_eq!(link["ifalias"], alias);
}

#[test]
fn a_refusal_carries_the_words_that_the_kernel_adds() {
    let hosts = Hosts::new();
    hosts.node.ip("link add veth0 type veth peer other");
    block_on(async {
        let settings = LinkSettings { mtu: Some(70_000), ..LinkSettings::default() };
        let change = Change::SetLink { link: by_name("veth0"), settings };
        let refusal = hosts.netlink_of_node().submit([change]).await.remove(0).unwrap_err();
        assert_eq!(refusal.text.as_deref(), Some("mtu greater than device maximum"));
        assert_eq!(
            refusal.to_string(),
            "set link veth0 mtu 70000: Invalid argument (os error 22): mtu greater than device maximum"
        );
    });
}

#[test]
fn a_link_that_is_not_there_is_none_and_cannot_be_deleted() {
    let hosts = Hosts::new();
    block_on(async {
        let netlink = hosts.netlink_of_node();
        assert_eq!(netlink.link(by_name("veth0")).await, Ok(None));
        assert_eq!(netlink.link(LinkRef::Index(4711)).await, Ok(None));
        let changes = [Change::DeleteLink(by_name("veth0")), Change::DeleteLinkGroup(4242)];
        for verdict in netlink.submit(changes).await {
            assert!(verdict.as_ref().unwrap_err().is_not_found(), "{verdict:?}");
        }
    });
}

#[test]
fn deleting_one_end_deletes_the_other() {
    let hosts = Hosts::new();
    block_on(async {
        let netlink = hosts.netlink_of_node();
        let changes = [Change::CreateVeth(hosts.pair("veth0", "eth0")), Change::DeleteLink(by_name("veth0"))];
        assert_eq!(netlink.submit(changes).await, [Ok(()), Ok(())]);
    });
    assert_eq!(ip::links(&hosts.node).len(), 1);
    assert_eq!(ip::links(&hosts.pod).len(), 1);
}

#[test]
fn one_message_deletes_the_pairs_of_a_group_alone() {
    let hosts = Hosts::new();
    hosts.node.ip("link add foreign type veth peer other");
    block_on(async {
        let netlink = hosts.netlink_of_node();
        let pairs = (0..16).map(|n| Change::CreateVeth(hosts.pair(&format!("veth{n}"), &format!("eth{n}"))));
        assert_eq!(netlink.submit(pairs).await, vec![Ok(()); 16]);
        assert_eq!(netlink.links().await.unwrap().iter().filter(|link| link.group == 4242).count(), 16);
        assert_eq!(submit_one(&netlink, Change::DeleteLinkGroup(4242)).await, Ok(()));
        // Everybody's group is not to be deleted by accident.
        let refusal = submit_one(&netlink, Change::DeleteLinkGroup(0)).await.unwrap_err();
        assert!(refusal.contains("Operation not permitted"), "{refusal}");
    });
    let names: Vec<_> = ip::links(&hosts.node).iter().map(|link| link["ifname"].clone()).collect();
    assert_eq!(names, ["lo", "other", "foreign"]);
    assert_eq!(ip::links(&hosts.pod).len(), 1);
}

#[test]
fn an_address_is_usable_at_once_and_reads_back_as_it_was_added() {
    let hosts = Hosts::new();
    block_on(async {
        let node = hosts.netlink_of_node();
        let pod = hosts.netlink_of_pod();
        assert_eq!(submit_one(&node, Change::CreateVeth(hosts.pair("veth0", "eth0"))).await, Ok(()));
        let index = ip::index(&hosts.pod, "eth0");
        let address = |text: &str| Address {
            device: index,
            network: text.parse().unwrap(),
            no_dad: text.contains(':'),
            no_prefix_route: true,
            of_link_only: text == "10.244.1.7/32",
        };
        let settings = LinkSettings { no_ipv6_link_local: true, ..LinkSettings::default() };
        let up = LinkSettings { up: Some(true), ..LinkSettings::default() };
        let (four, six) = (address("10.244.1.7/32"), address("fd00:10:244:1::7/128"));
        let verdicts = pod
            .submit([
                Change::SetLink { link: LinkRef::Index(index), settings },
                Change::SetLink { link: LinkRef::Index(index), settings: up.clone() },
                Change::AddAddress(four.clone()),
                Change::AddAddress(six.clone()),
                Change::AddAddress(four.clone()),
            ])
            .await;
        assert_eq!(verdicts[..4], [Ok(()), Ok(()), Ok(()), Ok(())]);
        assert!(verdicts[4].as_ref().unwrap_err().is_exists());
        let raised = Change::SetLink { link: by_name("veth0"), settings: up };
        assert_eq!(submit_one(&node, raised).await, Ok(()));
        assert_eq!(pod.addresses(Some(index)).await.unwrap(), [four.clone(), six]);
        assert_eq!(pod.addresses(Some(4711)).await.unwrap(), []);

        let found = ip::addresses(&hosts.pod, "eth0");
        assert_eq!(found.len(), 2, "no link-local address: {found:?}");
        assert_eq!((&found[0]["local"], &found[0]["prefixlen"]), (&json!("10.244.1.7"), &json!(32)));
        assert_eq!(found[1]["local"], "fd00:10:244:1::7");
        assert_eq!((&found[1]["nodad"], &found[1]["tentative"]), (&json!(true), &Value::Null));

        let gone = pod.submit([Change::DeleteAddress(four.clone()), Change::DeleteAddress(four)]).await;
        assert_eq!(gone[0], Ok(()));
        assert!(gone[1].as_ref().unwrap_err().is_not_found(), "{gone:?}");
        assert_eq!(pod.addresses(None).await.unwrap().len(), 1);
    });
    assert_eq!(ip::addresses(&hosts.pod, "eth0").len(), 1);
}

#[test]
fn a_neighbour_is_permanent_and_replaces_what_was_known() {
    let hosts = Hosts::new();
    hosts.node.ip("link add veth0 type veth peer veth1");
    hosts.node.ip("link set veth0 up");
    hosts.node.ip("neighbour add 10.1.1.1 lladdr 02:00:00:00:00:ff dev veth0 nud stale");
    hosts.node.ip("link set veth1 up");
    hosts.node.ip("neighbour add 10.1.1.2 lladdr 02:00:00:00:00:ff dev veth1 nud permanent");
    let index = ip::index(&hosts.node, "veth0");
    let addresses: [IpAddr; 2] = ["10.1.1.1".parse().unwrap(), "fe80::1".parse().unwrap()];
    block_on(async {
        let netlink = hosts.netlink_of_node();
        let add = addresses.map(|address| Change::AddNeighbour { index, address, mac: PEER_MAC });
        assert_eq!(netlink.submit(add.clone()).await, [Ok(()), Ok(())]);
        assert_eq!(netlink.submit(add).await, [Ok(()), Ok(())]);
        let mut found = netlink.neighbours(index).await.unwrap();
        found.retain(|neighbour| !neighbour.address.is_multicast());
        found.sort_by_key(|neighbour| neighbour.address);
        let expected = addresses.map(|address| Neighbour {
            index,
            address,
            mac: Some(PEER_MAC),
            reachability: Reachability::Permanent,
        });
        assert_eq!(found, expected);
        assert_eq!(netlink.neighbours(4711).await.unwrap(), []);
    });
    let of_veth0 = |found: Vec<Value>| -> Vec<(Value, Value, Value)> {
        let permanent = |entry: &Value| entry["state"] == json!(["PERMANENT"]) && entry["dev"] == "veth0";
        let fields = |entry: Value| (entry["dst"].clone(), entry["lladdr"].clone(), entry["dev"].clone());
        found.into_iter().filter(permanent).map(fields).collect()
    };
    let entry = |address: &str| (json!(address), json!("02:00:00:00:00:0b"), json!("veth0"));
    assert_eq!(of_veth0(ip::neighbours(&hosts.node)), [entry("10.1.1.1"), entry("fe80::1")]);
    block_on(async {
        let netlink = hosts.netlink_of_node();
        let delete = addresses.map(|address| Change::DeleteNeighbour { index, address });
        assert_eq!(netlink.submit(delete).await, [Ok(()), Ok(())]);
    });
    assert_eq!(of_veth0(ip::neighbours(&hosts.node)), []);
}

/// The soak's find: on a node full of pods that come and go no list of links is ever whole, and that was an error.
#[test]
fn links_that_stand_are_listed_however_many_come_and_go() {
    let node = Namespace::new("busy");
    let batch = |verb: &str, numbers: std::ops::Range<u32>| -> String {
        let words = |n| format!("link {verb} standing{n}a type veth peer name standing{n}b\n");
        numbers.map(words).collect()
    };
    node.ip_batch(&batch("add", 0..150));
    let coming = batch("add", 1_000..3_000);
    let mut lists = 0;
    std::thread::scope(|scope| {
        let busy = scope.spawn(|| node.ip_batch(&coming));
        block_on(async {
            let netlink = Netlink::open_in(&Netns::open(node.path()).unwrap()).unwrap();
            while !busy.is_finished() {
                let names: HashSet<String> =
                    netlink.links().await.unwrap().into_iter().map(|link| link.name).collect();
                let is_listed =
                    |n| names.contains(&format!("standing{n}a")) && names.contains(&format!("standing{n}b"));
                assert!((0..150).all(is_listed));
                lists += 1;
            }
        });
    });
    assert!(lists > 0, "all links came before the first list");
}
