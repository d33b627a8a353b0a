//! `"type": "loopback"`: ferrule in the place of the reference plugin of that name, and compared with it.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use kit::binaries::{FERRULE, REFERENCE_PLUGINS};
use kit::call::Call;
use kit::files::Scratch;
use kit::ip;
use kit::netns::Namespace;
use kit::node::Node;
use kit::pod::Pod;

const VERSIONS: [&str; 7] = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// The newest that the distribution's reference plugin speaks.
const REFERENCE_SPEAKS: &str = "1.0.0";

/// What containerd writes to the plugin.
fn conf(version: &str) -> Value {
    json!({ "cniVersion": version, "name": "cni-loopback", "type": "loopback" })
}

/// ferrule by the name under which a runtime looks for the plugin. A link, as packagers may have it.
fn installed(scratch: &Scratch) -> PathBuf {
    let path = scratch.path().join("loopback");
    if !path.exists() {
        std::os::unix::fs::symlink(&*FERRULE, &path).unwrap();
    }
    path
}

/// A call for a pod, as a runtime makes it; it names the interface `lo`.
fn call(program: Call, pod: &Pod, conf: &Value) -> Call {
    program.container(pod.container()).netns(pod.namespace().path()).ifname("lo").conf(conf)
}

fn ours(command: &str, pod: &Pod, conf: &Value) -> Call {
    call(Call::ferrule(command), pod, conf)
}

fn is_up(namespace: &Namespace) -> bool {
    let flags = ip::link(namespace, "lo").unwrap()["flags"].clone();
    flags.as_array().unwrap().contains(&json!("UP"))
}

/// Without what one plugin writes for "nothing" and the other leaves out, and with the pod's name for its path.
fn normalised(result: Value, pod: &Pod) -> Value {
    let text = result.to_string().replace(&pod.namespace().path().display().to_string(), "SANDBOX");
    let mut result: Value = serde_json::from_str(&text).unwrap();
    if result["dns"] == json!({}) {
        result.as_object_mut().unwrap().remove("dns");
    }
    result
}

/// The reference plugin (1.1.1) answers every version in the form of 1.0.0 where it has no result to pass on; this makes
/// of it what the specification of that version has.
fn in_form_of(version: &str, result: &mut Value) {
    let ips = result["ips"].take();
    let family = |ip: &Value| if ip["address"].as_str().unwrap().contains(':') { "6" } else { "4" };
    if version < "0.3.0" {
        *result = json!({ "cniVersion": version });
        for ip in ips.as_array().unwrap() {
            result[format!("ip{}", family(ip))] = json!({ "ip": ip["address"] });
        }
        return;
    }
    result["ips"] = ips;
    for ip in result["ips"].as_array_mut().unwrap().iter_mut().filter(|_| version < "1.0.0") {
        ip["version"] = json!(family(ip));
    }
}

/// In every version, first of a plugin list and behind another.
#[test]
fn add_answers_as_the_reference_plugin_does() {
    for version in VERSIONS {
        let before = if version < "0.3.0" {
            json!({ "cniVersion": version, "ip4": { "ip": "10.1.2.3/24", "gateway": "10.1.2.1",
                "routes": [{ "dst": "0.0.0.0/0", "gw": "10.1.2.1" }] } })
        } else {
            let mut address = json!({ "interface": 0, "address": "10.1.2.3/24", "gateway": "10.1.2.1" });
            if version < "1.0.0" {
                address["version"] = json!("4");
            }
            json!({ "cniVersion": version, "ips": [address], "routes": [{ "dst": "0.0.0.0/0" }],
                "interfaces": [{ "name": "eth0", "mac": "02:00:00:00:00:01", "sandbox": "/run/netns/x" }],
                "dns": { "nameservers": ["10.1.2.1"], "search": ["cluster.local"] } })
        };
        for previous in [None, Some(&before)] {
            let (pod, other) = (Pod::new("pod"), Pod::new("other"));
            let mut conf = conf(version);
            if let Some(previous) = previous {
                conf["prevResult"] = previous.clone();
            }
            let result = normalised(ours("ADD", &pod, &conf).run().result(), &pod);
            if version > REFERENCE_SPEAKS {
                // As the one before, for there is nothing new in it.
                conf["cniVersion"] = json!(REFERENCE_SPEAKS);
                if let Some(version) = conf.pointer_mut("/prevResult/cniVersion") {
                    *version = json!(REFERENCE_SPEAKS);
                }
            }
            let reference = call(Call::reference("loopback", "ADD"), &other, &conf)
                .env("CNI_PATH", REFERENCE_PLUGINS)
                .run()
                .result();
            let mut reference = normalised(reference, &other);
            reference["cniVersion"] = json!(version);
            if previous.is_none() {
                in_form_of(version, &mut reference);
            }
            assert_eq!(result, reference, "{version}, prevResult {previous:?}");
            assert!(is_up(pod.namespace()) && is_up(other.namespace()));
        }
    }
}

