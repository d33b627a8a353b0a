//! ferrule as main plugin with the addresses of another IPAM plugin: the distribution's host-local, and
//! programs that do everything wrong that such a plugin can do.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use kit::binaries::REFERENCE_PLUGINS;
use kit::call::Call;
use kit::files::names_in;
use kit::ip;
use kit::netns::Namespace;
use kit::network::Network;
use kit::packets::answers_ping;
use kit::pod::addresses_of;

/// A network whose addresses come from `plugin`, looked for in the scratch directory and then among the reference
/// plugins.
fn network(plugin: &str) -> Network {
    let mut network = Network::new(plugin);
    network.conf["dataDir"] = network.conf["ipam"]["dataDir"].take();
    network.conf["ipam"]["type"] = json!(plugin);
    network.conf["ipam"]["dataDir"] = json!(network.node.scratch().path().join(plugin).with_extension("d"));
    network
}

fn call(network: &Network, command: &str, container: &str, pod: &Namespace) -> Call {
    let path = format!("{}:{REFERENCE_PLUGINS}", network.node.scratch().path().display());
    network.call_for(command, container, pod).env("CNI_PATH", path)
}

/// A network whose IPAM plugin is a shell script. It writes its commands to `commands`; `on_add` is what it
/// does for ADD, anything else it grants.
fn scripted(role: &str, on_add: &str) -> Network {
    let network = network(role);
    let log = network.node.scratch().path().join("commands");
    let script = format!(
        "#!/bin/sh\necho $CNI_COMMAND >>{}\n[ $CNI_COMMAND = ADD ] || exit 0\n{on_add}\n",
        log.display()
    );
    let program = network.node.scratch().path().join(role);
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    network
}

