//! A node with one pod, whose network has everything that ferrule makes, and a picture of all that is there.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::{Value, json};

use kit::answer::Answer;
use kit::call::Call;
use kit::netns::Namespace;
use kit::node::Node;
use kit::pod::{Pod, addresses_of, host_link_of};
use kit::process::run_in;

/// What is there, a line each, in words that are the same whichever addresses the pod was given.
pub type Picture = BTreeSet<String>;

/// A hostPort of the pod's; the other is one above.
const HOST_PORT: u16 = 1000;

/// What an ADD makes, by words of the lines that tell of it.
const KINDS: [&str; 16] = [
    "alias ferrule:",
    "ifb",
    "<address 0> dev veth",
    "<address 1> dev veth",
    "PERMANENT",
    "qdisc tbf",
    "mirred",
    "rp_filter",
    "route_localnet",
    "udp . 1000",
    "tcp . 1001",
    "by-id",
    "by-ip",
    "pod: default via 169.254.1.1",
    "pod: default via fe80::1",
    "pod: eth0 inet6 <address 1>",
];

/// Stands in a picture for somebody who talks to it.
const FLOW: &str = "flow to a hostPort";

/// The node, its pod, and how both look when all is well.
pub struct Host {
    node: Node,
    pod: Pod,
    neighbour: Option<Pod>,
    conf: Value,
    /// With the pod attached.
    whole: Picture,
    /// After the pod has gone.
    bare: Picture,
    /// What of that is the neighbour's.
    neighbours: Picture,
}

impl Host {
    /// Where ferrule is the main plugin: two families, masquerade, two hostPorts, bandwidth both ways, a peer.
    pub fn new() -> Self {
        let node = Node::new();
        let mut conf =
            node.conf_with(json!([[{ "subnet": "10.88.0.0/20" }], [{ "subnet": "fd00:88::/64" }]]));
        conf["ipMasq"] = json!(true);
        conf["nodeIPs"] = json!(["198.18.0.2", "fd00:18::2"]);
        conf["peers"] = json!([{
            "node": "peer", "podCIDRs": ["10.88.16.0/20", "fd00:88:1::/64"], "nodeIPs": ["198.18.0.3", "fd00:18::3"],
        }]);
        conf["runtimeConfig"] = json!({
            "portMappings": [
                { "hostPort": HOST_PORT, "containerPort": 80, "protocol": "udp" },
                { "hostPort": HOST_PORT + 1, "containerPort": 80, "protocol": "tcp" },
            ],
            "bandwidth": {
                "ingressRate": 8_000_000, "ingressBurst": 80_000, "egressRate": 8_000_000, "egressBurst": 80_000,
            },
        });
        Self::with(node, conf)
    }

    /// The same beside a pod that stays, whatever becomes of the other.
    pub fn with_neighbour() -> Self {
        let mut host = Self::new();
        let neighbour = Pod::new("neighbour");
        let mut conf = host.conf.clone();
        conf["runtimeConfig"] = json!({});
        let result = host.node.add(&neighbour, &conf);
        let names = [neighbour.container().to_owned(), host_link_of(&result)];
        host.neighbour = Some(neighbour);
        host.bare = Picture::new();
        host.pose();
        let is_neighbours = |line: &&String| names.iter().any(|name| line.contains(name));
        host.neighbours = host.bare.iter().filter(is_neighbours).cloned().collect();
        assert!(host.neighbours.len() > 10, "{:#?}", host.neighbours);
        host
    }

    /// Where it is the IPAM plugin of another.
    pub fn for_ipam() -> Self {
        let node = Node::new();
        let mut conf =
            node.conf_with(json!([[{ "subnet": "10.88.0.0/20" }], [{ "subnet": "fd00:88::/64" }]]));
        conf["type"] = json!("ptp");
        Self::with(node, conf)
    }

    fn with(node: Node, conf: Value) -> Self {
        let pod = Pod::new("pod");
        let mut host = Self {
            node,
            pod,
            neighbour: None,
            conf,
            whole: Picture::new(),
            bare: Picture::new(),
            neighbours: Picture::new(),
        };
        host.make_new();
        host.pose();
        // A node on which ferrule never was is as bare.
        host.make_new();
        let new = host.picture(&[]);
        host.bare.extend(new);
        host
    }

    /// Takes the pictures.
    fn pose(&mut self) {
        let result = self.call("ADD").run().result();
        self.whole = self.still_picture(&addresses_of(&result));
        self.call("DEL").run().success();
        let bare = self.still_picture(&[]);
        self.bare.extend(bare);
        // What is in no picture can be missing, or left, without anybody's noticing.
        let kinds: &[&str] = if self.is_ipam() { &["by-id", "by-ip"] } else { &KINDS };
        for kind in kinds {
            let counts =
                [&self.whole, &self.bare].map(|it| it.iter().filter(|line| line.contains(kind)).count());
            assert!(counts[0] > counts[1], "{kind}: {counts:?} of {:#?}", self.whole);
        }
    }

