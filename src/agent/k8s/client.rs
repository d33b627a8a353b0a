//! A client for the API server.

use std::time::Duration;

use kube::{Client, Config};

use crate::agent::k8s::watch::WATCH_SECONDS;
use crate::agent::settings::Settings;

/// Timeout of connecting. Before kube-proxy is up nothing answers at the Service's address, and a longer wait would only
/// delay the next attempt.
const CONNECT: Duration = Duration::from_secs(3);

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
    config.read_timeout = Some(Duration::from_secs(u64::from(WATCH_SECONDS) + 15));
    let host = config.cluster_url.host().unwrap_or_default().to_owned();
    let client = Client::try_from(config);
    client.map(|client| (client, host)).map_err(|error| format!("the API server cannot be asked: {error}"))
}
