//! Nothing waits for ever: every command answers code 11 past its deadline, with what it was waiting for. STATUS has the
//! shortest.

use std::fs;

use kit::mounts::Mounts;
use kit::node::Node;
use kit::pod::Pod;

/// A network file system whose server is gone: a call on it does not return, so the thread of the command cannot answer.
#[test]
fn status_answers_though_the_data_directory_does_not() {
    let (node, pod) = (Node::new(), Pod::new("pod"));
    let conf = node.conf();
    fs::create_dir(node.data_dir()).unwrap();
    let mounts = Mounts::new(&format!(
        "exec 3<>/dev/fuse
         mount -i -t fuse -o fd=3,rootmode=40000,user_id=0,group_id=0 none {}",
        node.data_dir().display()
    ));
    let said = node.call("STATUS", &conf).through(mounts.wrapper()).run().complaint(11);
    assert!(said.contains("STATUS did not finish within"), "{said}");
    assert!(said.contains("waiting for the store's files"), "{said}");
    drop(mounts);
    node.add(&pod, &conf);
    node.del(&pod, &conf);
    node.expect_nothing_left();
}

#[test]
fn status_answers_though_its_conf_never_ends() {
    let node = Node::new();
    let said = node.call("STATUS", &node.conf()).silent_stdin().run().complaint(11);
    assert!(said.contains("waiting for the conf on stdin"), "{said}");
}
