//! Requests and answers of HTTP/1.1, as much of it as the agent speaks.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::thread;

use serde_json::Value;

/// What a client asks.
pub struct Request {
    pub method: String,
    /// With query.
    pub path: String,
    /// Where it is JSON.
    pub body: Value,
    /// What the client calls itself.
    pub client: String,
    pub takes_gzip: bool,
}

pub fn read_request(reader: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut line = String::new();
    if reader.read_line(&mut line).ok()? == 0 {
        return None;
    }
    let mut words = line.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let (mut length, mut client, mut takes_gzip) = (0, String::new(), false);
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let header = header.trim_end().to_ascii_lowercase();
        if header.is_empty() {
            break;
        }
        if let Some(value) = header.strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        if let Some(value) = header.strip_prefix("user-agent:") {
            value.trim().clone_into(&mut client);
        }
        takes_gzip |= header.strip_prefix("accept-encoding:").is_some_and(|value| value.contains("gzip"));
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
    Some(Request { method, path, body, client, takes_gzip })
}

pub fn chunk(mut stream: &TcpStream, event: &Value) -> Option<()> {
    let line = format!("{event}\n");
    stream.write_all(format!("{:x}\r\n{line}\r\n", line.len()).as_bytes()).ok()
}

pub fn respond(mut stream: &TcpStream, status: u16, body: &str) -> Option<()> {
    let head = format!(
        "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).ok()?;
    stream.write_all(body.as_bytes()).ok()
}

pub fn respond_compressed(mut stream: &TcpStream, body: &str) -> Option<()> {
    let mut gzip = Command::new("gzip");
    gzip.arg("-1").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut gzip = gzip.spawn().ok()?;
    let mut stdin = gzip.stdin.take()?;
    let body = body.to_owned();
    let writer = thread::spawn(move || stdin.write_all(body.as_bytes()));
    let compressed = gzip.wait_with_output().ok()?.stdout;
    writer.join().ok()?.ok()?;
    let head = format!(
        "HTTP/1.1 200 X\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n",
        compressed.len()
    );
    stream.write_all(head.as_bytes()).ok()?;
    stream.write_all(&compressed).ok()
}