#[test]
fn a_pod_has_its_loopback_in_both_families_until_del() {
    let (node, pod, scratch) = (Node::bare("node"), Pod::new("pod"), Scratch::new("bin"));
    let by_name = |command: &str| {
        let call = call(Call::of(installed(&scratch)), &pod, &conf("1.1.0"));
        call.env("CNI_COMMAND", command).on(node.namespace())
    };
    assert!(!is_up(pod.namespace()));
    let result = by_name("ADD").run().result();
    let sandbox = pod.namespace().path();
    assert_eq!(
        result,
        json!({
            "cniVersion": "1.1.0",
            "interfaces": [{ "name": "lo", "mac": "00:00:00:00:00:00", "sandbox": sandbox }],
            "ips": [{ "interface": 0, "address": "127.0.0.1/8" }, { "interface": 0, "address": "::1/128" }],
        })
    );
    for address in ["127.0.0.1", "::1"] {
        assert!(kit::packets::answers_ping(pod.namespace(), address), "{address}");
    }
    // A second ADD, and a CHECK with and without the result, find all as it should be.
    assert_eq!(by_name("ADD").run().result(), result);
    by_name("CHECK").run().success();
    let mut with_result = conf("1.1.0");
    with_result["prevResult"] = result;
    ours("CHECK", &pod, &with_result).run().success();
    for _ in 0..2 {
        let answer = by_name("DEL").run();
        assert_eq!((answer.success(), answer.stdout.len()), (Value::Null, 0));
        assert!(!is_up(pod.namespace()));
    }
    // CHECK says what is different, whatever became of it.
    for (break_it, word) in [
        ("link set lo down", "lo is down"),
        ("address del 127.0.0.1/8 dev lo", "127.0.0.1/8"),
        ("address del ::1/128 dev lo", "::1/128"),
    ] {
        by_name("ADD").run().result();
        pod.namespace().ip("link set lo up");
        pod.namespace().ip(break_it);
        let complaint = ours("CHECK", &pod, &with_result).run().complaint(105);
        assert!(complaint.contains(word), "{complaint}");
        pod.namespace().ip("link set lo down");
        pod.namespace().ip("address flush dev lo");
    }
}

/// Whatever has become of the namespace since, DEL succeeds, and touches no other.
#[test]
fn del_succeeds_where_there_is_nothing_to_set_down() {
    let (node, pod, scratch) = (Node::bare("node"), Pod::new("pod"), Scratch::new("del"));
    let conf = conf("1.0.0");
    let file = scratch.path().join("file");
    fs::write(&file, "").unwrap();
    let del = ours("DEL", &pod, &conf).on(node.namespace());
    del.clone().without("CNI_NETNS").run().success();
    // /proc/PID/ns/net of a process that ended may be somebody else's by now: the node's own, at worst.
    for path in [file.to_str().unwrap(), "/run/netns/gone", "/proc/self/ns/net", "/proc/self/ns/mnt"] {
        del.clone().netns(path).run().success();
        assert!(is_up(node.namespace()), "{path}");
    }
    // A conf that says nothing of what ADD was told.
    ours("ADD", &pod, &conf).run().success();
    del.conf(&json!({ "type": "loopback", "name": "../x", "prevResult": 7 })).run().success();
    assert!(!is_up(pod.namespace()));
    pod.die();
    ours("DEL", &pod, &conf).run().success();
}

