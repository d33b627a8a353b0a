//! Connections whose ends both may send when a policy forbids them: none comes back by what the other end sends.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use super::world::{Member, Worker, World};
use kit::netns::{Namespace, inside};

/// Between what a sender sends, so that the next packet after the cut is its own.
const PAUSE: Duration = Duration::from_millis(1);

/// As long as several retransmissions take.
const WATCHED: Duration = Duration::from_millis(700);

const ROUNDS: usize = 10;

/// A TCP connection, and what has come to its two ends.
struct Connection {
    what: String,
    /// How `conntrack` finds it.
    entry: String,
    came: [Arc<AtomicU64>; 2],
    _ends: [Worker; 2],
}

impl Connection {
    fn begin(from: &Member, to: &Member, family: usize, senders: [bool; 2]) -> Self {
        let address = to.addresses[family].as_str();
        let listener = inside(to.pod.namespace(), || TcpListener::bind((address, 0)).unwrap());
        let to_server = listener.local_addr().unwrap();
        let client = inside(from.pod.namespace(), || TcpStream::connect(to_server).unwrap());
        let (server, at_client) = listener.accept().unwrap();
        let family_word = if at_client.is_ipv4() { "ipv4" } else { "ipv6" };
        let ports = format!("--orig-port-src {} --orig-port-dst {}", at_client.port(), to_server.port());
        let entry = format!("-f {family_word} -p tcp {ports}");
        let what = format!("{} to {} at {address}, client and server send: {senders:?}", from.name, to.name);
        let came = [Arc::<AtomicU64>::default(), Arc::default()];
        let end = |member: &Member, socket, at: usize| {
            let came = Arc::clone(&came[at]);
            Worker::start(member.pod.namespace(), move |wanted| {
                while wanted.load(Ordering::Relaxed) && step(&socket, senders[at], &came) {
                    std::thread::sleep(PAUSE);
                }
            })
        };
        let ends = [end(from, client, 0), end(to, server, 1)];
        Self { what, entry, came, _ends: ends }
    }

    fn is_known(&self, node: &Namespace) -> bool {
        node.sh(&format!("conntrack -L {} 2>/dev/null | wc -l", self.entry)).trim() != "0"
    }

    fn came(&self) -> u64 {
        self.came.iter().map(|it| it.load(Ordering::Relaxed)).sum()
    }
}

/// Sends, if it is to, and reads what came; whether the connection is still there.
fn step(mut socket: &TcpStream, sends: bool, came: &AtomicU64) -> bool {
    socket.set_nodelay(true).unwrap();
    socket.set_nonblocking(true).unwrap();
    let may_wait = |error: std::io::Error| error.kind() == ErrorKind::WouldBlock;
    if sends && !socket.write(b"x").map_or_else(may_wait, |_| true) {
        return false;
    }
    match socket.read(&mut [0; 4096]) {
        Ok(0) => false,
        Ok(read) => {
            came.fetch_add(read as u64, Ordering::Relaxed);
            true
        }
        Err(error) => may_wait(error),
    }
}

/// Isolates pods with a label in one direction; the label's value `friend` stays allowed.
fn one_way(app: &str, direction: &str, rules: &str, peers: &str) -> Value {
    let friend = json!({ "podSelector": { "matchLabels": { "app": "friend" } } });
    json!({
        "podSelector": { "matchLabels": { "app": app } }, "policyTypes": [direction],
        rules: [{ peers: [friend] }],
    })
}

#[test]
fn a_cut_connection_stays_cut_whoever_sends_next() {
    let world = World::new("revive");
    let pod = |name: &str| world.pod("shop", name, json!({ "app": name }));
    let (client, server, outer, inner, friend) =
        (pod("client"), pod("server"), pod("outer"), pod("inner"), pod("friend"));
    for round in 0..ROUNDS {
        let begin = |from, to, senders| [0, 1].map(|family| Connection::begin(from, to, family, senders));
        let forbidden: Vec<Connection> = [
            // The client is isolated, its server is not.
            begin(&client, &server, [false, true]),
            begin(&client, &server, [true, true]),
            // The server is isolated, its client is not.
            begin(&outer, &inner, [true, false]),
            begin(&outer, &inner, [true, true]),
        ]
        .into_iter()
        .flatten()
        .collect();
        let allowed = [begin(&client, &friend, [true, true]), begin(&friend, &inner, [true, true])];
        let allowed: Vec<Connection> = allowed.into_iter().flatten().collect();
        for it in forbidden.iter().chain(&allowed) {
            world.node.wait(&it.what, || it.came() > 20);
            assert!(it.is_known(&world.node.namespace), "{}", it.what);
        }
        world.policy("shop", "out", one_way("client", "Egress", "egress", "to"));
        world.policy("shop", "in", one_way("inner", "Ingress", "ingress", "from"));
        for it in &forbidden {
            world.node.wait(&format!("cut: {}", it.what), || !it.is_known(&world.node.namespace));
        }
        // What was on its way.
        std::thread::sleep(Duration::from_millis(100));
        let counts = |all: &[Connection]| all.iter().map(Connection::came).collect::<Vec<u64>>();
        let (gone, kept) = (counts(&forbidden), counts(&allowed));
        std::thread::sleep(WATCHED);
        for (it, came) in forbidden.iter().zip(gone) {
            assert_eq!(it.came(), came, "round {round}: came after the cut: {}", it.what);
        }
        for (it, came) in allowed.iter().zip(kept) {
            world.node.wait(&it.what, || it.came() > came + 20);
        }
        assert!(forbidden.iter().all(|it| !it.is_known(&world.node.namespace)), "round {round}");
        assert!(allowed.iter().all(|it| it.is_known(&world.node.namespace)), "round {round}");
        drop((forbidden, allowed));
        ["out", "in"].into_iter().for_each(|name| world.remove_policy("shop", name));
        world.node.wait("the table's end", || !world.has_table());
    }
}