/// The commands that the script was given.
fn commands(network: &Network) -> Vec<String> {
    let text = fs::read_to_string(network.node.scratch().path().join("commands")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// What host-local holds for the network: its files that are addresses.
fn held_by_host_local(network: &Network) -> Vec<String> {
    let mut held = names_in(&network.node.scratch().path().join("host-local.d/net"));
    held.retain(|name| name.parse::<std::net::IpAddr>().is_ok());
    held
}

/// An ADD that fails with `code`, after which nothing is left and the plugin was asked to take back
/// (SPEC section 4: it must be executed with DEL before the failure is returned).
fn expect_taken_back(network: &Network, code: u64) -> String {
    let pod = Namespace::new("pod");
    let answer = call(network, "ADD", "c1", &pod).run();
    let complaint = answer.complaint(code);
    assert!(answer.stdout.len() < 8192, "an answer that nobody can read: {} bytes", answer.stdout.len());
    assert_eq!(commands(network), ["ADD", "DEL"], "{complaint}");
    network.assert_nothing_remains();
    assert_eq!(ip::links(&pod).len(), 1);
    complaint
}

#[test]
fn a_pod_lives_and_dies_with_an_address_of_host_local() {
    let mut network = network("host-local");
    for version in ["0.3.1", "0.4.0", "1.0.0"] {
        network.conf["cniVersion"] = json!(version);
        let pod = Namespace::new("pod");
        let container = format!("c-{version}");
        let result = call(&network, "ADD", &container, &pod).run().success();
        let held = held_by_host_local(&network);
        assert_eq!(held.len(), 2, "{held:?}");
        for (ip, address) in result["ips"].as_array().unwrap().iter().zip(&held) {
            assert_eq!(ip["address"].as_str().unwrap().split('/').next().unwrap(), address);
            assert_eq!(ip["interface"], 1);
            let found = ip::addresses(&pod, "eth0");
            assert!(found.iter().any(|it| it["local"] == **address), "{found:?}");
        }
        assert_eq!(network.held(), held, "what DEL and GC work from");
        assert_eq!(result["routes"], json!([{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]));

        network.conf["prevResult"] = result;
        if version != "0.3.1" {
            call(&network, "CHECK", &container, &pod).run().success();
        }
        for _ in 0..2 {
            call(&network, "DEL", &container, &pod).run().success();
        }
        network.conf.as_object_mut().unwrap().remove("prevResult");
        assert_eq!(held_by_host_local(&network), Vec::<String>::new());
        network.assert_nothing_remains();
    }
}

#[test]
fn a_pod_with_an_address_of_host_local_is_reached_from_its_node() {
    let network = network("host-local");
    let pod = Namespace::new("pod");
    let result = call(&network, "ADD", "c1", &pod).run().success();
    for address in addresses_of(&result) {
        assert!(answers_ping(network.node.namespace(), &address), "no answer from {address}");
    }
}

#[test]
fn host_locals_own_error_is_passed_on_with_its_code_and_words() {
    let mut network = network("host-local");
    network.conf["ipam"]["ranges"] = json!([[{"subnet": "10.77.1.0/30"}]]);
    let (a, b) = (Namespace::new("a"), Namespace::new("b"));
    call(&network, "ADD", "a", &a).run().success();
    let answer = call(&network, "ADD", "b", &b).run();
    let error = answer.document().unwrap();
    assert!(!answer.status.success());
    assert!(error.to_string().contains("no IP addresses available in range set"), "{error}");
    assert_eq!(error["cniVersion"], "1.0.0");
    assert_eq!(network.known(), ["a@eth0"]);
    assert_eq!(held_by_host_local(&network), ["10.77.1.2"]);
    assert_eq!(network.links().len(), 1);

    network.conf["prevResult"] = json!({"cniVersion": "1.0.0", "ips": []});
    fs::remove_file(network.node.scratch().path().join("host-local.d/net/10.77.1.2")).unwrap();
    let error = call(&network, "CHECK", "a", &a).run().document().unwrap();
    assert!(error.to_string().contains("ailed to find address"), "{error}");
}

#[test]
fn a_missing_plugin_is_named_with_the_searched_places() {
    let network = network("no-such-ipam");
    let pod = Namespace::new("pod");
    let complaint = call(&network, "ADD", "c1", &pod).run().complaint(4);
    for told in [
        "no-such-ipam",
        "ipam.type",
        REFERENCE_PLUGINS,
        network.node.scratch().path().to_str().unwrap(),
        "install",
    ] {
        assert!(complaint.contains(told), "{told}: {complaint}");
    }
    let complaint = call(&network, "ADD", "c1", &pod).without("CNI_PATH").run().complaint(4);
    assert!(complaint.contains("CNI_PATH"), "{complaint}");
    network.assert_nothing_remains();
}

#[test]
fn a_plugins_name_cannot_lead_out_of_cni_path() {
    let mut network = network("escape");
    let pod = Namespace::new("pod");
    for name in ["../bin/sh", "/bin/sh", "..", ".", "a/b"] {
        network.conf["ipam"]["type"] = json!(name);
        let complaint = call(&network, "ADD", "c1", &pod).run().complaint(7);
        assert!(complaint.contains("ipam.type"), "{name}: {complaint}");
    }
}

/// The delegate works with the same parameters and the same conf, whatever is in it.
#[test]
fn the_plugin_gets_our_environment_and_the_whole_conf() {
    let mut network = scripted(
        "faithful",
        "cd \"$(dirname \"$0\")\"; cat >conf; env >environment; echo '{\"ips\":[{\"address\":\"10.77.1.9/24\"}]}'",
    );
    network.conf["ipam"]["x-own"] = json!({"of": ["the", "plugin", 1.5, null]});
    let pod = Namespace::new("pod");
    call(&network, "ADD", "c1", &pod).env("CNI_ARGS", "FOO=bar").env("OTHER", "kept").run().success();
    let read = |name: &str| fs::read_to_string(network.node.scratch().path().join(name)).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&read("conf")).unwrap(), network.conf);
    let environment = read("environment");
    let netns = format!("CNI_NETNS={}", pod.path().display());
    for line in
        ["CNI_COMMAND=ADD", "CNI_CONTAINERID=c1", "CNI_IFNAME=eth0", "CNI_ARGS=FOO=bar", "OTHER=kept", &netns]
    {
        assert!(environment.lines().any(|found| found == line), "{line}: {environment}");
    }
    assert!(environment.contains("CNI_PATH="), "{environment}");
}

/// A pipe holds 64 KiB: whoever waits for a plugin to read more than that waits for ever.
#[test]
fn a_plugin_need_not_read_a_large_conf() {
    let mut network = scripted(
        "deaf",
        "exec <&-; echo '{\"cniVersion\":\"1.0.0\",\"ips\":[{\"address\":\"10.77.1.9/24\"}]}'",
    );
    network.conf["x-large"] = json!("x".repeat(1 << 20));
    let pod = Namespace::new("pod");
    let result = call(&network, "ADD", "c1", &pod).run().success();
    assert_eq!(result["ips"][0]["address"], "10.77.1.9/32");
    call(&network, "DEL", "c1", &pod).run().success();
    assert_eq!(commands(&network), ["ADD", "DEL"]);
    network.assert_nothing_remains();
}

#[test]
fn an_answer_that_is_no_result_fails_the_add_and_is_taken_back() {
    for (role, answer) in [
        ("silent", "true"),
        ("garbage", "echo garbage"),
        ("two", "echo '{\"ips\":[]}{}'"),
        ("empty", "echo '{\"cniVersion\":\"1.0.0\",\"ips\":[]}'"),
        ("noaddress", "echo '{\"ips\":[{}]}'"),
        ("malformed", "echo '{\"ips\":[{\"address\":\"10.77.1.300/24\"}]}'"),
        ("list", "echo '[]'"),
        ("binary", "head -c 1000 /dev/urandom"),
        ("endless", "exec cat /dev/zero"),
    ] {
        let network = scripted(role, answer);
        let complaint = expect_taken_back(&network, 6);
        assert!(complaint.contains(&format!("\"{role}\"")), "names the plugin: {complaint}");
    }
}

#[test]
fn a_plugin_that_dies_is_named_and_asked_to_take_back() {
    for (role, death, told) in [
        ("killed", "kill -9 $$", "signal: 9"),
        ("fails", "exit 3", "exit status: 3"),
        ("babbles", "echo some text; exit 1", "some text"),
        ("floods", "head -c 500000 /dev/zero | tr '\\0' x; exit 1", "exit status: 1"),
    ] {
        let network = scripted(role, death);
        let complaint = expect_taken_back(&network, 5);
        assert!(complaint.contains(role) && complaint.contains(told), "{complaint}");
    }
}

#[test]
fn a_plugins_error_is_passed_on_and_it_is_asked_to_take_back() {
    let network = scripted(
        "refuses",
        "echo '{\"code\": 123, \"msg\": \"no more\", \"details\": \"of anything\"}'; exit 1",
    );
    assert_eq!(expect_taken_back(&network, 123), "no more: of anything");
}

#[test]
fn a_plugin_that_cannot_be_executed_is_an_error_that_says_why() {
    let network = scripted("sealed", "true");
    let program = network.node.scratch().path().join("sealed");
    fs::write(&program, "\u{7f}no program").unwrap();
    let pod = Namespace::new("pod");
    let complaint = call(&network, "ADD", "c1", &pod).run().complaint(5);
    assert!(complaint.contains("sealed") && complaint.contains("os error"), "{complaint}");
    network.assert_nothing_remains();
}

/// A pod that waits for ever for its address keeps kubelet's worker for ever. What the plugin started keeps
/// our stderr open, and a runtime waits for its end: it must go too.
#[test]
fn a_plugin_that_hangs_is_killed_with_its_children() {
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for (role, hang) in [("hangs", "exec sleep 45"), ("forks", "sleep 45; true")] {
            scope.spawn(move || {
                let network = scripted(role, hang);
                let complaint = expect_taken_back(&network, 11);
                assert!(complaint.contains(role) && complaint.contains("killed"), "{complaint}");
            });
        }
    });
    let waited = begun.elapsed();
    assert!(waited > Duration::from_secs(8) && waited < Duration::from_secs(30), "{waited:?}");
}

