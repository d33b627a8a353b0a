//! Connections and packets, counted.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::net::sockopt::set_socket_linger;
use rustix::time::{ClockId, clock_gettime};

use crate::Failure;
use crate::objects::PORT;

/// Connections that the kernel may hold for a server that has not accepted them yet.
const BACKLOG: i32 = 4_096;

/// What a client asks, and what it is answered.
const REQUEST: &[u8; 64] = &[b'?'; 64];

/// How long an answer may take that is not lost.
const PATIENCE: Duration = Duration::from_secs(1);

/// A thread that answers. It ends with this value.
pub struct Server {
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    /// Where it hears, to be woken.
    at: SocketAddr,
}

impl Server {
    /// Of TCP, which answers one request of each connection; and two of UDP, at the port that is allowed and the next, which send back what they
    /// get. In the namespace of the calling thread.
    pub fn start() -> Result<Vec<Self>, Failure> {
        let any = |port| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
        let listener = TcpListener::bind(any(PORT))?;
        rustix::net::listen(&listener, BACKLOG)?;
        let ends = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&ends);
        let accept = move || {
            let mut request = [0; REQUEST.len()];
            while let Ok((mut client, _)) = listener.accept()
                && !is_over.load(Ordering::Relaxed)
            {
                // A client that asks nothing has reset the connection by now.
                if client.read_exact(&mut request).is_ok() {
                    let _ = client.write_all(&request);
                }
            }
        };
        let mut servers = vec![Self { ends, thread: Some(thread::spawn(accept)), at: any(PORT) }];
        for port in [PORT, PORT + 1] {
            let socket = UdpSocket::bind(any(port))?;
            socket.set_read_timeout(Some(Duration::from_millis(200)))?;
            let ends = Arc::new(AtomicBool::new(false));
            let is_over = Arc::clone(&ends);
            let echo = move || {
                let mut buffer = [0; 64];
                while !is_over.load(Ordering::Relaxed) {
                    if let Ok((length, client)) = socket.recv_from(&mut buffer) {
                        // Whether it arrives is what is measured.
                        let _ = socket.send_to(&buffer[..length], client);
                    }
                }
            };
            servers.push(Self { ends, thread: Some(thread::spawn(echo)), at: any(port) });
        }
        Ok(servers)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        // That of TCP waits for a connection, in a namespace that this thread is not in: it ends with the process.
        if self.at.port() != PORT
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}

/// What a new connection cost.
pub struct Connection {
    /// From one to the next.
    pub took: Duration,
    /// CPU time of client and server, the kernel's for their packets included: between namespaces a packet is received by
    /// the thread that sends it.
    pub cpu: Duration,
}

/// Makes new connections, one after another, and tells what one of them cost; with `asks`, a request and its answer goes
/// through each. In the namespace of the calling thread.
pub fn connect_for(span: Duration, to: SocketAddr, asks: bool) -> Result<Connection, Failure> {
    let (start, cpu) = (Instant::now(), cpu_time());
    let mut count = 0_u32;
    while start.elapsed() < span {
        let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
        if asks {
            stream.write_all(REQUEST)?;
            stream.read_exact(&mut [0; REQUEST.len()])?;
        }
        // A reset instead of a goodbye: nothing of it stays, so that ports do not run out.
        set_socket_linger(&stream, Some(Duration::ZERO))?;
        drop(stream);
        count += 1;
    }
    let count = count.max(1);
    Ok(Connection { took: start.elapsed() / count, cpu: cpu_time().saturating_sub(cpu) / count })
}

/// Of this process, all of its threads.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.try_into().unwrap_or_default(), time.tv_nsec.try_into().unwrap_or_default())
}

/// What came of packets.
#[derive(Debug, Default)]
pub struct Packets {
    /// Sent where they are allowed, each the first of a flow, or all of one flow.
    pub allowed: usize,
    /// Not answered.
    pub lost: usize,
    /// Sent where they are not, each the first of a flow.
    pub forbidden: usize,
    /// Answered.
    pub passed: usize,
}

/// Sends packets until told to end. In the namespace of the calling thread.
pub fn send_until(ends: &AtomicBool, to: SocketAddr) -> Result<Packets, Failure> {
    let mut packets = Packets::default();
    let socket = |port: u16| -> Result<UdpSocket, Failure> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect((to.ip(), port))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(socket)
    };
    let standing = socket(PORT)?;
    let mut forbidden = Vec::new();
    let mut buffer = [0; 64];
    while !ends.load(Ordering::Relaxed) {
        let fresh = socket(PORT)?;
        for one in [&standing, &fresh] {
            packets.allowed += 1;
            one.send(b"allowed")?;
            packets.lost += usize::from(one.recv(&mut buffer).is_err());
        }
        let one = socket(PORT + 1)?;
        one.set_nonblocking(true)?;
        one.send(b"forbidden")?;
        packets.forbidden += 1;
        forbidden.push(one);
        // Each has a while for an answer that must not come.
        if forbidden.len() > 500 {
            packets.passed += forbidden.drain(..250).filter(|one| one.recv(&mut buffer).is_ok()).count();
        }
    }
    thread::park_timeout(Duration::from_millis(100));
    packets.passed += forbidden.iter().filter(|one| one.recv(&mut buffer).is_ok()).count();
    Ok(packets)
}
