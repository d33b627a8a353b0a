//! stdout belongs to the protocol: one JSON document or nothing, and a reader that must be there.

use serde_json::{Value, json};

use kit::call::Call;
use kit::netns::Namespace;
use kit::network::Network;

#[test]
fn stdout_is_one_document_or_nothing_for_every_command() {
    let mut network = Network::new("stdout");
    network.conf["cniVersion"] = json!("1.1.0");
    let pod = Namespace::new("pod");
    let speaks = |call: &Call| {
        let answer = call.run();
        answer.success();
        assert_eq!(answer.stderr, "");
        if !answer.stdout.is_empty() {
            assert!(answer.stdout.ends_with(b"}\n"), "cat shows it on lines of its own");
        }
        answer.document()
    };
    let result = speaks(&network.call_for("ADD", "c1", &pod)).expect("ADD's result");
    network.conf["prevResult"] = result;
    assert_eq!(speaks(&network.call_for("CHECK", "c1", &pod)), None);
    assert_eq!(speaks(&network.call("STATUS")), None);
    assert!(speaks(&network.call("VERSION")).is_some());
    assert_eq!(speaks(&network.call_for("DEL", "c1", &pod)), None);
    let mut conf = network.conf.clone();
    conf["cni.dev/valid-attachments"] = json!([]);
    assert_eq!(speaks(&network.call("GC").conf(&conf)), None);
}

#[test]
fn an_error_is_one_object_with_code_msg_and_the_confs_version() {
    let mut network = Network::new("errors");
    let pod = Namespace::new("pod");
    for version in ["0.1.0", "0.4.0", "1.1.0"] {
        network.conf["cniVersion"] = json!(version);
        let calls = [
            network.call("ADD"),
            network.call("ADD").attachment("c1", "/no/such"),
            network.call_for("ADD", "c1", &pod).env("CNI_ARGS", "IP=192.0.2.1"),
        ];
        for (call, code) in calls.iter().zip([4, 102, 7]) {
            let answer = call.run();
            let error = answer.failure(code);
            assert_eq!(error["cniVersion"], version);
            let keys: Vec<&String> = error.as_object().unwrap().keys().collect();
            assert!(keys.iter().all(|key| ["cniVersion", "code", "msg", "details"].contains(&key.as_str())));
            assert!(error.as_object().unwrap().values().all(|value| *value != Value::Null));
        }
    }
    network.assert_nothing_remains();
}

/// The runtime that would have kept the result is gone: nobody would ever DEL this pod.
#[test]
fn an_add_that_nobody_can_read_is_taken_back() {
    for (role, make) in [("main", Network::new as fn(&str) -> Network), ("ipam", Network::for_ipam)] {
        let network = make(role);
        let pod = Namespace::new("pod");
        let add = network.call_for("ADD", "c1", &pod);
        let redirected = |redirection| add.clone().through(["sh", "-c", redirection]);
        let calls =
            [redirected("exec \"$0\" >/dev/full"), redirected("exec \"$0\" >&-"), add.clone().unread()];
        for (call, what) in calls.iter().zip(["full", "closed", "gone"]) {
            let answer = call.run();
            assert_eq!(answer.status.code(), Some(1), "{role} {what}: {answer:?}");
            network.assert_nothing_remains();
            let in_pod = kit::ip::links(&pod);
            assert_eq!(in_pod.len(), 1, "{role} {what}: {in_pod:?}");
        }
    }
}
