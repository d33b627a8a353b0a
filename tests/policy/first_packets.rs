//! What comes through in the first moments of a pod: in its namespace something sends from before there is an interface,
//! and something outside sends to it.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kit::netns::inside;
use kit::node::{Node, OUTSIDE_V4, OUTSIDE_V6};
use kit::pod::Pod;
use kit::traffic::PATIENT;

/// How long is watched after the ADD.
const AFTER: Duration = Duration::from_millis(300);

const PORT: u16 = 5353;

/// Senders that never rest, and receivers that count.
pub struct FirstPackets {
    over: Arc<AtomicBool>,
    counts: Vec<Arc<AtomicUsize>>,
    threads: Vec<JoinHandle<()>>,
}

impl FirstPackets {
    /// From `pod` to the host outside, by both families, and from there to the addresses that the pod is to have.
    pub fn watch(node: &Node, pod: &Pod, addresses: &[&str; 2]) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let mut watched = Self { over, counts: Vec::new(), threads: Vec::new() };
        for (from, to, targets) in [
            (pod.namespace(), node.outside(), [OUTSIDE_V4, OUTSIDE_V6]),
            (node.outside(), pod.namespace(), *addresses),
        ] {
            for (target, any) in targets.into_iter().zip(["0.0.0.0", "::"]) {
                let bind = |port| {
                    // Of two families with one port, IPv6's socket takes IPv4 as well: ports differ.
                    let port = if port == 0 { 0 } else { port + u16::from(any == "::") };
                    UdpSocket::bind((any, port)).unwrap()
                };
                let receiver = inside(to, || bind(PORT));
                let sender = inside(from, || bind(0));
                let port = receiver.local_addr().unwrap().port();
                watched.count(receiver);
                watched.send(sender, SocketAddr::new(target.parse().unwrap(), port));
            }
        }
        watched
    }

    fn count(&mut self, socket: UdpSocket) {
        let count = Arc::new(AtomicUsize::new(0));
        self.counts.push(Arc::clone(&count));
        let over = Arc::clone(&self.over);
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        self.threads.push(std::thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                if socket.recv(&mut [0; 16]).is_ok() {
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
        }));
    }

    fn send(&mut self, socket: UdpSocket, to: SocketAddr) {
        let over = Arc::clone(&self.over);
        self.threads.push(std::thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                // Unreachable, until there is a way.
                let _ = socket.send_to(b"?", to);
                std::thread::park_timeout(Duration::from_micros(200));
            }
        }));
    }

    /// How many came: from the pod by IPv4 and IPv6, to the pod by IPv4 and IPv6. Waits for one of each if they must come.
    pub fn end(self, must_come: bool) -> Vec<usize> {
        let end = Instant::now() + if must_come { PATIENT } else { AFTER };
        let counts = || -> Vec<usize> { self.counts.iter().map(|it| it.load(Ordering::Relaxed)).collect() };
        while Instant::now() < end && !(must_come && counts().iter().all(|count| *count > 0)) {
            std::thread::park_timeout(Duration::from_millis(10));
        }
        self.over.store(true, Ordering::Relaxed);
        let counts = counts();
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
        counts
    }
}
