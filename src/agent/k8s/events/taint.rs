//! The startup taint: kubelet registers a new node with it (`--register-with-taints`), so that no pod is sent there before
//! its network works, and the agent removes it.

use hyper::Request;
use hyper::header::CONTENT_TYPE;
use serde_json::json;
use tokio::time::{Instant, timeout};
use tracing::{info, warn};

use crate::agent::k8s::events::{PATIENCE, Writer};
use crate::agent::k8s::watched_node::{STARTUP_TAINT, WatchedNode};

/// Removes it, if that is asked for. Whoever asked asks again as long as the Node has the taint, which the API server hears
/// after a pause that grows to a minute. A failure is told once.
pub(super) async fn remove(writer: &mut Writer) {
    let (Some(place), now) = (writer.taint.take(), Instant::now()) else { return };
    if writer.taint_failures.at().is_some_and(|at| at > now) {
        return;
    }
    // A success as well: the Node shows it in its own time.
    writer.taint_failures.fail(now);
    // Only if it is still at its place: others add and remove taints meanwhile.
    let path = format!("/spec/taints/{place}");
    let patch = json!([
        { "op": "test", "path": format!("{path}/key"), "value": STARTUP_TAINT },
        { "op": "remove", "path": path },
    ]);
    let request = Request::patch(format!("/api/v1/nodes/{}", writer.node))
        .header(CONTENT_TYPE, "application/json-patch+json")
        .body(patch.to_string().into_bytes());
    let reason = match request {
        Err(error) => error.to_string(),
        Ok(request) => match timeout(PATIENCE, writer.client.request::<WatchedNode>(request)).await {
            Ok(Ok(_)) => {
                writer.taint_reason.clear();
                return info!(taint = STARTUP_TAINT, "startup taint removed");
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "timeout".to_owned(),
        },
    };
    if writer.taint_reason != reason {
        let remedy = "the agent may patch nodes with deploy/components/startup-taint";
        warn!(taint = STARTUP_TAINT, reason, remedy, "startup taint not removed, will retry");
        writer.taint_reason = reason;
    }
}
