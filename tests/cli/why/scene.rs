//! Two nodes with pods, on one switch, which is the world outside as well; and both halves of an answer, joined.

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use ferrule::config::peer::Peer;
use ferrule::connectivity::answer::{Answer, Document, Verdict};
use ferrule::connectivity::half::{Half, Kind, State};
use ferrule::connectivity::join::join;
use ferrule::connectivity::question::{End, EndKind, NodeRef, Protocol, Question};
use ferrule::datapath::nftables;
use ferrule::datapath::overlay::{self, Settings};
use ferrule::datapath::peers;
use ferrule::desired::nftables::element::NoMasquerade;
use ferrule::desired::overlay::{DEFAULT_ID, DEFAULT_PORT, Routing};
use ferrule::linux::netlink::Netlink;
use ferrule::linux::nfnetlink::Nfnetlink;
use serde_json::{Value, json};

use crate::cli::{install, verb};
use crate::overlay::world::state_of;
use kit::block_on;
use kit::netns::{Namespace, inside};
use kit::node::Node;
use kit::packets::answers_ping_at_once;
use kit::pod::{Pod, addresses_of};
use kit::traffic::{BRIEF, Server, tcp};
use kit::underlay::Underlay;

/// Where servers listen.
pub const PORT: u16 = 8080;

/// The switch's addresses: a host outside of the cluster.
pub const OUTSIDE: [&str; 2] = ["192.168.77.1", "fd77::1"];

/// Nodes 0 and 1, with pods.
pub struct Scene {
    pub underlay: Underlay,
    pub pods: Vec<Placed>,
    _servers: Vec<Server>,
}

/// A pod, and where it is.
pub struct Placed {
    pub name: String,
    pub node: usize,
    pub pod: Pod,
    pub result: Value,
}

impl Scene {
    /// With `client` and `near` on node 0 and `web` on node 1, all of them servers.
    pub fn new(routing: Routing) -> Self {
        let underlay = Underlay::new(2);
        underlay
            .switch
            .ip_batch("address add 192.168.77.1/24 dev br0\naddress add fd77::1/64 dev br0 nodad\n");
        for node in &underlay.nodes {
            node.namespace().ip_batch("route add default via 192.168.77.1\nroute add default via fd77::1\n");
            node.namespace().set_sysctl("net/ipv4/conf/all/rp_filter", "0");
        }
        let mut scene = Self { underlay, pods: Vec::new(), _servers: Vec::new() };
        for n in 0..2 {
            let conf = scene.conf(n, routing);
            install(scene.node(n), "10-ferrule.conflist", &conf);
        }
        for (name, node) in [("client", 0), ("near", 0), ("web", 1)] {
            scene.add(name, node, routing, &json!({}));
        }
        if routing == Routing::Vxlan {
            (0..2).for_each(|n| scene.tunnel(n));
        }
        let mut servers: Vec<Server> =
            scene.pods.iter().map(|it| Server::tcp(it.pod.namespace(), PORT, &it.name)).collect();
        servers.extend(scene.underlay.nodes.iter().map(|it| Server::tcp(it.namespace(), PORT, "node")));
        servers.push(Server::tcp(&scene.underlay.switch, PORT, "outside"));
        Self { _servers: servers, ..scene }
    }

    pub fn node(&self, n: usize) -> &Node {
        &self.underlay.nodes[n]
    }

    /// The network namespace of node `n`.
    pub fn on(&self, n: usize) -> &Namespace {
        self.node(n).namespace()
    }

    pub fn conf(&self, n: usize, routing: Routing) -> Value {
        let subnets = |n: usize| [format!("10.88.{n}.0/24"), format!("fd00:88:{n}::/64")];
        let [four, six] = subnets(n);
        let mut conf = self.node(n).conf_with(json!([[{ "subnet": four }], [{ "subnet": six }]]));
        conf["nodeIPs"] = json!(node_addresses(n));
        conf["ipMasq"] = json!(true);
        let other = 1 - n;
        conf["peers"] = if routing == Routing::Vxlan {
            json!("agent")
        } else {
            json!([{ "node": format!("node-{other}"), "podCIDRs": subnets(other), "nodeIPs": node_addresses(other) }])
        };
        if routing == Routing::Vxlan {
            conf["mtu"] = json!(1450);
        }
        conf
    }

