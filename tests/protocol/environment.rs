//! The variables by which a runtime says what it wants, each missing and each malformed.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use kit::call::Call;
use kit::netns::Namespace;
use kit::network::Network;

const NEEDED: [&str; 3] = ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"];

/// A complete call on a namespace that exists, so that whatever is not refused would be made.
fn complete(network: &Network, command: &str, pod: &Namespace) -> Call {
    network.call_for(command, "c1", pod).env("CNI_ARGS", "IgnoreUnknown=1").env("CNI_PATH", "/opt/cni/bin")
}

/// Refused before anything is made: not even the store's directory.
fn expect_untouched(network: &Network) {
    network.assert_nothing_remains();
    assert!(!network.node.data_dir().exists(), "dataDir was made");
}

#[test]
fn each_variable_that_is_missing_or_empty_is_named() {
    let network = Network::new("missing");
    let pod = Namespace::new("pod");
    for name in NEEDED {
        for command in ["ADD", "CHECK", "DEL"] {
            if (command, name) == ("DEL", "CNI_NETNS") {
                continue;
            }
            let call = complete(&network, command, &pod);
            for call in [call.clone().without(name), call.env(name, "")] {
                let complaint = call.run().complaint(4);
                assert!(complaint.contains(&format!("{name} is not set")), "{command}: {complaint}");
                let others = NEEDED.iter().filter(|other| **other != name);
                assert!(others.clone().all(|other| !complaint.contains(other)), "{command}: {complaint}");
            }
        }
    }
    expect_untouched(&network);
}

#[test]
fn all_that_is_missing_or_malformed_is_told_in_one_answer() {
    let network = Network::new("all");
    for command in ["ADD", "CHECK"] {
        let complaint = network.call(command).run().complaint(4);
        assert!(NEEDED.iter().all(|name| complaint.contains(name)), "{complaint}");
        let call = network.call(command).env("CNI_CONTAINERID", "a/b").env("CNI_IFNAME", "..");
        let complaint = call.env("CNI_ARGS", "IP=nowhere").run().complaint(4);
        for told in
            ["CNI_CONTAINERID has '/'", "CNI_NETNS is not set", "CNI_IFNAME is \"..\"", "CNI_ARGS asks"]
        {
            assert!(complaint.contains(told), "{told}: {complaint}");
        }
    }
    expect_untouched(&network);
}

/// These become file names, link names and log fields.
#[test]
fn a_value_that_is_a_path_is_refused() {
    let network = Network::new("malformed");
    let pod = Namespace::new("pod");
    let long = "x".repeat(300);
    let words =
        ["..", ".", "../../etc/x", "a/b", "/", "a\nb", "a\tb", "a b", "\u{1b}[2J", "é", long.as_str()];
    let ids = ["-c", "_c", ".c", "a:b", "a@b"];
    let names = ["abcdefghijklmnop", "a:b", "eth%d"];
    let paths = ["relative/path", "../x", "/run/netns/a\nb", "/run/\u{7f}"];
    let cases = words.iter().chain(&ids).map(|value| ("CNI_CONTAINERID", *value));
    let cases = cases.chain(words.iter().chain(&names).map(|value| ("CNI_IFNAME", *value)));
    let cases = cases.chain(paths.iter().map(|value| ("CNI_NETNS", *value)));
    for (name, value) in cases {
        for command in ["ADD", "CHECK", "DEL"] {
            if (command, name) == ("DEL", "CNI_NETNS") {
                continue;
            }
            let complaint = complete(&network, command, &pod).env(name, value).run().complaint(4);
            assert!(complaint.contains(name), "{command} {value:?}: {complaint}");
            assert!(!complaint.contains(['\n', '\u{1b}', '\u{7f}']), "{command} {value:?}: {complaint:?}");
        }
    }
    expect_untouched(&network);
}

#[test]
fn bytes_that_are_no_utf8_are_refused_in_names() {
    let network = Network::new("bytes");
    let pod = Namespace::new("pod");
    for name in NEEDED {
        let value = OsStr::from_bytes(b"/x\xff");
        let complaint = complete(&network, "ADD", &pod).env(name, value).run().complaint(4);
        assert!(complaint.contains(&format!("{name} is not UTF-8")), "{complaint}");
    }
    expect_untouched(&network);
}

/// Whatever a runtime still knows of a container that is gone: the DEL gets through (cri-o#2849).
#[test]
fn a_del_does_not_care_what_has_become_of_the_namespaces_path() {
    let network = Network::new("del");
    let pod = Namespace::new("pod");
    let overlong = OsString::from_vec([b"/".to_vec(), vec![b'x'; 5000]].concat());
    let bytes = OsString::from_vec(b"/x\xff".to_vec());
    for netns in
        [OsString::from("relative"), "/no/such".into(), "/dev/null".into(), overlong, bytes, "".into()]
    {
        complete(&network, "ADD", &pod).run().success();
        complete(&network, "DEL", &pod).env("CNI_NETNS", &netns).run().success();
        network.assert_nothing_remains();
    }
    complete(&network, "ADD", &pod).run().success();
    complete(&network, "DEL", &pod).without("CNI_NETNS").env("CNI_ARGS", "IP=nowhere").run().success();
    network.assert_nothing_remains();
}

#[test]
fn an_unknown_command_is_refused_with_the_list() {
    for command in ["", "add", "ADD ", "UPDATE", "VERSION\n"] {
        let complaint = Call::ferrule(command).run().complaint(4);
        for known in ["ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION"] {
            assert!(complaint.contains(known), "{command:?}: {complaint}");
        }
    }
    let answer = Call::of(&*kit::binaries::FERRULE).env("CNI_COMMAND", OsStr::from_bytes(b"\xff")).run();
    answer.failure(4);
}

/// The longest names that are still names reach every place that they have to: file, link, alias.
#[test]
fn the_longest_names_that_are_accepted_work() {
    let mut network = Network::new("longest");
    let pod = Namespace::new("pod");
    network.conf["name"] = "n".repeat(96).into();
    let container = "c".repeat(128);
    let args = format!("K8S_POD_NAMESPACE={};K8S_POD_NAME={}", "s".repeat(253), "p".repeat(253));
    let call = |command| {
        let call = network.call_for(command, &container, &pod).env("CNI_IFNAME", "abcdefghijklmno");
        call.env("CNI_ARGS", &args).run()
    };
    let result = call("ADD").success();
    assert_eq!(result["interfaces"][1]["name"], "abcdefghijklmno");
    call("DEL").success();
    assert_eq!(network.links(), Vec::<String>::new());
}
