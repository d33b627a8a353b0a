//! A client for the API server: kube's own, with a name, a bound for silence, and lists compressed.

use std::time::Duration;

use hyper::header::{HeaderValue, USER_AGENT};
use kube::{Client, Config};

use crate::agent::settings::Settings;

/// Timeout of connecting. Before kube-proxy is up nothing answers at the Service's address, and a longer wait would only
/// delay the next attempt.
const CONNECT: Duration = Duration::from_secs(3);

/// How long a connection may be silent. A watch has a bookmark every minute, and a quarter more by chance
/// (staging/src/k8s.io/apiserver/pkg/storage/cacher), so a peer that says nothing for longer is gone, or hangs.
const SILENCE: Duration = Duration::from_secs(120);

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
    config.read_timeout = Some(SILENCE);
    config.headers.push((USER_AGENT, HeaderValue::from_static(NAME)));
    let host = config.cluster_url.host().unwrap_or_default().to_owned();
    let client = Client::try_from(config);
    client.map(|client| (client, host)).map_err(|error| format!("the API server cannot be asked: {error}"))
}
