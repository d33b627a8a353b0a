//! A node with few addresses, on which nothing may be lost for long (k8s#57280, k8s#34278,
//! containerd/cri#948 and many more, where the advice has always been `rm /var/lib/cni/networks/*`).

use lab::cri::messages::PodSandboxState;
use lab::{Error, Node, Reboot, block_on, eventually};

use super::node::*;

const SUBNET: &str = "10.244.1.0/28";

/// A /28 has 16 addresses; the network's, the broadcast and the gateway's are nobody's.
const CAPACITY: usize = 13;

/// More than the age below which an attachment is not yet judged dead.
const AN_HOUR: u64 = 3600;

/// Full; rebooted, as a machine and as a container; full again, each time with as many pods as the range has
/// addresses, though nobody has told ferrule that those of before are gone.
#[test]
fn after_a_reboot_every_address_is_free_again() -> Test {
    block_on(async {
        let mut lab = start_lab(1, |_| SUBNET.to_owned()).await?;
        let node = lab.node_mut(0).ok_or("no node")?;
        a_full_range_says_so_and_a_removed_pod_makes_room(node).await?;
        remove_all_pods(node).await?;
        assert_nothing_left(node);
        for how in [Reboot::Machine, Reboot::Container] {
            start_as_many_as_fit(node, "before").await?;
            age_records(node, AN_HOUR)?;
            node.reboot(how)?;
            assert_eq!((records(node)?.len(), pod_links(node)?.len()), (CAPACITY, 0), "{how:?}");
            node.start_containerd().await?;
            start_as_many_as_fit(node, "after").await?;
            late_removal_of_the_old_pods_takes_nothing_from_the_new(node).await?;
            remove_all_pods(node).await?;
            assert_nothing_left(node);
        }
        Ok(())
    })?
}

/// As kind's nodes restart: at once, and with the boot id of the machine below.
#[test]
fn a_node_that_restarts_early_can_start_as_many_pods() -> Test {
    block_on(async {
        let mut lab = start_lab(1, |_| SUBNET.to_owned()).await?;
        let node = lab.node_mut(0).ok_or("no node")?;
        start_as_many_as_fit(node, "before").await?;
        node.reboot(Reboot::Container)?;
        node.start_containerd().await?;
        start_as_many_as_fit(node, "after").await
    })?
}

/// Killed with few, some and most of its pods attached: plugins are left without anybody who reads their result,
/// sandboxes without a process, namespaces without a sandbox.
#[test]
fn a_containerd_killed_while_it_starts_pods_costs_no_address() -> Test {
    block_on(async {
        let mut lab = start_lab(1, |_| SUBNET.to_owned()).await?;
        let node = lab.node_mut(0).ok_or("no node")?;
        for attached in [1, CAPACITY / 2, CAPACITY - 1] {
            kill_containerd_at(node, attached).await?;
            node.start_containerd().await?;
            remove_all_pods(node).await?;
            assert_nothing_left(node);
            start_as_many_as_fit(node, "later").await?;
            remove_all_pods(node).await?;
            assert_nothing_left(node);
        }
        Ok(())
    })?
}

/// Kills containerd in the middle of starting pods, when so many at least have an address.
async fn kill_containerd_at(node: &mut Node, attached: usize) -> Test {
    let calls = run_at_once(node, &names("cut-short", CAPACITY)).await?;
    eventually("attachments", LIMIT, async || match records(node) {
        Ok(found) if found.len() >= attached => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await?;
    node.kill_containerd()?;
    let cut_short = calls.join_all().await.iter().filter(|call| call.is_err()).count();
    assert!(cut_short > 0, "it had started all pods before it was killed: this test cannot fail");
    Ok(())
}

/// Starts a pod for each address of the range.
async fn start_as_many_as_fit(node: &Node, word: &str) -> Test {
    all_of(run_at_once(node, &names(word, CAPACITY)).await?).await?;
    assert_eq!((records(node)?.len(), pod_links(node)?.len()), (CAPACITY, CAPACITY));
    Ok(())
}

async fn a_full_range_says_so_and_a_removed_pod_makes_room(node: &Node) -> Test {
    let ids = all_of(run_at_once(node, &names("full", CAPACITY)).await?).await?;
    let cri = node.cri().await?;
    let before = (held(node)?, records(node)?, pod_links(node)?);
    let refused = cri.run_pod(&node.pod("default", "one-too-many")).await;
    let Err(Error::Call { status, .. }) = refused else { panic!("{refused:?}") };
    let message = status.message();
    assert!(
        message.contains(&format!("no free address in {SUBNET}: {CAPACITY} of {CAPACITY} are held")),
        "{message}"
    );
    assert_eq!(
        (held(node)?, records(node)?, pod_links(node)?),
        before,
        "something of the refused pod is left"
    );

    let first = ids.first().ok_or("no pod")?;
    let freed = cri.pod_status(first).await?.addresses;
    remove_pods(&cri, std::slice::from_ref(first)).await?;
    let id = cri.run_pod(&node.pod("default", "fits-again")).await?;
    // It had no rest, as all others are held.
    assert_eq!(cri.pod_status(&id).await?.addresses.first(), freed.first());
    Ok(())
}

/// kubelet gets round to them after a while (azure-cn#885: the late DEL freed the new pod's address).
async fn late_removal_of_the_old_pods_takes_nothing_from_the_new(node: &Node) -> Test {
    let cri = node.cri().await?;
    let pods = cri.pods().await?.into_iter();
    let old: Vec<_> = pods.filter(|pod| pod.state() != PodSandboxState::Ready).map(|pod| pod.id).collect();
    assert_eq!(old.len(), CAPACITY);
    let before = (held(node)?, records(node)?, pod_links(node)?, pod_routes(node)?);
    remove_pods(&cri, &old).await?;
    assert_eq!((held(node)?, records(node)?, pod_links(node)?, pod_routes(node)?), before);
    Ok(())
}