/// The plugin did its part, and then the kernel would not have it.
#[test]
fn a_failed_add_gives_the_plugins_address_back() {
    let network = network("host-local");
    let pod = Namespace::new("pod");
    pod.ip("link add eth0 type veth peer other");
    call(&network, "ADD", "c1", &pod).run().complaint(101);
    assert_eq!(held_by_host_local(&network), Vec::<String>::new());
    network.assert_nothing_remains();
}

/// A second ADD of what stands must not cost a second address of the other plugin, nor the first one.
#[test]
fn a_second_add_leaves_the_first_and_its_address_alone() {
    let network = network("host-local");
    let pod = Namespace::new("pod");
    call(&network, "ADD", "c1", &pod).run().success();
    let held = held_by_host_local(&network);
    call(&network, "ADD", "c1", &pod).run().complaint(101);
    assert_eq!(held_by_host_local(&network), held);
    assert!(ip::link(&pod, "eth0").is_some());
}

/// Killed between the plugin's ADD and the end of its own (P1, P12): whoever comes next has the plugin take back.
#[test]
fn the_next_add_or_del_returns_the_address_of_a_killed_add() {
    let answer = "echo '{\"ips\":[{\"address\":\"10.77.1.9/24\"}]}'";
    for next in ["ADD", "DEL"] {
        let network =
            scripted("deadly", "cd \"$(dirname \"$0\")\"; [ -e dead ] || { touch dead; kill -9 $PPID; }");
        let program = network.node.scratch().path().join("deadly");
        let script = fs::read_to_string(&program).unwrap();
        fs::write(&program, script + answer).unwrap();
        let pod = Namespace::new("pod");
        let killed = call(&network, "ADD", "c1", &pod).spawn().wait_for_any_end();
        assert!(!killed.status.success() && killed.stdout.is_empty(), "{killed:?}");

        call(&network, next, "c1", &pod).run().success();
        if next == "ADD" {
            assert_eq!(commands(&network), ["ADD", "DEL", "ADD"]);
            assert_eq!(network.held(), ["10.77.1.9"]);
            call(&network, "DEL", "c1", &pod).run().success();
        } else {
            assert_eq!(commands(&network), ["ADD", "DEL"]);
        }
        network.assert_nothing_remains();
    }
}

