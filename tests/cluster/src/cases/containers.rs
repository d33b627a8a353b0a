//! The containers of a pod share one network, which outlives each of them.

use std::time::Duration;

use serde_json::json;

use crate::ensure;
use crate::fetch::{Asker, In};
use crate::pod::{HTTP, Pod, container};
use crate::process::{Result, eventually};
use crate::space::Space;

/// They reach each other at localhost, and a port can be had once.
pub fn two_containers_share_localhost_and_one_port_space(space: &Space<'_>) -> Result {
    let same_port = format!("--http-port={HTTP}");
    let second = container("second", &space.agnhost, &["netexec", "--http-port=9080", "--udp-port=9081"]);
    let late = container("late", &space.agnhost, &["netexec", &same_port, "--udp-port=9082"]);
    // Later than the first, so that it is the one that finds the port taken.
    let mut late = late;
    let wait = format!(
        "until curl --silent localhost:{HTTP}/ >/dev/null; do sleep 0.1; done; \
         exec /agnhost netexec {same_port} --udp-port=9082"
    );
    late["command"] = json!(["sh", "-c", wait]);
    late["args"] = json!([]);
    let pod = Pod::server("pod", &space.agnhost).beside(second).beside(late);
    space.create([pod.with("/spec/restartPolicy", json!("Never")).manifest()])?;

    let running = "jsonpath={.status.containerStatuses[?(@.name==\"second\")].ready}=true";
    space.kubectl(&["wait", "pod/pod", &format!("--for={running}"), "--timeout=120s"])?;
    for (asker, port) in [("main", "9080"), ("second", "8080")] {
        let answer = eventually("localhost", Duration::from_secs(20), || {
            let url = format!("http://localhost:{port}/hostname");
            space.kubectl(&["exec", "pod", "--container", asker, "--", "curl", "--silent", "--fail", &url])
        })?;
        ensure!(answer.trim() == "pod", "{asker} asks port {port} at localhost: {answer}");
    }
    eventually("the late one ends", Duration::from_secs(60), || {
        let answer = space.get(&["pod", "pod"])?;
        let statuses = answer["status"]["containerStatuses"].as_array().cloned().unwrap_or_default();
        let late = statuses.iter().find(|status| status["name"] == "late").ok_or("no such container")?;
        let code = late["state"]["terminated"]["exitCode"].as_i64().ok_or("it is running")?;
        ensure!(code != 0, "the third container ended well, on a port that is taken");
        Ok(())
    })?;
    let said = space.kubectl(&["logs", "pod", "--container", "late"])?;
    ensure!(said.contains("address already in use"), "the third container says: {said}");
    Ok(())
}

/// It is the pod that has the address.
pub fn a_restarted_container_keeps_the_pods_address(space: &Space<'_>) -> Result {
    let agnhost = &space.agnhost;
    space.create([
        Pod::server("pod", agnhost).on(space.worker(0)?).manifest(),
        Pod::running("asker", agnhost, &["pause"]).on(space.worker(1)?).manifest(),
    ])?;
    space.all_ready(Duration::from_secs(120))?;
    let before = space.addresses("pod")?;
    // Its answer may or may not arrive: it ends.
    let _ = space.exec("pod", &["curl", "--silent", &format!("localhost:{HTTP}/exit?code=3")]);
    eventually("the container restarts", Duration::from_secs(60), || {
        let answer = space.get(&["pod", "pod"])?;
        let status = &answer["status"]["containerStatuses"][0];
        ensure!(status["restartCount"] == 1 && status["ready"] == true, "{status}");
        Ok(())
    })?;
    let after = space.addresses("pod")?;
    ensure!(before == after, "was {before:?}, is {after:?}");
    for address in after {
        In(space, "asker").ask(address, HTTP, "hostname")?;
    }
    Ok(())
}