    /// Whether ferrule gives addresses to another main plugin here.
    pub fn is_ipam(&self) -> bool {
        self.conf["type"] != "ferrule"
    }

    /// The picture as soon as three in a row are the same: the kernel does some things after its answer.
    fn still_picture(&self, addresses: &[String]) -> Picture {
        let mut last = (self.picture(addresses), 1);
        for _ in 0..50 {
            let next = self.picture(addresses);
            last = if next == last.0 { (next, last.1 + 1) } else { (next, 1) };
            if last.1 == 3 {
                return last.0;
            }
        }
        panic!("the node does not come to rest: {:#?}", last.0)
    }

    /// A command, complete.
    pub fn call(&self, command: &str) -> Call {
        let call = self.node.call_for(command, &self.pod, &self.conf);
        match command {
            "GC" | "STATUS" => self.node.call(command, &self.conf),
            _ => call,
        }
    }

    /// A command with more in its conf.
    pub fn call_with(&self, command: &str, key: &str, value: Value) -> Call {
        let mut conf = self.conf.clone();
        conf[key] = value;
        self.call(command).conf(&conf)
    }

    /// A GC to which the pod is not valid.
    pub fn collect_garbage(&self) -> Call {
        let attachment = |pod: &Pod| json!({ "containerID": pod.container(), "ifname": "eth0" });
        let valid: Value = self.neighbour.iter().map(attachment).collect();
        self.call_with("GC", "cni.dev/valid-attachments", valid)
    }

    /// Complains unless an ADD says that the pod is attached already, or attaches it.
    pub fn expect_usable(&self) -> Result<(), String> {
        let added = self.call("ADD").run();
        let outcome = match expect_an_answer(&added)? {
            Some(error) if error["code"] == 101 => Ok(()),
            Some(result) if added.status.success() => self.expect_whole(&result),
            _ => Err(String::new()),
        };
        outcome.map_err(|it| format!("the ADD after: {added:?}: {it}"))
    }

    /// Where strace writes.
    pub fn scratch(&self) -> &std::path::Path {
        self.node.scratch().path()
    }

    /// Somebody talks to the pod's UDP hostPort, so that the kernel remembers the flow.
    pub fn send_to_host_port(&self) {
        let talk = format!("echo hello >/dev/udp/198.18.0.2/{HOST_PORT}");
        run_in(self.node.outside(), "bash", ["-c", &talk], "").expect("a datagram");
    }

    /// The node as one on which ferrule never was.
    pub fn make_new(&self) {
        let script = "nft delete table inet ferrule 2>/dev/null
            ip -4 route flush table all proto 102; ip -6 route flush table all proto 102
            echo 0 >/proc/sys/net/ipv4/ip_forward; echo 0 >/proc/sys/net/ipv6/conf/all/forwarding";
        run(self.node.namespace(), script);
        let _ = std::fs::remove_dir_all(self.node.data_dir());
    }

    /// Complains of everything that is there beside what belongs to the node.
    pub fn expect_bare(&self) -> Result<(), String> {
        soon(|| self.is_bare())
    }

    fn is_bare(&self) -> Result<(), String> {
        let now = self.picture(&[]);
        // Of the table only what is some pod's: it keeps what the network has, and an ADD that failed may have come
        // half-way with that.
        let is_networks =
            |line: &&String| line.contains("comment \"podnet ") && !line.contains(self.pod.container());
        let left: Vec<&String> = now.difference(&self.bare).filter(|line| !is_networks(line)).collect();
        let hurt: Vec<&String> = self.neighbours.difference(&now).collect();
        match (left.is_empty(), hurt.is_empty()) {
            (true, true) => Ok(()),
            (false, _) => Err(format!("left behind: {left:#?}")),
            (true, false) => Err(format!("the neighbour lost {hurt:#?}")),
        }
    }

    /// Complains of everything that the pod of this result lacks, or has too much.
    pub fn expect_whole(&self, result: &Value) -> Result<(), String> {
        soon(|| self.is_whole(result))
    }

    fn is_whole(&self, result: &Value) -> Result<(), String> {
        let now = self.picture(&addresses_of(result));
        // The boot file only spares the next command work.
        let is_needed = |line: &&String| !line.ends_with("/podnet/boot");
        let lacks: Vec<&String> = self.whole.difference(&now).filter(is_needed).collect();
        let is_traffic = |line: &&String| *line == FLOW;
        let extra: Vec<&String> = now.difference(&self.whole).filter(|line| !is_traffic(line)).collect();
        match (lacks.is_empty(), extra.is_empty()) {
            (true, true) => Ok(()),
            _ => Err(format!("lacks {lacks:#?}, has beside {extra:#?}")),
        }
    }

