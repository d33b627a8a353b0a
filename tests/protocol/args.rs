//! CNI_ARGS: a few keys of ours among everybody else's.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use serde_json::Value;

use kit::ip;
use kit::netns::Namespace;
use kit::network::Network;

/// Adds and removes a pod with these CNI_ARGS; its record and the alias of its host link.
fn attach(network: &Network, args: impl AsRef<OsStr>) -> (Value, String) {
    let pod = Namespace::new("pod");
    let call = |command| network.call_for(command, "c1", &pod).env("CNI_ARGS", args.as_ref()).run();
    let result = call("ADD").success();
    let record = network.store().record("c1");
    let host_link = result["interfaces"][0]["name"].as_str().unwrap();
    let link = ip::link(network.node.namespace(), host_link).unwrap();
    let alias = link["ifalias"].as_str().unwrap().to_owned();
    call("DEL").success();
    network.assert_nothing_remains();
    (record, alias)
}

#[test]
fn the_pods_name_is_shown_on_its_link_and_kept_in_its_record() {
    let network = Network::new("named");
    let args = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;\
                K8S_POD_INFRA_CONTAINER_ID=c1;K8S_POD_UID=0b1e-77";
    let (record, alias) = attach(&network, args);
    assert_eq!(alias, "ferrule:net/c1/eth0 shop/web-0 0b1e-77");
    assert_eq!(record["pod"], serde_json::json!({"namespace": "shop", "name": "web-0", "uid": "0b1e-77"}));
}

/// podman, nerdctl, nomad and cnitool send none of Kubernetes' keys (nomad#16197); others send keys of
/// plugins that are not ours (cni#560).
#[test]
fn keys_of_others_junk_and_no_keys_at_all_are_fine() {
    let network = Network::new("others");
    let bytes = OsStr::from_bytes(b"FOO=\xff\xfe;K8S_POD_NAME=a");
    let huge = format!("FOO={}", "x".repeat(100_000));
    let cases =
        ["", ";", ";;;", "FOO=BAR", "FOO", "=", "=x", "FOO=a=b=c", "IP=", "K8S_POD_NAME=alone", &huge];
    for args in cases.iter().map(OsString::from).chain([bytes.to_owned()]) {
        let (record, alias) = attach(&network, &args);
        assert_eq!(alias, "ferrule:net/c1/eth0", "{args:?}");
        assert_eq!(record["pod"], Value::Null, "{args:?}");
    }
}

/// What somebody may put into a pod's name cannot become a line of a log, an escape sequence on the terminal
/// of whoever runs `ip link`, or another pod's mark of ownership.
#[test]
fn a_pods_name_cannot_forge_anything() {
    let network = Network::new("forged");
    let names = [
        "a\nlevel=warn msg=\"forged\"",
        "\u{1b}[2J",
        "a\rb",
        "a\u{7f}",
        "a b",
        "../../x",
        "ferrule:net/c2/eth0",
        "x/../../y",
        "\u{202e}txt",
        "a\u{0085}b",
        "é",
    ];
    for name in names {
        for args in [
            format!("K8S_POD_NAMESPACE=shop;K8S_POD_NAME={name}"),
            format!("K8S_POD_NAMESPACE={name};K8S_POD_NAME=web"),
            format!("K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web;K8S_POD_UID={name}"),
        ] {
            let (record, alias) = attach(&network, &args);
            assert!(alias.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' '), "{args:?}: {alias:?}");
            assert!(
                alias == "ferrule:net/c1/eth0" || alias == "ferrule:net/c1/eth0 shop/web",
                "{args:?}: {alias:?}"
            );
            assert!(!record.to_string().contains(name), "{record}");
        }
    }
}
