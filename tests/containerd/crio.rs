//! ferrule below a real CRI-O, where there is one: no distribution of the tests has it.
//!
//! It is built from its Go module (`go build ./cmd/crio`, `make -C pinns`); conmon, runc and skopeo are Debian's. Where
//! one of these is not in PATH, the test says so and passes.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use lab::cri::Client;
use lab::cri::messages::ContainerConfig;
use lab::{Error, IMAGE, Lab, Node, NodePlan, block_on, eventually};

use serde_json::{Value, json};

use super::node::*;

const SOCKET: &str = "/run/crio/crio.sock";

const PID: &str = "/run/crio.pid";

const STORAGE: &str = "vfs@/var/lib/containers/storage+/run/containers/storage";

/// The programs that it takes, by their paths; the name of the one that is missing.
fn programs() -> std::result::Result<[PathBuf; 5], &'static str> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let find = |name: &'static str| {
        let mut places = std::env::split_paths(&path).map(|directory| directory.join(name));
        places.find(|place| place.is_file()).ok_or(name)
    };
    Ok([find("crio")?, find("pinns")?, find("conmon")?, find("runc")?, find("skopeo")?])
}

/// runc, but for a machine that lacks CAP_SYS_RESOURCE even for root: no process may lower its OOM score there.
const RUNTIME: &str = r#"#!/bin/sh
previous=
for word; do
    if [ "$previous" = --bundle ]; then
        jq 'del(.process.oomScoreAdj)' "$word/config.json" >"$word/changed" && mv "$word/changed" "$word/config.json"
    fi
    previous=$word
done
exec runc "$@"
"#;

fn configuration([_, pinns, conmon, ..]: &[PathBuf; 5]) -> String {
    let [pinns, conmon] = [pinns, conmon].map(|program| program.display());
    format!(
        r#"
[crio]
storage_driver = "vfs"
[crio.api]
listen = "{SOCKET}"
[crio.runtime]
default_runtime = "runc"
cgroup_manager = "cgroupfs"
conmon_cgroup = "pod"
pinns_path = "{pinns}"
apparmor_profile = "unconfined"
[crio.runtime.runtimes.runc]
runtime_path = "/opt/runtime"
monitor_path = "{conmon}"
[crio.image]
pause_image = "{IMAGE}"
pause_command = ""
[crio.network]
network_dir = "/etc/cni/net.d"
plugin_dirs = ["/opt/cni/bin"]
"#
    )
}

/// A running CRI-O. It ends with the lab, as all processes of its node do.
struct Crio(Child);

impl Crio {
    fn end(mut self, node: &Node) {
        node.run("sh", &["-c", &format!("kill $(cat {PID})")]).unwrap();
        // `nsenter`, which waits for it.
        self.0.wait().unwrap();
    }
}

