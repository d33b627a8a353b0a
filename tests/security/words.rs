//! Whoever writes into a conf, or has the runtime write (a pod's annotations), writes data. It does not become a line of
//! a log, a command to a terminal, a word of nftables, or a file somewhere else.

use std::fs;

use serde_json::{Value, json};

use kit::files::names_in;
use kit::nft;
use kit::node::Node;
use kit::pod::Pod;

/// What would do harm in a log, on a terminal, as a path, in nftables or in JSON.
const NASTY: [&str; 6] = [
    "x\ntime=2026-01-01T00:00:00Z level=error cmd=ADD msg=\"forged\"",
    "x\u{1b}[2J\u{1b}]0;owned\u{7}\r\u{9b}31m\u{7f}\u{85}\u{2028}\u{202e}",
    "../../../escaped",
    "/escaped/../../x",
    "x\"; flush ruleset; #",
    "$(touch escaped)`touch escaped`%n%s",
];

/// A conf in which everything stands that anybody may write.
fn full(node: &Node) -> Value {
    let mut conf = node.conf();
    // Where the store is once another word stands in ipam.type: then that plugin's ipam has no say in it.
    conf["dataDir"] = conf["ipam"]["dataDir"].clone();
    conf["log"] = json!({ "file": node.scratch().path().join("ferrule.log"), "level": "debug" });
    conf["ipMasq"] = json!(true);
    conf["mtu"] = json!(1400);
    conf["nodeIPs"] = json!(["198.18.0.2", "fd00:18::2"]);
    conf["nonMasqueradeCIDRs"] = json!(["203.0.113.0/24"]);
    conf["sysctl"] = json!({ "net.core.somaxconn": "500" });
    conf["allowedSysctls"] = json!(["net.ipv4.ip_unprivileged_port_start"]);
    conf["peers"] = json!([{"node": "node-b", "podCIDRs": ["10.88.1.0/24"], "nodeIPs": ["198.18.0.1"]}]);
    conf["dns"] =
        json!({ "nameservers": ["10.96.0.10"], "search": ["cluster.local"], "options": ["ndots:5"] });
    conf["args"] = json!({ "cni": { "ips": ["10.88.0.50"] } });
    conf["runtimeConfig"] = json!({
        "mac": "02:11:22:33:44:55",
        "portMappings": [{ "hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": "198.18.0.2" }],
        "io.kubernetes.cri.pod-annotations": {
            "ferrule.dev/mtu": "1400",
            "ferrule.dev/routes": "[{\"dst\": \"203.0.113.0/24\"}]",
            "ferrule.dev/sysctl": "{\"net.ipv4.ip_unprivileged_port_start\": \"80\"}",
            "of.others/key": "value",
        },
    });
    conf
}

/// Where texts stand in a document, as JSON pointers.
fn texts(value: &Value, at: String, found: &mut Vec<String>) {
    match value {
        Value::String(_) => found.push(at),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(n, it)| texts(it, format!("{at}/{n}"), found))
        }
        Value::Object(fields) => fields.iter().for_each(|(name, it)| {
            texts(it, format!("{at}/{}", name.replace('~', "~0").replace('/', "~1")), found);
        }),
        _ => {}
    }
}

/// Nothing that a terminal takes for anything but a letter.
fn is_plain(text: &str) -> bool {
    text.chars()
        .all(|it| !it.is_control() && !matches!(it, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}'))
}

/// Every line is one that ferrule wrote by itself.
fn expect_log(text: &str, when: &str) {
    for line in text.lines() {
        assert!(is_plain(line), "{when}: {line:?}");
        let (time, rest) = line.split_once(' ').unwrap_or_default();
        let begins = if time.starts_with("time=") { rest } else { line };
        assert!(begins.starts_with("level="), "{when}: {line:?}");
        assert!(
            !line.starts_with("time=2026-01-01T00:00:00Z level=error cmd=ADD msg=\"forged\""),
            "{when}: {line:?}"
        );
    }
}

#[test]
fn no_text_of_a_conf_becomes_anything_but_a_text() {
    let node = Node::new();
    let conf = full(&node);
    let pod = Pod::new("pod");
    node.call_for("ADD", &pod, &conf).run().result();
    node.del(&pod, &conf);
    let mut places = Vec::new();
    texts(&conf, String::new(), &mut places);
    assert!(places.len() > 25, "{places:?}");
    let top = names_in(node.scratch().path());
    for place in &places {
        for nasty in NASTY {
            // dataDir and the log are the administrator's to choose, so paths there are no attack.
            let is_path = ["/dataDir", "/ipam/dataDir", "/log/file"].contains(&place.as_str());
            if is_path && nasty.contains('/') {
                continue;
            }
            let mut conf = conf.clone();
            *conf.pointer_mut(place).unwrap() = json!(nasty);
            let when = format!("{place} = {nasty:?}");
            for command in ["ADD", "DEL"] {
                let answer = node.call_for(command, &pod, &conf).run();
                // One document or nothing, in which text is escaped as JSON escapes it.
                let said = answer.document().unwrap_or_default();
                for word in ["msg", "details"] {
                    let text = said[word].as_str().unwrap_or_default();
                    assert!(is_plain(text), "{command}, {when}: {text:?}");
                }
                expect_log(&answer.stderr, &when);
            }
            // Whatever was made and is still there, the conf as it should be takes away.
            if !node.known_attachments().is_empty() {
                node.del(&pod, &self::full(&node));
            }
        }
    }
    expect_log(&fs::read_to_string(node.scratch().path().join("ferrule.log")).unwrap(), "in the file");
    assert_eq!(names_in(node.scratch().path()), top, "files in other places");
    assert!(!std::path::Path::new("/escaped").exists());
    let table = nft::run(node.namespace(), "list ruleset").unwrap();
    assert!(table.lines().all(|line| is_plain(&line.replace('\t', ""))), "{table}");
    node.expect_nothing_left();
}

/// What runtimes hand over besides the conf. What is refused for its name is in `protocol::environment`.
#[test]
fn no_variable_becomes_anything_but_a_text() {
    let node = Node::new();
    let conf = full(&node);
    let top = |node: &Node| names_in(node.scratch().path());
    let pod = Pod::new("pod");
    node.add(&pod, &conf);
    node.del(&pod, &conf);
    let before = top(&node);
    for name in [
        "CNI_CONTAINERID",
        "CNI_IFNAME",
        "CNI_NETNS",
        "CNI_ARGS",
        "CNI_PATH",
        "CNI_NETNS_OVERRIDE",
        "TRACEPARENT",
    ] {
        for nasty in NASTY {
            for value in [
                nasty.to_owned(),
                format!("K8S_POD_NAMESPACE={nasty};K8S_POD_NAME={nasty};K8S_POD_UID={nasty}"),
            ] {
                for command in ["ADD", "DEL", "CHECK"] {
                    let answer = node.call_for(command, &pod, &conf).env(name, &value).run();
                    let said = answer.document().unwrap_or_default();
                    let when = format!("{command} with {name} = {value:?}");
                    for word in ["msg", "details"] {
                        assert!(is_plain(said[word].as_str().unwrap_or_default()), "{when}: {said}");
                    }
                    expect_log(&answer.stderr, &when);
                }
                if !node.known_attachments().is_empty() {
                    node.del(&pod, &conf);
                }
            }
        }
    }
    expect_log(&fs::read_to_string(node.scratch().path().join("ferrule.log")).unwrap(), "in the file");
    assert_eq!(top(&node), before, "files in other places");
    node.expect_nothing_left();
}
