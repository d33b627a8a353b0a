//! Real traffic: servers that tell a client who it is to them, and clients.
//!
//! A socket keeps the namespace that it was opened in, so servers and clients are threads of the test. Everything
//! is bounded by [`PATIENT`].

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::net::TcpSocket;

use crate::netns::{Namespace, inside};

/// How long to wait for what must come: other tests may have the machine.
pub const PATIENT: Duration = Duration::from_secs(10);

/// How long to wait for what must not come. Shorter: what comes later by then fails no test that it should not.
pub const BRIEF: Duration = Duration::from_millis(500);

/// How long a server sleeps before it looks whether it is still wanted.
const NAP: Duration = Duration::from_millis(50);

/// Answers each client with the client's own address, then its own name, until dropped.
pub struct Server {
    wanted: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Whom a client reached.
#[derive(Debug, PartialEq, Eq)]
pub struct Reply {
    /// The client's address as the server saw it.
    pub client: IpAddr,
    /// The server's name.
    pub server: String,
}

impl Server {
    /// Listens by TCP on all addresses of both families.
    pub fn tcp(namespace: &Namespace, port: u16, name: &str) -> Self {
        let listener = inside(namespace, || once_free(|| TcpListener::bind(("::", port))));
        listener.set_nonblocking(true).unwrap();
        let name = name.to_owned();
        // std has no accept with a timeout; a receive on a socket of our own is a sleep with an end.
        let clock = UdpSocket::bind("127.0.0.1:0").unwrap();
        clock.set_read_timeout(Some(NAP)).unwrap();
        Self::start(move |wanted| {
            while wanted.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((mut stream, client)) => {
                        let _ = stream.write_all(format!("{} {name}", client.ip().to_canonical()).as_bytes());
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        let _ = clock.recv(&mut [0]);
                    }
                    Err(error) => panic!("accept: {error}"),
                }
            }
        })
    }

    /// Listens by UDP on one address, which it answers from.
    pub fn udp(namespace: &Namespace, address: &str, port: u16, name: &str) -> Self {
        let socket = inside(namespace, || once_free(|| UdpSocket::bind((address, port))));
        socket.set_read_timeout(Some(NAP)).unwrap();
        let name = name.to_owned();
        Self::start(move |wanted| {
            while wanted.load(Ordering::Relaxed) {
                if let Ok((_, client)) = socket.recv_from(&mut [0; 64]) {
                    let _ =
                        socket.send_to(format!("{} {name}", client.ip().to_canonical()).as_bytes(), client);
                }
            }
        })
    }

    fn start(serve: impl FnOnce(&AtomicBool) + Send + 'static) -> Self {
        let wanted = Arc::new(AtomicBool::new(true));
        let shared = Arc::clone(&wanted);
        let thread = std::thread::spawn(move || serve(&shared));
        Self { wanted, thread: Some(thread) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.wanted.store(false, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Connects by TCP; `None` if nobody answers. A node whose port leads nowhere says so at once.
pub fn tcp(from: &Namespace, to: &str, port: u16) -> Option<Reply> {
    let to = SocketAddr::new(to.parse().unwrap(), port);
    inside(from, || {
        // TCP sends again by itself.
        let mut stream = TcpStream::connect_timeout(&to, PATIENT).ok()?;
        stream.set_read_timeout(Some(PATIENT)).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(Reply::read(&answer))
    })
}

/// Connects by TCP from an address of its own choice; `None` if nobody answers.
pub fn tcp_from(from: &Namespace, source: &str, to: &str, port: u16) -> Option<Reply> {
    ask_tcp_from(from, source, to, port, "").map(|answer| Reply::read(&answer))
}

/// The same, for what a server answers to a question until it closes.
pub fn ask_tcp_from(from: &Namespace, source: &str, to: &str, port: u16, question: &str) -> Option<String> {
    let (source, to) =
        (SocketAddr::new(source.parse().unwrap(), 0), SocketAddr::new(to.parse().unwrap(), port));
    inside(from, || {
        let connect = async {
            let socket = if to.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.unwrap();
            socket.bind(source).unwrap();
            tokio::time::timeout(PATIENT, socket.connect(to)).await.ok()?.ok()?.into_std().ok()
        };
        let mut stream = crate::block_on(connect)?;
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(PATIENT)).unwrap();
        stream.write_all(question.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    })
}

/// Whether who connects by TCP is told at once that nobody listens there.
pub fn refuses_tcp(from: &Namespace, to: &str, port: u16) -> bool {
    let to = SocketAddr::new(to.parse().unwrap(), port);
    let connected = inside(from, || TcpStream::connect_timeout(&to, PATIENT));
    connected.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

/// A client that keeps its UDP port, hence its flow.
pub struct UdpClient(UdpSocket);

impl UdpClient {
    /// With `address` as its source, or with the one that the kernel chooses.
    pub fn new(from: &Namespace, address: &str) -> Self {
        Self(inside(from, || UdpSocket::bind((address, 0)).unwrap()))
    }

    /// Sends, again if need be (IPv6 addresses are not there at once when they are added), until it is answered.
    pub fn ask(&self, to: &str, port: u16) -> Option<Reply> {
        within(PATIENT, || self.ask_once(to, port))
    }

    /// Whether there is no answer.
    pub fn asks_in_vain(&self, to: &str, port: u16) -> bool {
        self.ask_once(to, port).is_none()
    }

    fn ask_once(&self, to: &str, port: u16) -> Option<Reply> {
        self.0.set_read_timeout(Some(BRIEF)).unwrap();
        let to = SocketAddr::new(to.parse().unwrap(), port);
        self.0.send_to(b"?", to).ok()?;
        let mut answer = [0; 128];
        let length = self.0.recv(&mut answer).ok()?;
        Some(Reply::read(&String::from_utf8_lossy(&answer[..length])))
    }
}

/// Asks by UDP once.
pub fn udp(from: &Namespace, source: &str, to: &str, port: u16) -> Option<Reply> {
    UdpClient::new(from, source).ask(to, port)
}

/// Whether a packet by UDP comes to an address, whoever sends it, when `send` is called.
pub fn receives_udp(
    patience: Duration,
    namespace: &Namespace,
    address: &str,
    port: u16,
    send: impl Fn(),
) -> bool {
    let socket = inside(namespace, || once_free(|| UdpSocket::bind((address, port))));
    socket.set_read_timeout(Some(BRIEF)).unwrap();
    let receive = || {
        send();
        socket.recv(&mut [0; 64]).ok()
    };
    within(patience, receive).is_some()
}

/// Tries until it succeeds; once at least, and not again when the time is over.
fn within<T>(patience: Duration, attempt: impl Fn() -> Option<T>) -> Option<T> {
    let end = Instant::now() + patience;
    loop {
        let outcome = attempt();
        if outcome.is_some() || Instant::now() >= end {
            return outcome;
        }
    }
}

/// Sends one packet by UDP and waits for nothing.
pub fn send_udp(from: &Namespace, source: &str, to: &str, port: u16) {
    inside(from, || UdpSocket::bind((source, 0)).unwrap().send_to(b"?", (to, port)).unwrap());
}

impl Reply {
    fn read(answer: &str) -> Self {
        let (client, server) = answer.split_once(' ').unwrap();
        Self { client: client.parse().unwrap(), server: server.to_owned() }
    }
}

/// What a server called `server` answers a client that it sees as `client`.
pub fn reply(client: &str, server: &str) -> Option<Reply> {
    Some(Reply { client: client.parse().unwrap(), server: server.to_owned() })
}

/// Binds. A port that a test has just let go of may be taken for a moment longer: a program that another test is
/// starting has a copy of the socket until it is executed.
fn once_free<T>(bind: impl Fn() -> io::Result<T>) -> T {
    within(PATIENT, || match bind() {
        Err(error) if error.kind() == ErrorKind::AddrInUse => None,
        bound => Some(bound),
    })
    .expect("the port is free in time")
    .expect("bind")
}
