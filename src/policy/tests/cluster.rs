//! Random clusters: few names, labels and addresses, so that everything meets everything.

use std::collections::BTreeMap;
use std::net::IpAddr;

use proptest::prelude::*;
use proptest::sample::select;

use crate::policy::cluster::object::*;
use crate::policy::object::*;
use crate::policy::planner::Planner;

#[derive(Debug, Clone, Default)]
pub struct Cluster {
    pub namespaces: Vec<Namespace>,
    /// Of this node, or of another one.
    pub pods: Vec<(bool, Pod)>,
    pub policies: Vec<Policy>,
    pub cluster_policies: Vec<ClusterPolicy>,
}

impl Cluster {
    /// A planner that has heard of all of it.
    pub fn planner(&self) -> Planner {
        let mut planner = Planner::new();
        list(&mut planner, Event::Policy, self.policies.clone());
        list(&mut planner, Event::ClusterPolicy, self.cluster_policies.clone());
        list(&mut planner, Event::Namespace, self.namespaces.clone());
        let own = self.pods.iter().filter(|(is_own, _)| *is_own).map(|(_, pod)| pod.clone());
        list(&mut planner, Event::OwnPod, own.collect());
        list(&mut planner, Event::AnyPod, self.pods.iter().map(|(_, pod)| pod.clone()).collect());
        assert!(planner.is_complete());
        planner
    }
}

pub fn list<T>(planner: &mut Planner, event: impl Fn(Feed<T>) -> Event, objects: Vec<T>) {
    planner.apply(event(Feed::ListBegins));
    objects.into_iter().for_each(|it| planner.apply(event(Feed::Listed(it))));
    planner.apply(event(Feed::ListEnds));
}

pub fn object_name(namespace: &str, name: &str) -> ObjectName {
    ObjectName { namespace: namespace.into(), name: name.into() }
}

pub const NAMESPACES: &[&str] = &["a", "b", "c"];

fn labels() -> impl Strategy<Value = BTreeMap<String, String>> {
    let label = (select(vec!["app", "role"]), select(vec!["", "web", "db"]));
    prop::collection::vec(label, 0..3)
        .prop_map(|it| it.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect())
}

pub fn namespace() -> impl Strategy<Value = Namespace> {
    (select(NAMESPACES), labels()).prop_map(|(name, labels)| Namespace { name: name.into(), labels })
}

fn requirement() -> impl Strategy<Value = Requirement> {
    let operator = select(vec!["In", "NotIn", "Exists", "DoesNotExist"]);
    let values = prop::collection::vec(select(vec!["", "web", "db"]), 1..3);
    (select(vec!["app", "role", "ap"]), operator, values).prop_map(|(key, operator, values)| Requirement {
        key: key.into(),
        operator: operator.into(),
        values: if operator.ends_with("In") {
            values.into_iter().map(str::to_owned).collect()
        } else {
            vec![]
        },
    })
}

pub fn selector() -> impl Strategy<Value = LabelSelector> {
    prop_oneof![
        Just(LabelSelector::default()),
        labels().prop_map(|match_labels| LabelSelector { match_labels, match_expressions: vec![] }),
        prop::collection::vec(requirement(), 1..3)
            .prop_map(|it| LabelSelector { match_labels: BTreeMap::new(), match_expressions: it }),
        (labels(), requirement())
            .prop_map(|(match_labels, it)| LabelSelector { match_labels, match_expressions: vec![it] }),
    ]
}

/// Pod `n`: its addresses are its own, but for what `shared` says.
pub fn pod(n: u8) -> impl Strategy<Value = Pod> {
    let port = (select(vec!["http", "dns"]), select(vec![6_u8, 17]), select(vec![80_u16, 8080, 53]));
    let ports = prop::collection::vec(port, 0..3);
    (select(NAMESPACES), labels(), ports, 0_u8..8, 0_u8..10).prop_map(move |it| {
        let (namespace, labels, ports, families, host) = it;
        let v4 = IpAddr::from([10, 0, 0, n]);
        let v6: IpAddr = format!("fd00::{n:x}").parse().unwrap();
        let addresses = match families {
            0 => vec![],
            1 => vec![v4],
            2 => vec![v6],
            _ => vec![v4, v6],
        };
        let port = |(name, protocol, port): (&str, u8, u16)| NamedPort { name: name.into(), protocol, port };
        Pod {
            // Names by which pods share their first part, and others.
            name: object_name(
                namespace,
                &if n.is_multiple_of(2) { format!("web-{n}") } else { format!("pod{n}") },
            ),
            uid: format!("uid-{n}"),
            labels,
            addresses,
            ports: ports.into_iter().map(port).collect(),
            host_network: host == 0,
        }
    })
}