/// A runtime that retries while its first attempt still runs: what one of them is refused must not take the
/// other's address from under it.
#[test]
fn of_many_delegated_adds_at_once_one_keeps_the_address() {
    let network = &network("host-local");
    let pod = &Namespace::new("pod");
    let answers: Vec<_> = std::thread::scope(|scope| {
        let lanes: Vec<_> =
            (0..12).map(|_| scope.spawn(move || call(network, "ADD", "c1", pod).run())).collect();
        lanes.into_iter().map(|lane| lane.join().unwrap()).collect()
    });
    let won: Vec<_> = answers.iter().filter(|answer| answer.status.success()).collect();
    assert_eq!(won.len(), 1, "{answers:?}");
    let result = won[0].success();
    let address = |index: usize| result["ips"][index]["address"].as_str().unwrap().split('/').next().unwrap();
    assert_eq!(held_by_host_local(network), [address(0), address(1)]);
    assert_eq!(network.held(), [address(0), address(1)]);
    call(network, "DEL", "c1", pod).run().success();
    assert_eq!(held_by_host_local(network), Vec::<String>::new());
    network.assert_nothing_remains();
}

/// An address stays known until the plugin whose it is has taken it back.
#[test]
fn a_del_that_the_plugin_refuses_can_be_tried_again() {
    let network = scripted("flaky", "echo '{\"ips\":[{\"address\":\"10.77.1.9/24\"}]}'");
    let pod = Namespace::new("pod");
    call(&network, "ADD", "c1", &pod).run().success();
    let program = network.node.scratch().path().join("flaky");
    let script = fs::read_to_string(&program).unwrap();
    fs::write(&program, "#!/bin/sh\necho '{\"code\": 11, \"msg\": \"busy\"}'; exit 1\n").unwrap();
    assert_eq!(call(&network, "DEL", "c1", &pod).run().complaint(11), "busy: ");
    assert_eq!(network.known(), ["c1@eth0"]);
    fs::write(&program, script).unwrap();
    call(&network, "DEL", "c1", &pod).run().success();
    network.assert_nothing_remains();
}

#[test]
fn gc_and_status_reach_the_plugin() {
    let mut network = scripted("keeper", "echo '{\"ips\":[{\"address\":\"10.77.1.9/24\"}]}'");
    network.conf["cniVersion"] = json!("1.1.0");
    let pod = Namespace::new("pod");
    call(&network, "ADD", "c1", &pod).run().success();
    call(&network, "STATUS", "c1", &pod).run().success();
    network.conf["cni.dev/valid-attachments"] = json!([{"containerID": "c1", "ifname": "eth0"}]);
    call(&network, "GC", "c1", &pod).run().success();
    assert_eq!(network.known(), ["c1@eth0"]);
    network.conf["cni.dev/valid-attachments"] = json!([]);
    call(&network, "GC", "c1", &pod).run().success();
    assert_eq!(commands(&network), ["ADD", "STATUS", "GC", "GC"]);
    network.assert_nothing_remains();

    let program = network.node.scratch().path().join("keeper");
    fs::write(&program, "#!/bin/sh\necho '{\"code\": 50, \"msg\": \"not today\"}'; exit 1\n").unwrap();
    for command in ["STATUS", "GC"] {
        assert_eq!(call(&network, command, "c1", &pod).run().complaint(50), "not today: ");
    }
}

