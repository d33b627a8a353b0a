//! Whether the server takes the agents' requests for what deploy/components/flow-control says.

use hyper::header::CONTENT_TYPE;
use hyper::http::Request;

use crate::Failure;
use crate::control_plane::ControlPlane;

const MANIFEST: &str = include_str!("../../../deploy/components/flow-control/flow-control.yaml");

/// The server's count of requests that it let in.
const DISPATCHED: &str = "apiserver_flowcontrol_dispatched_requests_total{flow_schema=\"ferrule\",";

/// Has the server know them.
pub fn apply(server: &ControlPlane) -> Result<(), Failure> {
    server.run(async |client| {
        for object in MANIFEST.split("---\n") {
            let is_schema = object.contains("kind: FlowSchema\n");
            let plural = if is_schema { "flowschemas" } else { "prioritylevelconfigurations" };
            let request = Request::post(format!("/apis/flowcontrol.apiserver.k8s.io/v1/{plural}"))
                .header(CONTENT_TYPE, "application/yaml");
            client.request_text(request.body(object.as_bytes().to_vec())?).await?;
        }
        Ok(())
    })
}

/// How many requests of agents came in by it.
pub fn dispatched(server: &ControlPlane) -> Result<u64, Failure> {
    let metrics = server.get("/metrics")?;
    let counts = metrics.lines().filter(|line| line.starts_with(DISPATCHED));
    let counts = counts.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    match counts.sum::<f64>() as u64 {
        0 => Err("the FlowSchema has no request of an agent".into()),
        count => Ok(count),
    }
}