fn ip_block() -> impl Strategy<Value = IpBlock> {
    let block = |cidr: &str, except: &[&str]| IpBlock {
        cidr: cidr.into(),
        except: except.iter().map(|it| (*it).to_owned()).collect(),
    };
    select(vec![
        block("0.0.0.0/0", &[]),
        block("0.0.0.0/0", &["10.0.0.0/8", "192.0.2.7/32"]),
        block("::/0", &["fd00::/125"]),
        block("10.0.0.3/30", &["10.0.0.1/32"]),
        block("10.0.0.0/29", &["10.0.0.0/31", "10.0.0.2/31"]),
        block("10.0.0.4/30", &[]),
        block("192.0.2.0/24", &["192.0.2.0/25", "192.0.2.128/25"]),
        block("fd00::4/126", &["fd00::5/128"]),
        block("2001:db8::7/128", &[]),
    ])
}

fn peer() -> impl Strategy<Value = Peer> {
    prop_oneof![
        2 => selector().prop_map(|it| Peer { pod_selector: Some(it), ..Peer::default() }),
        1 => selector().prop_map(|it| Peer { namespace_selector: Some(it), ..Peer::default() }),
        1 => (selector(), selector()).prop_map(|(pods, namespaces)| Peer {
            pod_selector: Some(pods), namespace_selector: Some(namespaces), ip_block: None,
        }),
        2 => ip_block().prop_map(|it| Peer { ip_block: Some(it), ..Peer::default() }),
    ]
}

fn port() -> impl Strategy<Value = Port> {
    let protocol = prop::option::of(select(vec!["TCP", "UDP", "SCTP"]));
    let number = prop_oneof![
        1 => Just((None, None)),
        2 => select(vec!["http", "dns", "none"]).prop_map(|it| (Some(NumberOrName::Name(it.into())), None)),
        2 => select(vec![53, 80, 8080]).prop_map(|it| (Some(NumberOrName::Number(it)), None)),
        2 => (select(vec![1, 53, 79, 80]), select(vec![80, 81, 8080, 65535]))
            .prop_map(|(first, last)| (Some(NumberOrName::Number(first)), Some(last))),
    ];
    (protocol, number).prop_map(|(protocol, (port, end_port))| Port {
        protocol: protocol.map(str::to_owned),
        port,
        end_port,
    })
}

fn rule() -> impl Strategy<Value = Rule> {
    // Many peers now and then: more than one port takes without a union.
    let peers =
        prop_oneof![9 => prop::collection::vec(peer(), 0..3), 1 => prop::collection::vec(peer(), 8..16)];
    let ports = prop_oneof![2 => Just(vec![]), 3 => prop::collection::vec(port(), 1..4)];
    (peers, ports).prop_map(|(peers, ports)| Rule { peers, ports })
}

/// Policy `n` of its namespace. One of twenty cannot be compiled if `invalid` says so.
pub fn policy(invalid: bool) -> impl Strategy<Value = Policy> {
    let types = select(vec![&[][..], &[], &["Ingress"], &["Egress"], &["Ingress", "Egress"]]);
    let rules = || prop::collection::vec(rule(), 0..3);
    let spec = (selector(), types, rules(), rules(), 0_u8..20);
    (select(NAMESPACES), 0_u8..4, spec).prop_map(move |(namespace, n, spec)| {
        let (pod_selector, types, ingress, egress, luck) = spec;
        let policy_types = types.iter().map(|it| (*it).to_owned()).collect();
        let mut spec = PolicySpec { pod_selector, policy_types, ingress, egress };
        if invalid && luck == 0 {
            let block = IpBlock { cidr: "nonsense".into(), except: vec![] };
            let peer = Peer { ip_block: Some(block), ..Peer::default() };
            spec.ingress.push(Rule { peers: vec![peer], ports: vec![] });
        }
        Policy { name: object_name(namespace, &format!("np{n}")), spec }
    })
}

pub fn cluster() -> impl Strategy<Value = Cluster> {
    let pods: Vec<_> = (0..8).map(|n| (any::<bool>(), pod(n))).collect();
    let policies = prop::collection::vec(policy(false), 0..5);
    let of_cluster =
        prop_oneof![Just(Vec::new()), prop::collection::vec(super::tiers::cluster_policy(), 1..5),];
    (prop::collection::vec(namespace(), 3..4), pods, policies, of_cluster).prop_map(
        |(mut namespaces, pods, mut policies, mut cluster_policies)| {
            // All of them are known; one by one by its name.
            for (namespace, name) in namespaces.iter_mut().zip(NAMESPACES) {
                namespace.name = (*name).to_owned();
            }
            policies.sort_by(|a, b| a.name.cmp(&b.name));
            policies.dedup_by(|a, b| a.name == b.name);
            cluster_policies.sort_by(|a, b| a.name.cmp(&b.name));
            cluster_policies.dedup_by(|a, b| a.name == b.name);
            Cluster { namespaces, pods, policies, cluster_policies }
        },
    )
}