/// The other plugin knows that the pod is gone, and gives its address to the next one; ferrule was never told.
#[test]
fn an_address_that_the_dead_hold_is_taken_from_the_plugin() {
    let network = scripted(
        "knows",
        "echo '{\"ips\":[{\"address\":\"10.77.1.9/24\"},{\"address\":\"fd00:77::9/64\"}]}'",
    );
    let (gone, pod, late) = (Namespace::new("gone"), Namespace::new("pod"), Namespace::new("late"));
    call(&network, "ADD", "dead", &gone).run().success();
    let link = network.links()[0].clone();
    drop(gone);
    network.node.wait_for_end(&link);
    let result = call(&network, "ADD", "next", &pod).run().success();
    assert_eq!(addresses_of(&result), ["10.77.1.9", "fd00:77::9"]);
    let on_link = ip::addresses(&pod, "eth0");
    assert!(on_link.iter().any(|address| address["local"] == "10.77.1.9"), "{on_link:?}");
    assert_eq!(network.known(), ["next@eth0"]);
    // That of a pod that lives is refused, and given back.
    let said = call(&network, "ADD", "late", &late).run().complaint(101);
    assert!(said.contains("next"), "{said}");
    assert_eq!(commands(&network), ["ADD", "ADD", "ADD", "DEL"]);
    call(&network, "DEL", "next", &pod).run().success();
    network.assert_nothing_remains();
}

/// Somebody removed ferrule's store and the plugin's, and the plugin gives what a running pod has.
#[test]
fn an_address_of_a_pod_without_a_record_is_refused_by_its_name() {
    let network = scripted(
        "forgets",
        "echo '{\"ips\":[{\"address\":\"10.77.1.9/24\",\"gateway\":\"10.77.1.1\"},{\"address\":\"fd00:77::9/64\",\"gateway\":\"fd00:77::1\"}],\
         \"routes\":[{\"dst\":\"0.0.0.0/0\"},{\"dst\":\"::/0\"}]}'",
    );
    let (pod, late) = (Namespace::new("pod"), Namespace::new("late"));
    let result = call(&network, "ADD", "first", &pod).run().success();
    let link = network.links()[0].clone();
    fs::remove_dir_all(network.conf["dataDir"].as_str().unwrap()).unwrap();
    let said = call(&network, "ADD", "late", &late).run().complaint(101);
    for word in ["10.77.1.9", "\"forgets\"", "record is lost", &link, "first", "ferrulectl sync"] {
        assert!(said.contains(word), "{word}: {said}");
    }
    assert_eq!(commands(&network), ["ADD", "ADD", "DEL"]);
    for address in addresses_of(&result) {
        assert!(answers_ping(network.node.namespace(), &address), "{address} is the first pod's still");
    }
}

/// What an ADD left that was killed before its end, and whose record is lost: nobody uses that.
#[test]
fn an_address_of_an_add_that_did_not_live_is_taken_from_the_plugin() {
    let network = scripted(
        "knowing",
        "echo '{\"ips\":[{\"address\":\"10.77.1.9/24\",\"gateway\":\"10.77.1.1\"},{\"address\":\"fd00:77::9/64\",\"gateway\":\"fd00:77::1\"}],\
         \"routes\":[{\"dst\":\"0.0.0.0/0\"},{\"dst\":\"::/0\"}]}'",
    );
    let (dead, pod) = (Namespace::new("dead"), Namespace::new("pod"));
    call(&network, "ADD", "dead", &dead).run().success();
    let link = network.links()[0].clone();
    // The alias is an ADD's last step.
    network.node.namespace().sh(&format!("ip link set dev {link} alias ''"));
    fs::remove_dir_all(network.conf["dataDir"].as_str().unwrap()).unwrap();
    let result = call(&network, "ADD", "next", &pod).run().success();
    assert_eq!(addresses_of(&result), ["10.77.1.9", "fd00:77::9"]);
    assert_eq!(network.links().len(), 1);
    for address in addresses_of(&result) {
        assert!(answers_ping(network.node.namespace(), &address), "no answer from {address}");
    }
    call(&network, "DEL", "next", &pod).run().success();
    network.assert_nothing_remains();
}