    /// All that is there now, as other programs see it.
    pub fn picture(&self, addresses: &[String]) -> Picture {
        let script = format!(
            "{{ ip -d -o link show; ip -o -4 route show table all; ip -o -6 route show table all; ip neigh show nud permanent; }} \
                | grep -E 'proto 102|: (veth|ifb)[0-9a-f]{{11}}[@:]|PERMANENT'
            tc qdisc show
            for link in $(ls /sys/class/net/ | grep '^veth'); do tc filter show dev $link parent ffff:; done
            nft --stateless list table inet ferrule 2>/dev/null
            conntrack -L -p udp --orig-port-dst {HOST_PORT} 2>/dev/null | sed 's/.*dport={HOST_PORT}.*/{FLOW}/'
            cd /proc/sys/net
            grep -sH '' ipv4/ip_forward ipv6/conf/all/forwarding ipv?/conf/veth*/rp_filter ipv?/conf/veth*/accept_ra \
                ipv?/conf/veth*/route_localnet ipv?/conf/veth*/accept_redirects ipv?/conf/veth*/addr_gen_mode
            cd {data} 2>/dev/null && find . -name cooldown -prune -o -print
            cd {data}/podnet 2>/dev/null && grep -sH '' inside changed
            ip=\"ip -n {pod} -o\"
            {{ $ip -d address show; $ip -4 route show table all; $ip -6 route show table all; $ip neigh show nud permanent; }} \
                | sed 's/^/pod: /'
            ip netns exec {pod} grep -sH '' /proc/sys/net/ipv6/conf/eth0/accept_ra /proc/sys/net/ipv6/conf/eth0/disable_ipv6",
            data = self.node.data_dir().display(),
            pod = self.pod.namespace().name(),
        );
        let text = run(self.node.namespace(), &script);
        text.lines().map(|line| same_words(line, addresses)).filter(|line| !line.is_empty()).collect()
    }
}

/// Without numbers of links and handles, which are others each time, and with names for the pod's addresses.
fn same_words(line: &str, addresses: &[String]) -> String {
    // The number of an action, and how often it is used.
    if line.trim_start().starts_with("index ") {
        return String::new();
    }
    let mut words: Vec<String> = Vec::new();
    for word in line.split_whitespace() {
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let is_handle =
            |text: &str| text.strip_suffix(':').is_some_and(|it| it.bytes().all(|b| b.is_ascii_hexdigit()));
        if is_number(word.trim_end_matches(':')) && words.is_empty() || is_handle(word) {
            continue;
        }
        // Nobody asks for an address of an ifb link, so the kernel rolls dice.
        if line.contains(": ifb") && words.last().is_some_and(|it| it == "link/ether") {
            continue;
        }
        let word = word.split_once("@if").map_or(word, |(name, _)| name);
        words.push(word.to_owned());
    }
    let mut line = words.join(" ");
    // Elements of a set, each a line of its own.
    for ornament in ["elements = { ", " }", ","] {
        line = line.strip_prefix(ornament).or(line.strip_suffix(ornament)).map(str::to_owned).unwrap_or(line);
    }
    for (n, address) in addresses.iter().enumerate() {
        line = replace_whole(&line, address, &format!("<address {n}>"));
    }
    line
}

/// Replaces `from` where it is not a part of a longer address.
fn replace_whole(line: &str, from: &str, to: &str) -> String {
    let mut done = String::new();
    let mut rest = line;
    while let Some(at) = rest.find(from) {
        let (before, after) = (&rest[..at], &rest[at + from.len()..]);
        let goes_on = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_hexdigit());
        let is_part = goes_on(before.bytes().last()) || goes_on(after.bytes().next());
        done.push_str(before);
        done.push_str(if is_part { from } else { to });
        rest = after;
    }
    done + rest
}

/// What the kernel does after its answer, on a queue of work, is done a few looks later.
fn soon(look: impl Fn() -> Result<(), String>) -> Result<(), String> {
    (0..10).find_map(|_| look().ok()).map_or_else(look, Ok)
}

fn run(namespace: &Namespace, script: &str) -> String {
    // `ip netns exec` mounts the namespace's own /sys.
    let output = Command::new("ip").args(["netns", "exec", namespace.name(), "sh", "-c", script]).output();
    String::from_utf8_lossy(&output.expect("ip netns exec").stdout).into_owned()
}

/// That a command ended as one that says what it did: a success, or one error in JSON.
pub fn expect_an_answer(answer: &Answer) -> Result<Option<Value>, String> {
    let document = match answer.stdout.is_empty() {
        true => None,
        false => Some(
            serde_json::from_slice::<Value>(&answer.stdout)
                .map_err(|it| format!("stdout: {it}: {answer:?}"))?,
        ),
    };
    match (answer.status.code(), &document) {
        (Some(0), _) => Ok(document),
        (Some(1), Some(error)) if error["code"].is_u64() && error["msg"].is_string() => Ok(document),
        _ => Err(format!("neither a success nor an error in JSON: {answer:?}")),
    }
}
