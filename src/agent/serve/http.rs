//! Serves /metrics, /healthz and /readyz, at one address for everybody and at another for kubelet's probes: each has its own
//! connections, so whoever holds all of the first takes none of the second.
//!
//! A connection is one request, and has a deadline as a whole. Its source has a few places, so one pod cannot hold them
//! all; the node itself has places of its own. What is too many is closed at once and never waits in the queue of the
//! socket, where it would be in the way of others.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tracing::{debug, info, warn};

use crate::agent::serve::metrics::Metrics;
use crate::agent::serve::places::{Place, Places};

/// How long a connection may take from accepting it to the last byte of the answer. Kubelet's probes and Prometheus wait
/// no longer.
const DEADLINE: Duration = Duration::from_secs(10);

/// Pause before a port that is in use is tried again.
const RETRY: Duration = Duration::from_secs(10);

/// How long the agent's loop may take until /healthz fails. Its steps have deadlines far below.
const SILENCE: Duration = Duration::from_secs(60);

/// Whether the agent is alive and ready.
#[derive(Debug)]
pub struct Health {
    started: Instant,
    /// When the loop last ran, in milliseconds after `started`.
    seen: AtomicU64,
    ready: AtomicBool,
    /// Steps that failed the last time: how often in a row, and why.
    failing: Mutex<BTreeMap<&'static str, (u32, String)>>,
}

/// How often a step fails in a row until /readyz says so: what others do at the same moment makes single ones fail.
const FAILURES: u32 = 2;

/// Steps that do as a whole what another one does in part. The other may never be due again.
const PARTS: [(&str, &str); 2] = [("routes", "routes_of_some"), ("routes", "withdraw")];

impl Default for Health {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            seen: AtomicU64::new(0),
            ready: AtomicBool::new(false),
            failing: Mutex::default(),
        }
    }
}

impl Health {
    /// The loop runs.
    pub fn beat(&self) {
        let age = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.seen.store(age, Ordering::Relaxed);
    }

    /// Everything was applied once, with the whole list of Nodes known.
    pub fn set_ready(&self) {
        self.ready.store(true, Ordering::Relaxed);
    }

    fn is_alive(&self) -> bool {
        let seen = Duration::from_millis(self.seen.load(Ordering::Relaxed));
        self.started.elapsed().saturating_sub(seen) < SILENCE
    }

    /// A step failed.
    pub fn failed(&self, step: &'static str, reason: &str) {
        let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        let (times, why) = failing.entry(step).or_default();
        *times += 1;
        reason.clone_into(why);
    }

    /// A step succeeded, and with it what it does as a whole.
    pub fn succeeded(&self, step: &str) {
        let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        failing.remove(step);
        for (_, part) in PARTS.iter().filter(|(whole, _)| *whole == step) {
            failing.remove(part);
        }
    }

    /// Why the node cannot be kept as it should be; `None` if it can, and was once.
    fn why_not_ready(&self) -> Option<String> {
        if !self.ready.load(Ordering::Relaxed) {
            return Some("the node is not ready for pods yet; see the log".to_owned());
        }
        let failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        let (step, (times, why)) = failing.iter().find(|(_, (times, _))| *times >= FAILURES)?;
        Some(format!("step {step} failed {times} times in a row: {why}"))
    }
}

/// Serves for ever. A port that is in use does not end the agent: the node's network matters more.
pub async fn serve(address: SocketAddr, metrics: Arc<Metrics>, health: Arc<Health>) {
    let listener = loop {
        match bind(address).await {
            Ok(listener) => break listener,
            Err(error) => {
                warn!(%address, reason = %error, "HTTP server not started, will retry")
            }
        }
        tokio::time::sleep(RETRY).await;
    };
    info!(%address, "HTTP server listening");
    let places = Arc::new(Places::default());
    loop {
        let Ok((stream, peer)) = listener.accept().await else {
            // For example, no file descriptors are left.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let source = peer.ip().to_canonical();
        let is_own = source.is_loopback()
            || stream.local_addr().is_ok_and(|local| local.ip().to_canonical() == source);
        let Some(place) = Place::take(&places, (!is_own).then_some(source)) else {
            debug!(%source, "too many HTTP connections, closing one");
            continue;
        };
        tokio::spawn(serve_connection(stream, place, Arc::clone(&metrics), Arc::clone(&health)));
    }
}

/// Answers one request, and no second one: a connection that is kept open would be a place that is held.
async fn serve_connection(stream: TcpStream, place: Place, metrics: Arc<Metrics>, health: Arc<Health>) {
    let answer = service_fn(move |request: Request<Incoming>| {
        let response = respond(&request, &metrics, &health);
        async move { Ok::<_, Infallible>(response) }
    });
    let mut server = hyper::server::conn::http1::Builder::new();
    server.timer(TokioTimer::new()).keep_alive(false);
    // The client closed the connection, or it was too slow.
    let _ = timeout(DEADLINE, server.serve_connection(TokioIo::new(stream), answer)).await;
    drop(place);
}

/// On a node without IPv6, `::` binds every IPv4 address.
async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    match TcpListener::bind(address).await {
        Err(_) if address.ip() == Ipv6Addr::UNSPECIFIED => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await
        }
        bound => bound,
    }
}

fn respond(request: &Request<Incoming>, metrics: &Metrics, health: &Health) -> Response<Full<Bytes>> {
    let text = |status, text: &str| page(status, "text/plain; charset=utf-8", text.to_owned());
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return text(StatusCode::METHOD_NOT_ALLOWED, "GET only\n");
    }
    match request.uri().path() {
        "/metrics" => match metrics.render() {
            Ok(rendered) => {
                page(StatusCode::OK, "application/openmetrics-text; version=1.0.0; charset=utf-8", rendered)
            }
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
        },
        "/healthz" if health.is_alive() => text(StatusCode::OK, "ok\n"),
        "/healthz" => text(StatusCode::SERVICE_UNAVAILABLE, "the event loop does not run\n"),
        "/readyz" => match health.why_not_ready() {
            None => text(StatusCode::OK, "ok\n"),
            Some(reason) => text(StatusCode::SERVICE_UNAVAILABLE, &format!("{reason}\n")),
        },
        _ => text(StatusCode::NOT_FOUND, "/metrics, /healthz, /readyz\n"),
    }
}

fn page(status: StatusCode, kind: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_that_is_not_due_again_keeps_no_agent_from_being_ready() {
        for part in ["routes_of_some", "withdraw"] {
            let health = Health::default();
            health.set_ready();
            (0..FAILURES).for_each(|_| health.failed(part, "no route"));
            health.succeeded("table");
            assert!(health.why_not_ready().is_some_and(|why| why.contains(part)));
            health.succeeded("routes");
            assert_eq!(health.why_not_ready(), None);
        }
    }
}
