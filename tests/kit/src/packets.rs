//! Real packets between namespaces, without waiting for time to pass.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use crate::netns::{Namespace, inside};
use crate::process::run_in;

/// Nothing here takes as long; what does is lost.
const PATIENCE: Duration = Duration::from_secs(5);

/// Sends one echo request: true only if its answer comes. A first packet that is lost is lost for good.
pub fn answers_ping(from: &Namespace, to: &str) -> bool {
    ping(from, to).0
}

/// Sends one echo request; whether it was answered, and what ping printed.
pub fn ping(from: &Namespace, to: &str) -> (bool, String) {
    send_echo_requests(from, &["-W", "5", to])
}

/// Whether an echo request is answered within a second, where a test expects most not to be.
pub fn answers_ping_at_once(from: &Namespace, to: &str) -> bool {
    send_echo_requests(from, &["-W", "1", to]).0
}

/// Sends one echo request of so many bytes that may not be cut into pieces; whether it was answered, and what ping said.
pub fn ping_whole(from: &Namespace, bytes: u32, to: &str) -> (bool, String) {
    send_echo_requests(from, &["-W", "3", "-M", "do", "-s", &bytes.to_string(), to])
}

/// Sends echo requests until one is answered, for ten seconds at most: for plugins that leave an address to
/// duplicate address detection.
pub fn answers_ping_in_time(from: &Namespace, to: &str) -> bool {
    send_echo_requests(from, &["-w", "10", "-i", "0.2", to]).0
}

fn send_echo_requests(from: &Namespace, words: &[&str]) -> (bool, String) {
    let words = ["-n", "-c", "1"].into_iter().chain(words.iter().copied());
    match run_in(from, "ping", words, "") {
        Ok(said) => (true, said),
        Err(failed) => (false, failed.reason),
    }
}

/// Sends a word over TCP from one namespace to an address of another and back; returns what source address the
/// other end saw.
pub fn source_seen_over_tcp(from: &Namespace, to: &Namespace, address: &str) -> std::io::Result<IpAddr> {
    let address: IpAddr = address.parse().expect("an address");
    let listener = inside(to, || TcpListener::bind(SocketAddr::new(address, 0)))?;
    let target = listener.local_addr()?;
    let mut client = inside(from, || TcpStream::connect_timeout(&target, PATIENCE))?;
    let (mut server, source) = listener.accept()?;
    for stream in [&client, &server] {
        stream.set_read_timeout(Some(PATIENCE))?;
    }
    let mut word = [0; 4];
    client.write_all(b"ping")?;
    server.read_exact(&mut word)?;
    server.write_all(&word)?;
    client.read_exact(&mut word)?;
    assert_eq!(&word, b"ping");
    Ok(source.ip())
}

/// Sends two datagrams from `client` to `to`, the first from the address `forged`, the second from `honest`, and
/// returns whose arrived first. Nothing reorders them, so nobody needs to wait for one that never comes.
pub fn first_sender(client: &Namespace, server: &Namespace, to: &str, forged: &str, honest: &str) -> String {
    let to: IpAddr = to.parse().unwrap();
    let receiver = inside(server, || UdpSocket::bind(SocketAddr::new(to, 0)).expect("bind"));
    receiver.set_read_timeout(Some(PATIENCE)).unwrap();
    let to = receiver.local_addr().unwrap();
    inside(client, || {
        for source in [forged, honest] {
            let source: IpAddr = source.parse().unwrap();
            let socket = bind_once_usable(SocketAddr::new(source, 0));
            socket.send_to(b"who is it", to).expect("send");
        }
    });
    let mut datagram = [0; 16];
    let (_, from) = receiver.recv_from(&mut datagram).expect("the honest datagram arrives");
    from.ip().to_string()
}

/// Binds to an address that was added just now: one of IPv6 is tentative until a work queue has seen it, without DAD as
/// well.
fn bind_once_usable(address: SocketAddr) -> UdpSocket {
    let end = Instant::now() + PATIENCE;
    loop {
        match UdpSocket::bind(address) {
            Err(error) if error.kind() == ErrorKind::AddrNotAvailable && Instant::now() < end => {
                std::thread::yield_now();
            }
            bound => return bound.expect("bind to the source"),
        }
    }
}
