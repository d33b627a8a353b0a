//! Finds out where the API server is, and which ranges the Services have: no node's pods may have those addresses.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnetwork::IpNetwork;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use kube::api::ListParams;
use kube::{Api, Client};
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;
use tracing::{debug, info};

use crate::agent::k8s::watch::{WatchMessage, watch_seconds};
use crate::agent::surroundings::ApiServer;

/// Pause after a question that had no answer. After one that had, it is as long as a watch: all agents ask, and ranges of
/// Services hardly ever change.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(5);

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// The address of a host that is one, and has no name.
pub fn literal(host: &str) -> Option<IpAddr> {
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

/// Sends what is known of the API server at `host`, again and again and whenever it is `asked` for, until nobody
/// receives. That it does not answer is sent as well.
pub async fn follow(client: Client, host: String, asked: Arc<Notify>, messages: mpsc::Sender<WatchMessage>) {
    let services: Api<ServiceCIDR> = Api::all(client);
    let mut known = ApiServer { addresses: literal(&host).into_iter().collect(), services: Vec::new() };
    let mut is_refusal_told = false;
    loop {
        if literal(&host).is_none() {
            match timeout(PATIENCE, tokio::net::lookup_host((host.as_str(), 0))).await {
                Ok(Ok(found)) => known.addresses = found.map(|address| address.ip()).collect(),
                Ok(Err(reason)) => debug!(host, %reason, "API server's name not resolved"),
                Err(_) => debug!(host, reason = "timeout", "API server's name not resolved"),
            }
            known.addresses.sort_unstable();
            known.addresses.dedup();
        }
        let has_answered = match timeout(PATIENCE, services.list(&ListParams::default())).await {
            Ok(Ok(list)) => {
                let cidrs = list.items.into_iter().filter_map(|item| item.spec?.cidrs).flatten();
                known.services = cidrs.filter_map(|text| text.parse().ok()).collect();
                known.services.sort_unstable();
                true
            }
            // Older servers have no such resource, and older roles do not allow it.
            Ok(Err(kube::Error::Api(reason))) => {
                known.services = kubernetes_service().into_iter().collect();
                if !std::mem::replace(&mut is_refusal_told, true) {
                    info!(%reason, "Service ranges not known");
                }
                true
            }
            Ok(Err(reason)) => {
                debug!(%reason, "API server did not answer");
                false
            }
            Err(_) => {
                debug!(reason = "timeout", "API server did not answer");
                false
            }
        };
        let message =
            if has_answered { WatchMessage::ApiServer(known.clone()) } else { WatchMessage::NoAnswer };
        if messages.send(message).await.is_err() {
            return;
        }
        let pause =
            if has_answered { Duration::from_secs(watch_seconds().into()) } else { PAUSE_AFTER_FAILURE };
        let _ = timeout(pause, asked.notified()).await;
    }
}

/// The Service `kubernetes`, as kubelet tells each pod of it: of the Services' range all that an older server tells.
fn kubernetes_service() -> Option<IpNetwork> {
    let address: IpAddr = std::env::var("KUBERNETES_SERVICE_HOST").ok()?.parse().ok()?;
    Some(address.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_of_a_url_may_be_an_address() {
        assert_eq!(literal("10.96.0.1"), Some("10.96.0.1".parse().unwrap()));
        assert_eq!(literal("[fd00::1]"), Some("fd00::1".parse().unwrap()));
        assert_eq!(literal("api.example"), None);
    }
}