    /// ADD of a pod of the namespace `shop`, with `more` in its conf.
    pub fn add(&mut self, name: &str, node: usize, routing: Routing, more: &Value) {
        let pod = Pod::new(name);
        let mut conf = self.conf(node, routing);
        for (key, value) in more.as_object().unwrap() {
            conf[key] = value.clone();
        }
        let uid = crate::cli::policy::uid(name);
        let args = format!("K8S_POD_NAMESPACE=shop;K8S_POD_NAME={name};K8S_POD_UID={uid}");
        let result = self.node(node).call_for("ADD", &pod, &conf).args(args).run().result();
        self.pods.push(Placed { name: name.to_owned(), node, pod, result });
    }

    /// What an agent does on node `n`.
    fn tunnel(&self, n: usize) {
        let peer = |n: usize| Peer {
            node: format!("node-{n}"),
            pod_cidrs: vec![
                format!("10.88.{n}.0/24").parse().unwrap(),
                format!("fd00:88:{n}::/64").parse().unwrap(),
            ],
            node_ips: node_addresses(n).iter().map(|it| it.parse().unwrap()).collect(),
        };
        let state = state_of(peer(n), vec![peer(1 - n)]);
        let settings = Settings { id: DEFAULT_ID, port: DEFAULT_PORT, mtu: None };
        inside(self.on(n), || {
            block_on(async {
                let netlink = Netlink::open_here().unwrap();
                let ways = overlay::ways(&netlink, &state, Routing::Vxlan).await.unwrap();
                let wanted =
                    overlay::describe(&netlink, &state, &ways, settings, false).await.unwrap().unwrap();
                overlay::keep(&netlink, &wanted).await.unwrap();
                peers::synchronise_with(&netlink, &state, &wanted).await.unwrap();
                let networks = (0..2).flat_map(|n| {
                    let it = peer(n);
                    it.node_ips.into_iter().map(Into::into).chain(it.pod_cidrs).collect::<Vec<_>>()
                });
                let exempt = NoMasquerade { network: state.network.clone(), networks: networks.collect() };
                let nft = Nfnetlink::open_here().unwrap();
                nftables::ensure_no_masquerade(&nft, &exempt).await.unwrap();
            });
        });
    }

    pub fn find(&self, name: &str) -> &Placed {
        self.pods.iter().find(|it| it.name == name).expect("a pod of the scene")
    }

    pub fn pod(&self, name: &str) -> &Namespace {
        self.find(name).pod.namespace()
    }

    /// An end by its name: `client`, `node-1`, `outside`.
    pub fn end(&self, name: &str) -> End {
        let node = |n: usize| NodeRef { name: format!("node-{n}"), addresses: parse(&node_addresses(n)) };
        match name {
            "outside" => End {
                name: name.into(),
                kind: EndKind::Address,
                addresses: OUTSIDE.iter().map(|it| it.parse().unwrap()).collect(),
                node: None,
            },
            _ if name.starts_with("node-") => {
                let n = name[5..].parse().unwrap();
                End {
                    name: name.into(),
                    kind: EndKind::Node,
                    addresses: node(n).addresses,
                    node: Some(node(n)),
                }
            }
            _ => {
                let placed = self.find(name);
                End {
                    name: format!("shop/{name}"),
                    kind: EndKind::Pod,
                    addresses: parse(&addresses_of(&placed.result)),
                    node: Some(node(placed.node)),
                }
            }
        }
    }

    pub fn question(&self, from: &str, to: &str, ipv4: bool) -> Question {
        let of_family = |mut end: End| {
            end.addresses.retain(|it| it.is_ipv4() == ipv4);
            end
        };
        Question {
            source: of_family(self.end(from)),
            destination: of_family(self.end(to)),
            protocol: Protocol::Tcp,
            port: PORT,
            endpoints: vec![],
        }
    }

