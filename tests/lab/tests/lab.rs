//! The lab itself, with the reference plugins: what it says of ferrule is worth as much as this.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use lab::cri::messages::{ContainerConfig, ContainerState};
use lab::{IMAGE, Lab, Node, NodePlan, Reboot, Result, block_on, eventually};

const LIMIT: Duration = Duration::from_secs(20);

type Test = std::result::Result<(), Box<dyn std::error::Error>>;

fn reference_plugins() -> Vec<PathBuf> {
    ["ptp", "host-local", "loopback"].iter().map(|name| Path::new("/usr/lib/cni").join(name)).collect()
}

fn reference_conflist(node: &NodePlan, _: &[NodePlan]) -> String {
    format!(
        r#"{{"cniVersion": "0.4.0", "name": "podnet", "plugins": [{{"type": "ptp", "ipam": {{
            "type": "host-local", "ranges": [[{{"subnet": "{}"}}], [{{"subnet": "{}"}}]],
            "routes": [{{"dst": "0.0.0.0/0"}}, {{"dst": "::/0"}}]}}}}]}}"#,
        node.pod_cidr_v4, node.pod_cidr_v6
    )
}

async fn start_lab(nodes: u8) -> Result<Lab> {
    Lab::start(&NodePlan::first(nodes), reference_conflist, &reference_plugins()).await
}

struct Pod {
    id: String,
    container: String,
    addresses: Vec<IpAddr>,
    pid: i64,
}

async fn run_server(node: &Node, name: &str) -> Result<Pod> {
    let cri = node.cri().await?;
    let config = node.pod("default", name);
    let id = cri.run_pod(&config).await?;
    let server = ContainerConfig::new("server", IMAGE, &["httpd", "-f", "-p", "80", "-h", "/www"]);
    let container = cri.run_container(&id, &config, server).await?;
    let status = cri.pod_status(&id).await?;
    Ok(Pod { id, container, addresses: status.addresses, pid: status.pid })
}

/// Has the container ask the server at `host` until it answers.
async fn ask(node: &Node, container: &str, host: &str) -> Result<String> {
    let cri = node.cri().await?;
    let url = format!("http://{host}/cgi-bin/who");
    let answer = eventually("an answer", LIMIT, async || {
        let output = cri.exec(container, &["timeout", "2", "wget", "-qO-", &url], LIMIT).await;
        let output = output.map_err(|error| error.to_string())?;
        if output.code == 0 { Ok(output.stdout) } else { Err(output.stderr) }
    });
    Ok(answer.await?.trim().to_owned())
}

/// Processes and cgroups by which a lab could still be seen.
fn traces_of(lab: &str) -> Vec<String> {
    let find = |arguments: &[&str]| Command::new("find").args(arguments).output();
    let cgroups = find(&["/sys/fs/cgroup", "-type", "d", "-path", &format!("*/{lab}*")]);
    let cgroups =
        cgroups.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let mut traces: Vec<String> = cgroups.lines().map(str::to_owned).collect();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let file = |name| fs::read_to_string(process.path().join(name)).unwrap_or_default();
        if file("cgroup").contains(lab) || file("cmdline").contains(lab) {
            traces.push(format!("{}: {}", process.path().display(), file("comm").trim()));
        }
    }
    traces
}

/// The lab's name, from the cgroup of its nodes.
fn name_of(lab: &Lab) -> String {
    let cgroup = lab.nodes().first().map(Node::cgroup).unwrap_or_default();
    cgroup.split('/').nth(1).unwrap_or_default().to_owned()
}

#[test]
fn pods_of_two_nodes_talk_and_keep_their_address() -> Test {
    block_on(async {
        let lab = start_lab(2).await?;
        let [a, b] = lab.nodes() else { panic!("not two nodes") };
        for (node, peer) in [(a, b.plan()), (b, a.plan())] {
            node.run("ip", &["route", "add", &peer.pod_cidr_v4, "via", &peer.ipv4.to_string()])?;
            node.run("ip", &["route", "add", &peer.pod_cidr_v6, "via", &peer.ipv6.to_string()])?;
        }
        let (client, server) = (run_server(a, "client").await?, run_server(b, "server").await?);
        assert_eq!(client.addresses, ["10.244.1.2".parse::<IpAddr>()?, "fd00:10:244:1::2".parse()?]);
        assert_eq!(ask(a, &client.container, "10.244.2.2").await?, "server [::ffff:10.244.1.2]");
        assert_eq!(ask(a, &client.container, "[fd00:10:244:2::2]").await?, "server [fd00:10:244:1::2]");

        let cri = b.cri().await?;
        cri.stop_container(&server.container, 0).await?;
        assert_eq!(cri.container_status(&server.container).await?.state(), ContainerState::Exited);
        cri.remove_container(&server.container).await?;
        assert_eq!(cri.containers().await?.len(), 0);
        cri.stop_pod(&server.id).await?;
        cri.remove_pod(&server.id).await?;
        cri.remove_pod(&server.id).await?;
        assert_eq!(cri.pods().await?.len(), 0);
        Ok(())
    })?
}

