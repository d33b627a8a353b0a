//! A client for the API server, as light to it as can be.
//!
//! | what                            | for                                                                            |
//! |---------------------------------|--------------------------------------------------------------------------------|
//! | HTTP/2, where the server has it | all watches share one connection, and a server may ask to be left (GOAWAY)       |
//! | PING                            | a peer that vanished, or hangs behind a proxy, is noticed without an end of watches |
//! | TCP keepalive, TCP_USER_TIMEOUT | the same for HTTP/1.1                                                          |
//! | gzip                            | lists; watches are not compressed                                              |
//! | User-Agent                      | who it is in the server's audit log                                            |

use std::time::Duration;

use hyper::header::{HeaderValue, USER_AGENT};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_timeout::TimeoutConnector;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::client::{Body, ConfigExt, retry::RetryPolicy};
use kube::{Client, Config};
use tower::retry::RetryLayer;
use tower::{BoxError, ServiceBuilder};
use tower_http::decompression::DecompressionLayer;

use crate::agent::k8s::watch::LONGEST_WATCH;
use crate::agent::settings::Settings;

/// Timeout of connecting. Before kube-proxy is up nothing answers at the Service's address, and a longer wait would only
/// delay the next attempt.
const CONNECT: Duration = Duration::from_secs(3);

/// After how much silence the peer is asked whether it lives. Kubernetes' own clients ask as often.
const QUIET: Duration = Duration::from_secs(30);

/// How long it may take to answer.
const ANSWER: Duration = Duration::from_secs(15);

/// Between two questions of TCP.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// Bytes of one watch that wait in the connection while the agent is busy, and of all together: no watch keeps another
/// one waiting.
const WINDOW: u32 = 256 << 10;
const WINDOWS: u32 = 8 * WINDOW;

const NAME: &str = concat!("ferruled/", env!("CARGO_PKG_VERSION"));

/// A client for the API server that the settings or the pod's environment name, and that server's host.
///
/// # Errors
/// Why there is none, in words.
pub fn connect(settings: &Settings) -> Result<(Client, String), String> {
    let url = match &settings.apiserver {
        Some(text) => Some(text.parse().map_err(|error| format!("--apiserver {text:?}: {error}"))?),
        None => None,
    };
    let mut config = match (Config::incluster(), url.clone()) {
        (Ok(config), _) => config,
        (Err(_), Some(url)) => Config::new(url),
        (Err(error), None) => return Err(format!("this is no pod of a cluster: {error}; give --apiserver")),
    };
    if let Some(url) = url {
        config.cluster_url = url;
    }
    config.connect_timeout = Some(CONNECT);
    config.read_timeout = Some(LONGEST_WATCH + ANSWER);
    config.headers.push((USER_AGENT, HeaderValue::from_static(NAME)));
    let host = config.cluster_url.host().unwrap_or_default().to_owned();
    let client = client_of(&config);
    client.map(|client| (client, host)).map_err(|error| format!("the API server cannot be asked: {error}"))
}

/// kube's own stack, but for its connections: it speaks HTTP/1.1 only, and asks no peer whether it lives.
fn client_of(config: &Config) -> kube::Result<Client> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_keepalive(Some(QUIET));
    tcp.set_keepalive_interval(Some(ASK_AGAIN));
    tcp.set_tcp_user_timeout(Some(QUIET + ANSWER));
    let tls = HttpsConnectorBuilder::new()
        .with_tls_config(config.rustls_client_config()?)
        .https_or_http()
        .enable_all_versions()
        .wrap_connector(tcp);
    let mut connector = TimeoutConnector::new(tls);
    connector.set_connect_timeout(config.connect_timeout);
    connector.set_read_timeout(config.read_timeout);
    connector.set_write_timeout(config.write_timeout);
    let http = legacy::Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .http2_keep_alive_interval(QUIET)
        .http2_keep_alive_timeout(ANSWER)
        .http2_initial_stream_window_size(WINDOW)
        .http2_initial_connection_window_size(WINDOWS)
        .build::<_, Body>(connector);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .layer(DecompressionLayer::new())
        .layer(RetryLayer::new(RetryPolicy::server_retry()))
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(http);
    Ok(Client::new(service, config.default_namespace.clone()))
}