#[test]
fn the_other_commands_have_nothing_to_do() {
    let (pod, node) = (Pod::new("pod"), Node::bare("node"));
    let mut gc = conf("1.1.0");
    gc["cni.dev/valid-attachments"] = json!([]);
    ours("ADD", &pod, &conf("1.1.0")).run().success();
    for (command, conf) in [("STATUS", &conf("1.1.0")), ("GC", &conf("1.1.0")), ("GC", &gc)] {
        let answer = Call::ferrule(command).on(node.namespace()).conf(conf).run();
        assert_eq!((answer.success(), answer.stdout.len()), (Value::Null, 0), "{command}");
    }
    assert!(is_up(pod.namespace()));
    let versions = Call::ferrule("VERSION").conf(&conf("0.4.0")).run().result();
    assert_eq!(versions, json!({ "cniVersion": "0.4.0", "supportedVersions": VERSIONS }));
}

#[test]
fn what_cannot_be_done_is_said_and_nothing_is_written() {
    let (node, pod) = (Node::bare("node"), Pod::new("pod"));
    for version in VERSIONS {
        let add = ours("ADD", &pod, &conf(version)).on(node.namespace());
        add.clone().netns("/run/netns/none").run().failure(102);
        add.clone().netns("/proc/self/ns/net").run().failure(102);
        add.clone().without("CNI_NETNS").run().failure(4);
    }
    let mut wrong = conf("1.0.0");
    wrong["name"] = json!("../x");
    wrong["prevResult"] = json!({ "ips": [{ "address": "x" }] });
    let complaint = ours("ADD", &pod, &wrong).run().complaint(7);
    for path in ["name: ", "prevResult.ips[0].address: "] {
        assert!(complaint.contains(path), "{complaint}");
    }
    ours("CHECK", &pod, &conf("0.4.0")).run().failure(105);
    assert!(!is_up(pod.namespace()));
}

/// A pod without IPv6 has no ::1, and its loopback is as the kernel has it.
#[test]
fn the_result_has_what_the_kernel_has() {
    let pod = Pod::new("pod");
    pod.namespace().set_sysctl("net/ipv6/conf/lo/disable_ipv6", "1");
    pod.namespace().ip("address add 10.96.0.10/32 dev lo");
    let result = ours("ADD", &pod, &conf("1.0.0")).run().result();
    assert_eq!(result["ips"], json!([{ "interface": 0, "address": "127.0.0.1/8" }]));
}

/// No store, no other program, no look at the node: what every pod of a node waits for.
#[test]
fn add_asks_the_kernel_twice_and_opens_no_store() {
    let (pod, scratch) = (Pod::new("pod"), Scratch::new("trace"));
    let trace = scratch.path().join("trace");
    let calls = "trace=execve,openat,mkdir,mkdirat,sendto,sendmsg,clone,clone3";
    let strace = ["strace", "-f", "-qq", "-e", calls, "-o", trace.to_str().unwrap()];
    ours("ADD", &pod, &conf("1.0.0")).through(strace).run().result();
    let seen = fs::read_to_string(&trace).unwrap();
    let count = |word: &str| seen.lines().filter(|line| line.contains(word)).count();
    assert_eq!((count("execve("), count("sendto(") + count("sendmsg(")), (1, 2), "{seen}");
    assert_eq!(count("/var/lib"), 0, "{seen}");
    assert_eq!(count("O_WRONLY") + count("O_RDWR") + count("O_CREAT") + count("mkdir"), 0, "{seen}");
}