#[test]
fn pods_outlive_a_restart_and_a_kill_of_containerd() -> Test {
    block_on(async {
        let mut lab = start_lab(1).await?;
        let node = lab.node_mut(0).ok_or("no node")?;
        let pod = run_server(node, "survivor").await?;
        let process = node.path(format!("/proc/{}/stat", pod.pid));
        node.kill_containerd()?;
        assert!(process.exists(), "the pod's process died with containerd");
        node.start_containerd().await?;
        node.stop_containerd()?;
        assert!(process.exists(), "the pod's process ended with containerd");
        node.start_containerd().await?;
        let cri = node.cri().await?;
        let status = cri.pod_status(&pod.id).await?;
        assert!(status.is_ready);
        assert_eq!(status.addresses, pod.addresses);
        let output = cri.exec(&pod.container, &["sh", "-c", "echo out; echo err >&2; exit 3"], LIMIT).await?;
        assert_eq!((output.code, output.stdout.as_str(), output.stderr.as_str()), (3, "out\n", "err\n"));
        Ok(())
    })?
}

#[test]
fn a_reboot_takes_processes_links_and_run_but_not_the_disk() -> Test {
    block_on(async {
        let mut lab = start_lab(1).await?;
        let node = lab.node_mut(0).ok_or("no node")?;
        let boot_id = |node: &Node| node.run("cat", &["/proc/sys/kernel/random/boot_id"]);
        let mut last = boot_id(node)?;
        for how in [Reboot::Machine, Reboot::Container] {
            let before = run_server(node, "before").await?;
            node.reboot(how)?;
            assert_eq!(fs::read_dir(node.path("/run/"))?.count(), 2, "/run has more than lock and tmp");
            let links = node.run("ip", &["-brief", "link", "show", "type", "veth"])?;
            assert_eq!(links.lines().count(), 1, "more than the node's own cable: {links}");
            assert_eq!(boot_id(node)? == last, how == Reboot::Container);
            last = boot_id(node)?;
            node.start_containerd().await?;
            let cri = node.cri().await?;
            assert!(!cri.pod_status(&before.id).await?.is_ready, "a pod survived");
            // What kubelet does after a reboot; the image is still there for the next round.
            cri.stop_pod(&before.id).await?;
            cri.remove_pod(&before.id).await?;
        }
        Ok(())
    })?
}

#[test]
fn labs_side_by_side_do_not_meet_and_leave_nothing() -> Test {
    block_on(async {
        let (one, two) = (start_lab(1).await?, start_lab(1).await?);
        for lab in [&one, &two] {
            let [node] = lab.nodes() else { panic!("not one node") };
            assert_eq!(run_server(node, "same").await?.addresses.first(), Some(&"10.244.1.2".parse()?));
        }
        let names = [name_of(&one), name_of(&two)];
        assert_ne!(names[0], names[1]);
        assert!(!traces_of(&names[0]).is_empty(), "nothing to see of a living lab: this test cannot fail");
        drop(one);
        assert_eq!(traces_of(&names[0]), Vec::<String>::new());
        assert!(!traces_of(&names[1]).is_empty(), "the other lab is gone too");
        drop(two);
        assert_eq!(traces_of(&names[1]), Vec::<String>::new());
        Ok(())
    })?
}

#[test]
fn a_lab_whose_owner_is_killed_leaves_nothing() -> Test {
    let mut demo = Command::new(env!("CARGO_BIN_EXE_demo"));
    let mut demo = demo.args(["--plugin", "ptp"]).stdout(Stdio::piped()).spawn()?;
    let said = BufReader::new(demo.stdout.take().ok_or("no output")?).lines();
    // Until the middle of it, with nodes and a pod.
    let reached = said.map_while(std::io::Result::ok).find(|line| line.contains("pod a1"));
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", demo.id()))?;
    let commands = children.split_whitespace().map(|pid| fs::read_to_string(format!("/proc/{pid}/cmdline")));
    let words: Vec<String> =
        commands.flatten().flat_map(|line| line.split('\0').map(str::to_owned).collect::<Vec<_>>()).collect();
    demo.kill()?;
    demo.wait()?;
    assert!(reached.is_some(), "the demo ended early");
    let name = words.iter().find(|word| word.starts_with("ferrule-lab-")).ok_or("no lab below the demo")?;
    block_on(eventually("the end of the lab", LIMIT, async || {
        let traces = traces_of(name);
        if traces.is_empty() { Ok(()) } else { Err(traces.join("\n")) }
    }))??;
    Ok(())
}