async fn start(node: &Node, programs: &[PathBuf; 5]) -> std::result::Result<(Crio, Client), Error> {
    let log = node.path("/var/log/crio.log");
    let output = fs::File::create(&log).unwrap();
    let mut command = node.command("sh");
    let crio = programs[0].display();
    let start = format!("echo $$ >{PID}; exec {crio} --config /etc/crio/crio.conf --config-dir ''");
    command.args(["-c", &start]).env("TMPDIR", "/run/tmp");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(output);
    let crio = Crio(command.spawn().unwrap());
    let socket = node.path(SOCKET);
    let client = eventually("CRI-O", Duration::from_secs(60), async || {
        let client = Client::connect(&socket).await.map_err(|error| error.to_string())?;
        let conditions = client.status().await.map_err(|error| error.to_string())?;
        match conditions.into_iter().find(|condition| !condition.status) {
            None => Ok(client),
            Some(condition) => Err(format!("{}: {}", condition.r#type, condition.message)),
        }
    });
    client.await.map(|client| (crio, client)).inspect_err(|_| show(&log))
}

#[expect(clippy::print_stderr, reason = "whoever looks at a failure wants to know")]
fn show(log: &Path) {
    eprintln!("{}", fs::read_to_string(log).unwrap_or_default());
}

/// Puts the lab's image into CRI-O's storage.
fn load_image(lab: &Lab, node: &Node, skopeo: &Path) {
    let archive = lab.outside("cat").arg("/run/image.tar").output().unwrap().stdout;
    fs::write(node.path("/var/tmp/image.tar"), archive).unwrap();
    let source = format!("docker-archive:/var/tmp/image.tar:{IMAGE}");
    let target = format!("containers-storage:[{STORAGE}]{IMAGE}");
    node.run(skopeo.to_str().unwrap(), &["--insecure-policy", "copy", &source, &target]).unwrap();
}

#[test]
fn pods_of_cri_o_have_their_network_and_leave_nothing() -> Test {
    let programs = match programs() {
        Ok(programs) => programs,
        Err(missing) => {
            eprintln!("skipped: no {missing} in PATH");
            return Ok(());
        }
    };
    block_on(async {
        let plans = NodePlan::first(1);
        let mut lab = Lab::create()?;
        lab.add_node(&plans[0])?;
        let node = &lab.nodes()[0];
        // In 1.1.0, of which CRI-O makes use: GC at its start.
        let mut conflist: Value =
            serde_json::from_str(&write_conflist(&plans[0], &plans, &plans[0].pod_cidr_v4))?;
        conflist["cniVersion"] = json!("1.1.0");
        conflist["plugins"][0]["log"] = json!({ "level": "debug", "file": "/var/log/ferrule.log" });
        node.install(std::slice::from_ref(&kit::binaries::FERRULE), &conflist.to_string())?;
        for (path, text) in [
            ("/etc/crio/crio.conf", configuration(&programs)),
            ("/etc/containers/policy.json", r#"{"default":[{"type":"insecureAcceptAnything"}]}"#.to_owned()),
        ] {
            fs::create_dir_all(node.path(path).parent().unwrap())?;
            fs::write(node.path(path), text)?;
        }
        fs::write(node.path("/opt/runtime"), RUNTIME)?;
        fs::set_permissions(node.path("/opt/runtime"), fs::Permissions::from_mode(0o755))?;
        load_image(&lab, node, &programs[4]);
        let (crio, cri) = start(node, &programs).await?;
        assert_eq!(cri.version().await?.runtime_name, "cri-o");

        let mut pods = Vec::new();
        for name in ["a", "b"] {
            let config = node.pod("default", name);
            let id = cri.run_pod(&config).await?;
            let words = ["httpd", "-f", "-p", "80", "-h", "/www"];
            cri.run_container(&id, &config, ContainerConfig::new("server", IMAGE, &words)).await?;
            let addresses = cri.pod_status(&id).await?.addresses;
            assert_eq!(addresses.len(), 2, "{addresses:?}");
            pods.push((name, id, addresses));
        }
        for (name, _, addresses) in &pods {
            for &address in addresses {
                let pages = [page_of(&in_url(address))];
                let heard = node.run("sh", &["-c", &ask_each(&pages, "busybox wget")])?;
                assert!(heard.starts_with(&format!("{name} ")), "{heard}");
            }
        }
        assert_eq!(held(node)?.len(), 4);
        // Ended and started again, CRI-O has its pods, and their network outlives the GC of its start.
        crio.end(node);
        let commands = || fs::read_to_string(node.path("/var/log/ferrule.log")).unwrap_or_default();
        let collections = |log: &str| log.lines().filter(|line| line.contains(" cmd=GC ")).count();
        let before = collections(&commands());
        let (_crio, cri) = start(node, &programs).await?;
        eventually("GC", Duration::from_secs(60), async || {
            let log = commands();
            if collections(&log) > before { Ok(()) } else { Err(log) }
        })
        .await?;
        assert_eq!(held(node)?.len(), 4);
        let ids: Vec<String> = pods.into_iter().map(|(_, id, _)| id).collect();
        remove_pods(&cri, &ids).await?;
        assert_nothing_left(node);
        Ok(())
    })?
}