    /// What the nodes of both ends say of a question, each once.
    pub fn halves(&self, question: &Question) -> Vec<Half> {
        let mut nodes: Vec<usize> = Vec::new();
        for end in [&question.source, &question.destination] {
            let n = end.node.as_ref().map(|node| node.name[5..].parse().unwrap());
            nodes.extend(n.filter(|n| !nodes.contains(n)));
        }
        nodes.into_iter().flat_map(|n| self.ask(n, question).halves).collect()
    }

    /// What one node says.
    pub fn ask(&self, n: usize, question: &Question) -> Document {
        let text = serde_json::to_string(question).unwrap();
        let call = verb(self.node(n), "why --output json").argument("--question").argument(text);
        let answer = call.run();
        let text = String::from_utf8_lossy(&answer.stdout);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {answer:?}"))
    }

    /// The answer of both nodes together.
    pub fn why(&self, from: &str, to: &str, ipv4: bool) -> Answer {
        let question = self.question(from, to, ipv4);
        join(&question, &self.halves(&question))
    }

    /// Where the packets of an end come from.
    pub fn place(&self, name: &str) -> &Namespace {
        match name {
            "outside" => &self.underlay.switch,
            _ if name.starts_with("node-") => self.on(name[5..].parse().unwrap()),
            _ => self.pod(name),
        }
    }

    /// Whether a connection succeeds.
    pub fn connects(&self, from: &str, to: &str, ipv4: bool) -> bool {
        let address = self.end(to).address(ipv4).unwrap();
        connects_to(self.place(from), address, PORT)
    }

    /// The fault is one, and is named: by its kind, and with these words.
    pub fn expect_broken(&self, from: &str, to: &str, kind: Kind, words: &[&str]) {
        self.expect_broken_by(true, from, to, kind, words);
    }

    /// The same of one family.
    pub fn expect_broken_by(&self, ipv4: bool, from: &str, to: &str, kind: Kind, words: &[&str]) {
        assert!(!self.connects(from, to, ipv4), "{from} reaches {to}: this is no fault");
        let answer = self.why(from, to, ipv4);
        assert_eq!(answer.verdict, Verdict::Broken, "{answer:#?}");
        let broken: Vec<_> =
            answer.flows[0].steps.iter().filter(|it| it.step.state == State::Broken).collect();
        assert_eq!(broken[0].step.kind, kind, "{answer:#?}");
        for word in words {
            assert!(answer.sentence.contains(word), "{word}: {}", answer.sentence);
        }
        assert!(answer.remedy.as_ref().is_some_and(|it| !it.is_empty()), "{answer:#?}");
    }

    /// It works, and nothing else is said.
    pub fn expect_well(&self, from: &str, to: &str, ipv4: bool) {
        let address = self.end(to).address(ipv4).unwrap().to_string();
        assert!(tcp(self.place(from), &address, PORT).is_some(), "{from} does not reach {to} ({address})");
        let answer = self.why(from, to, ipv4);
        let wanted = if from == "outside" || to == "outside" { Verdict::Unknown } else { Verdict::Works };
        assert_eq!(answer.verdict, wanted, "{answer:#?}");
        for it in &answer.flows[0].steps {
            let is_beyond = it.step.kind == Kind::Beyond;
            assert_eq!(it.step.state == State::Ok, !is_beyond, "{from} {to}: {it:#?}");
        }
    }
}

/// Whether somebody answers.
pub fn connects_to(from: &Namespace, address: IpAddr, port: u16) -> bool {
    let to = SocketAddr::new(address, port);
    inside(from, || TcpStream::connect_timeout(&to, BRIEF.max(Duration::from_secs(1))).is_ok())
}

/// Whether an echo request is answered.
pub fn pings(from: &Namespace, end: &End) -> bool {
    answers_ping_at_once(from, &end.address(true).unwrap().to_string())
}

pub fn node_addresses(n: usize) -> [String; 2] {
    [format!("192.168.77.1{n}"), format!("fd77::1{n}")]
}

fn parse(addresses: &[String]) -> Vec<IpAddr> {
    addresses.iter().map(|it| it.parse().unwrap()).collect()
}
