//! Many commands at once, some of them killed: what must hold whatever happens (DESIGN, section 1, promise 5).
//!
//! Random, but told: a test that fails prints its seed, and FERRULE_STORM_SEED runs it again with that one.

mod killed;
mod same_id;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::SystemTime;

use serde_json::{Value, json};

use crate::harness::answer::Answer;
use crate::harness::call::Call;
use crate::harness::ip;
use crate::harness::netns::Namespace;
use crate::harness::node::Node;
use crate::harness::store::Store;

/// A small generator (splitmix64), so that a seed is all there is to know.
struct Random(u64);

impl Random {
    /// From the environment, else the clock. The seed is printed, which the test harness shows on a failure.
    #[expect(clippy::print_stderr, reason = "the test runner shows it if the test fails")]
    fn seeded() -> Self {
        let given = std::env::var("FERRULE_STORM_SEED").ok().and_then(|text| text.parse().ok());
        let clock =
            || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().subsec_nanos().into();
        let seed = given.unwrap_or_else(clock);
        eprintln!("again with FERRULE_STORM_SEED={seed}");
        Self(seed)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

/// A network on one node, with room for a few more pods than the storm makes.
struct Stormnet {
    node: Node,
    conf: Value,
    families: usize,
}

impl Stormnet {
    /// With IPv4, and IPv6 if `families` is 2.
    fn new(families: usize) -> Self {
        let node = Node::bare("storm");
        node.namespace().ip_batch(
            "link add up0 type veth peer up1\nlink set up1 up\nlink set up0 up\n\
             address add 192.168.5.1/24 dev up0\naddress add fd05::1/64 dev up0 nodad\n",
        );
        let ranges = [json!([{ "subnet": "10.245.0.0/24" }]), json!([{ "subnet": "fd00:245::/64" }])];
        let routes = [json!({ "dst": "0.0.0.0/0" }), json!({ "dst": "::/0" })];
        let conf = json!({
            "cniVersion": "1.1.0",
            "name": "stormnet",
            "type": "ferrule",
            "ipam": {
                "type": "ferrule",
                "ranges": ranges[..families],
                "routes": routes[..families],
                "dataDir": node.data_dir(),
            },
        });
        Self { node, conf, families }
    }

    /// A call for `container`, in whatever namespace: the runtimes of a storm forget which was whose.
    fn call(&self, command: &str, container: &str, pod: &Namespace) -> Call {
        self.node.call(command, &self.conf).attachment(container, pod.path())
    }

    fn run(&self, command: &str, container: &str, pod: &Namespace) -> Answer {
        self.call(command, container, pod).run()
    }

    /// GC with these as the valid ones. Must succeed.
    fn collect_garbage(&self, valid: &[String]) {
        let mut conf = self.conf.clone();
        conf["cni.dev/valid-attachments"] =
            valid.iter().map(|id| json!({ "containerID": id, "ifname": "eth0" })).collect();
        self.node.call("GC", &conf).run().success();
    }

    fn store(&self) -> Store {
        let store = Store::of(&self.node.data_dir(), "stormnet");
        assert!(store.path().is_dir(), "{}", store.path().display());
        store
    }

    /// The addresses that the record of a container holds.
    fn recorded(&self, container: &str) -> Vec<String> {
        let record = self.store().record(container);
        record["addresses"].as_array().unwrap().iter().map(|it| it.as_str().unwrap().to_owned()).collect()
    }

    /// The host ends of pods' pairs: "name -> alias".
    fn host_links(&self) -> BTreeMap<String, String> {
        let links = ip::links(self.node.namespace()).into_iter();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        links
            .map(|link| (text(&link["ifname"]), text(&link["ifalias"])))
            .filter(|(name, _)| name.starts_with("veth"))
            .collect()
    }

    /// The destinations of routes to pods.
    fn pod_routes(&self) -> Vec<String> {
        let routes =
            ["-4", "-6"].map(|family| ip::routes(self.node.namespace(), &format!("{family} proto 102")));
        let to_pods = routes.into_iter().flatten().filter(|route| route["type"] == "unicast");
        let mut found: Vec<String> = to_pods.map(|route| route["dst"].as_str().unwrap().to_owned()).collect();
        found.sort();
        found
    }
}

/// The global addresses of the pod's eth0, as the kernel has them; none if it has no eth0.
fn addresses_in(pod: &Namespace) -> Vec<String> {
    if ip::link(pod, "eth0").is_none() {
        return Vec::new();
    }
    let global = ip::addresses(pod, "eth0").into_iter().filter(|address| address["scope"] == "global");
    global.map(|address| address["local"].as_str().unwrap().to_owned()).collect()
}

/// Runs `work` for each number below `count`, `width` at a time, and returns what came out in order.
fn all_at_once<T: Send>(count: usize, width: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut done = Vec::new();
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            if n >= count {
                return done;
            }
            done.push((n, work(n)));
        }
    };
    let mut all: Vec<(usize, T)> = thread::scope(|scope| {
        let workers: Vec<_> = (0..width).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().flat_map(|it| it.join().expect("a worker")).collect()
    });
    all.sort_by_key(|(n, _)| *n);
    all.into_iter().map(|(_, done)| done).collect()
}
