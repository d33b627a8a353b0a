//! Checksums of the tunnel: whoever has a card that computes them wrongly has the kernel do it.

use super::node::{AgentNode, other};
use kit::netns::Namespace;
use kit::process::run_in;

/// `ETHTOOL_GTXCSUM` and `ETHTOOL_STXCSUM` (include/uapi/linux/ethtool.h) by ioctl, as `ethtool -k` and `-K` of old: what
/// the link says, or is told.
fn offload(namespace: &Namespace, command: u32, value: u32) -> bool {
    let script = "import array, fcntl, socket, struct, sys\n\
                  value = array.array('B', struct.pack('II', int(sys.argv[1]), int(sys.argv[2])))\n\
                  request = struct.pack('16sP16x', b'ferrule-vxlan', value.buffer_info()[0])\n\
                  fcntl.ioctl(socket.socket(), 0x8946, request)\n\
                  print(struct.unpack('II', value.tobytes())[1])\n";
    let words = ["-c", script, &command.to_string(), &value.to_string()];
    run_in(namespace, "python3", words, "").unwrap_or_else(|failed| panic!("{failed}")).trim() == "1"
}

const GET: u32 = 0x16;
const SET: u32 = 0x17;

fn node(role: &str, setting: Option<&str>) -> AgentNode {
    let mut node = AgentNode::new(role);
    node.words = vec!["--routing".into(), "vxlan".into()];
    if let Some(setting) = setting {
        node.words.extend(["--vxlan-checksum-offload".to_owned(), setting.to_owned()]);
    }
    node.api.put(other(11));
    node.start_ready();
    node
}

#[test]
fn the_kernel_computes_checksums_where_that_is_asked_for() {
    let node = node("checksums", Some("off"));
    node.wait("the kernel", || !offload(&node.namespace, GET, 0));
    // Somebody switches it on again.
    offload(&node.namespace, SET, 1);
    node.wait("the kernel again", || !offload(&node.namespace, GET, 0));
    assert!(node.log().contains("checksums of the overlay set"));
}

#[test]
fn who_asks_for_nothing_keeps_what_the_administrator_has_set() {
    let node = node("keep", None);
    node.wait("the device", || node.namespace.ip("link show").contains("ferrule-vxlan"));
    assert!(offload(&node.namespace, GET, 0), "the card computes them, as of every link");
    offload(&node.namespace, SET, 0);
    // The agent has been at the device since.
    node.namespace.ip("link set ferrule-vxlan down");
    node.wait("the device is up", || node.namespace.ip("link show ferrule-vxlan").contains(",UP"));
    assert!(!offload(&node.namespace, GET, 0));
}
