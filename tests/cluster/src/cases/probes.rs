//! kubelet, which is a process of the node, asks pods how they are; Services follow what it hears.

use std::time::Duration;

use serde_json::{Value, json};

use crate::ensure;
use crate::pod::{HTTP, Pod, container, service};
use crate::process::{Result, eventually};
use crate::space::Space;

/// What `agnhost grpc-health-checking` listens on: gRPC, and HTTP for what the answer shall be.
const GRPC: u16 = 5000;
const GRPC_CONTROL: u16 = 8090;

/// Of each kind one that must pass, and one that must not.
pub fn probes_pass_and_fail_as_they_should(space: &Space<'_>) -> Result {
    let nobody = 9999;
    let good = json!([
        { "exec": { "command": ["true"] } },
        { "httpGet": { "path": "/hostname", "port": HTTP } },
        { "tcpSocket": { "port": HTTP } },
        { "grpc": { "port": GRPC } },
    ]);
    let bad = json!([
        { "exec": { "command": ["false"] } },
        { "httpGet": { "path": "/hostname", "port": nobody } },
        { "tcpSocket": { "port": nobody } },
        { "grpc": { "port": nobody } },
    ]);
    space.create([probed(space, "good", &good), probed(space, "bad", &bad)])?;
    space.kubectl(&["wait", "--for=condition=Ready", "pod/good", "--timeout=120s"])?;

    // Each was asked, and said no: kubelet tells about each refusal.
    for index in 0..4 {
        let name = format!("probe-{index}");
        eventually(&format!("{name} fails"), Duration::from_secs(60), || {
            let field = format!(
                "involvedObject.name=bad,reason=Unhealthy,involvedObject.fieldPath=spec.containers{{{name}}}"
            );
            let events = space.get(&["events", "--field-selector", &field])?;
            ensure!(!events["items"].as_array().is_none_or(Vec::is_empty), "no word of it");
            Ok(())
        })?;
    }
    let answer = space.get(&["pod", "bad"])?;
    for status in answer["status"]["containerStatuses"].as_array().into_iter().flatten() {
        let probed = status["name"].as_str().is_some_and(|name| name.starts_with("probe-"));
        ensure!(!probed || status["ready"] == false, "{} passes a probe that nobody answers", status["name"]);
    }
    // Where nobody ever failed, as where everybody did.
    let answer = space.get(&["pod", "good"])?;
    for status in answer["status"]["containerStatuses"].as_array().into_iter().flatten() {
        ensure!(status["restartCount"] == 0, "{} was restarted", status["name"]);
    }
    // Failing liveness has its consequence.
    eventually("the container that fails its liveness probe restarts", Duration::from_secs(60), || {
        let answer = space.get(&["pod", "bad"])?;
        let statuses = answer["status"]["containerStatuses"].as_array().cloned().unwrap_or_default();
        let main = statuses.iter().find(|status| status["name"] == "main").cloned().unwrap_or_default();
        ensure!(main["restartCount"].as_u64() > Some(0), "{main}");
        Ok(())
    })
}

/// Four containers with a readiness probe each, beside a server of HTTP and one of gRPC. The server's own liveness is
/// asked by the second of the probes.
fn probed(space: &Space<'_>, name: &str, probes: &Value) -> Value {
    let port = format!("--http-port={GRPC_CONTROL}");
    let grpc = container("grpc", &space.agnhost, &["grpc-health-checking", &port]);
    let mut pod = Pod::server(name, &space.agnhost).beside(grpc);
    for (index, probe) in probes.as_array().into_iter().flatten().enumerate() {
        let mut waiting = container(&format!("probe-{index}"), &space.agnhost, &["pause"]);
        waiting["readinessProbe"] = with_period(probe);
        pod = pod.beside(waiting);
    }
    let mut liveness = with_period(&probes[1]);
    liveness["initialDelaySeconds"] = json!(5);
    pod.with("/spec/containers/0/livenessProbe", liveness).manifest()
}

fn with_period(probe: &Value) -> Value {
    let mut probe = probe.clone();
    probe["periodSeconds"] = json!(2);
    probe["timeoutSeconds"] = json!(5);
    probe
}

/// The EndpointSlice says so at once, and traffic follows.
pub fn readiness_moves_a_pod_out_of_its_service_and_into_it(space: &Space<'_>) -> Result {
    let port = format!("--http-port={GRPC_CONTROL}");
    let grpc = json!({ "grpc": { "port": GRPC }, "periodSeconds": 1, "failureThreshold": 1 });
    let control = Pod::running("web", &space.agnhost, &["grpc-health-checking", &port]);
    let server = container("server", &space.agnhost, &["netexec", &format!("--http-port={HTTP}")]);
    let web = control.beside(server).with("/spec/containers/0/readinessProbe", grpc);
    let asker = Pod::running("asker", &space.agnhost, &["pause"]).on(space.worker(0)?);
    space.create([
        web.on(space.worker(1)?).manifest(),
        asker.manifest(),
        service("web", "web", json!([{ "port": 80, "targetPort": HTTP }])),
    ])?;
    space.all_ready(Duration::from_secs(120))?;
    for ready in [true, false, true] {
        if !ready {
            switch(space, "make-not-serving")?;
        } else if !is_ready(space, true)? {
            switch(space, "make-serving")?;
        }
        eventually(&format!("the endpoint is ready: {ready}"), Duration::from_secs(30), || {
            ensure!(is_ready(space, ready)?, "it is not so");
            Ok(())
        })?;
        for address in space.service_addresses("web")? {
            let url = crate::fetch::url(address, 80, "hostname");
            eventually(&format!("{url} answers: {ready}"), Duration::from_secs(20), || {
                let words = ["curl", "--silent", "--fail", "--max-time", "2", &url];
                ensure!(space.exec("asker", &words).is_ok() == ready, "it is not so");
                Ok(())
            })?;
        }
    }
    Ok(())
}

fn switch(space: &Space<'_>, to: &str) -> Result {
    let url = format!("http://localhost:{GRPC_CONTROL}/{to}");
    let words = ["exec", "web", "--container", "server", "--", "curl", "--silent", "--fail", &url];
    space.kubectl(&words).map(|_| ())
}

/// Whether every endpoint of the Service is as said; there is one at least.
fn is_ready(space: &Space<'_>, ready: bool) -> Result<bool> {
    let answer = space.get(&["endpointslices", "--selector", "kubernetes.io/service-name=web"])?;
    let slices = answer["items"].as_array().cloned().unwrap_or_default();
    let endpoints: Vec<&Value> =
        slices.iter().filter_map(|slice| slice["endpoints"].as_array()).flatten().collect();
    Ok(!endpoints.is_empty() && endpoints.iter().all(|endpoint| endpoint["conditions"]["ready"] == ready))
}
