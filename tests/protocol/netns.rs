//! CNI_NETNS names something that is no pod's network namespace.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use kit::ip;
use kit::netns::Namespace;
use kit::network::Network;

#[test]
fn a_path_that_is_no_network_namespace_is_refused() {
    let network = Network::new("kinds");
    let at = |name: &str| network.node.scratch().path().join(name);
    File::create(at("file")).unwrap();
    fs::create_dir(at("directory")).unwrap();
    network.node.scratch().make_fifo("fifo");
    let _listener = UnixListener::bind(at("socket")).unwrap();
    symlink("/no/such", at("dangling")).unwrap();
    symlink("loop", at("loop")).unwrap();
    symlink("fifo", at("to-fifo")).unwrap();

    let kinds: [(PathBuf, &str); 12] = [
        (at("file"), "regular file"),
        (at("directory"), "directory"),
        (at("fifo"), "FIFO"),
        (at("to-fifo"), "FIFO"),
        (at("socket"), "socket"),
        (at("dangling"), ""),
        (at("loop"), ""),
        (at("missing"), ""),
        ("/dev/null".into(), "character device"),
        ("/dev/tty".into(), ""),
        ("/proc/self/ns/mnt".into(), "namespace of another kind"),
        ("/proc/self/ns/user".into(), "namespace of another kind"),
    ];
    for (path, kind) in kinds {
        let complaint = network.call("ADD").attachment("c1", &path).run().complaint(102);
        assert!(complaint.contains(kind), "{}: {complaint}", path.display());
        assert!(complaint.contains(path.to_str().unwrap()), "{complaint}");
        network.assert_nothing_remains();
        network.call("DEL").attachment("c1", &path).run().success();
    }
}

/// A pod with hostNetwork that reaches the plugin by mistake must not get its routes into the node.
#[test]
fn the_nodes_own_namespace_is_refused_by_whatever_path_it_comes() {
    let network = Network::new("own");
    let by_link = network.node.scratch().path().join("link");
    symlink(network.node.namespace().path(), &by_link).unwrap();
    let before = (
        ip::routes(network.node.namespace(), "-4 table all"),
        network.node.namespace().sysctl("net/ipv4/ip_forward"),
    );
    for path in [
        network.node.namespace().path(),
        &by_link,
        Path::new("/proc/self/ns/net"),
        Path::new("/proc/thread-self/ns/net"),
    ] {
        let complaint = network.call("ADD").attachment("c1", path).run().complaint(102);
        assert!(complaint.contains("own network namespace"), "{complaint}");
        network.call("DEL").attachment("c1", path).run().success();
    }
    let after = (
        ip::routes(network.node.namespace(), "-4 table all"),
        network.node.namespace().sysctl("net/ipv4/ip_forward"),
    );
    assert_eq!(before, after);
    network.assert_nothing_remains();
}

/// CRI-O, podman and `ip netns` keep namespaces in different places; all of them are symlinks, bind mounts or
/// /proc files.
#[test]
fn a_namespace_is_taken_by_any_path_that_leads_to_it() {
    let network = Network::new("paths");
    let pod = Namespace::new("pod");
    let by_link = network.node.scratch().path().join("link");
    symlink(pod.path(), &by_link).unwrap();
    for path in [by_link.as_path(), &Path::new("/run/netns/..").join("netns").join(pod.name())] {
        let result = network.call("ADD").attachment("c1", path).run().success();
        assert_eq!(result["interfaces"][1]["sandbox"], path.to_str().unwrap(), "as the runtime wrote it");
        assert!(ip::link(&pod, "eth0").is_some());
        network.call("DEL").attachment("c1", path).run().success();
        network.assert_nothing_remains();
    }
}

/// The IPAM plugin needs no namespace, only whoever looks at it later does. So it serves, and never waits.
#[test]
fn the_ipam_plugin_neither_needs_nor_waits_for_a_namespace() {
    let network = Network::for_ipam("ipam");
    network.node.scratch().make_fifo("fifo");
    for path in [
        network.node.scratch().path().join("fifo"),
        network.node.scratch().path().to_owned(),
        "/no/such".into(),
    ] {
        network.call("ADD").attachment("c1", &path).run().success();
        network.call("DEL").attachment("c1", &path).run().success();
        network.assert_nothing_remains();
    }
}
