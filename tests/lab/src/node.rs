//! One node: a machine as far as network, processes and files go, with a containerd of its own.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use crate::cri::Client;
use crate::cri::messages::{LinuxPodSandboxConfig, PodSandboxConfig};
use crate::error::{Error, Result};
use crate::eventually;
use crate::namespaces::Namespaces;
use crate::plan::NodePlan;
use crate::process::{first_child, run, run_with_input, signal, start_until_ready};

const BOOT: &str = include_str!("node.sh");
const CONTAINERD_CONFIG: &str = include_str!("containerd.toml");
const CONTAINERD_LIMIT: Duration = Duration::from_secs(60);

/// The image that every node has: a static busybox. As a pause image it just sleeps.
pub const IMAGE: &str = "docker.io/library/busybox:lab";

/// Where a lab keeps it: outside the nodes.
pub(crate) const IMAGE_ARCHIVE: &str = "/run/image.tar";

const SOCKET: &str = "/run/containerd/containerd.sock";

/// What a reboot looks like to the software on the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reboot {
    /// A machine's: the kernel says another boot id afterwards.
    Machine,
    /// That of a node which is a container, as kind's are: the boot id stays, being that of the machine below.
    Container,
}

/// A node of a [`Lab`](crate::Lab).
#[derive(Debug)]
pub struct Node {
    plan: NodePlan,
    lab: Namespaces,
    cgroup: String,
    inside: Namespaces,
    holder: Child,
    containerd: Option<Child>,
}

impl Node {
    /// Boots a node for the first time. Its disk is made on the way.
    pub(crate) fn create(lab_name: &str, lab: Namespaces, plan: &NodePlan) -> Result<Self> {
        let cgroup = format!("/{lab_name}/{}", plan.name);
        let (holder, inside) = boot(lab, plan, Reboot::Machine)?;
        fs_write(&inside.path(Path::new("/etc/containerd/config.toml")), CONTAINERD_CONFIG)?;
        fs_write(&inside.path(Path::new("/etc/hostname")), &plan.name)?;
        Ok(Self { plan: plan.clone(), lab, cgroup, inside, holder, containerd: None })
    }

    /// Its name and addresses.
    pub fn plan(&self) -> &NodePlan {
        &self.plan
    }

    /// Its first process, numbered as on this machine: what `nsenter --target` wants.
    pub fn pid(&self) -> u32 {
        self.inside.init
    }

    /// The cgroup below which its pods belong: what is left in it is removed with the lab.
    pub fn cgroup(&self) -> &str {
        &self.cgroup
    }

    /// A file of the node as it is reached from here. A reboot changes what this returns.
    pub fn path(&self, absolute: impl AsRef<Path>) -> PathBuf {
        self.inside.path(absolute.as_ref())
    }

    /// A program on the node, in its network, mount and pid namespace.
    pub fn command(&self, program: &str) -> Command {
        self.inside.command(program)
    }

    /// Runs a program on the node to its end, and gives its standard output.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        run(self.command(program).args(arguments))
    }

    /// Puts CNI plugins and a network configuration where containerd looks for them. The configuration replaces
    /// the one written before.
    pub fn install(&self, plugins: &[PathBuf], conflist: &str) -> Result<()> {
        for plugin in plugins {
            let failed = |source| Error::File { path: plugin.clone(), source };
            let name = plugin.file_name().ok_or_else(|| failed(io::ErrorKind::InvalidFilename.into()))?;
            // By way of a new file, as one that is being executed cannot be written to.
            let (new, place) = (self.path("/opt/cni/new-plugin"), self.path("/opt/cni/bin").join(name));
            fs::copy(plugin, &new).and_then(|_| fs::rename(&new, place)).map_err(failed)?;
        }
        fs_write(&self.path("/etc/cni/net.d/10-lab.conflist"), conflist)
    }

    /// Starts containerd and waits until it would take a pod.
    pub async fn start_containerd(&mut self) -> Result<()> {
        self.spawn_containerd()?;
        self.await_containerd().await
    }

    pub(crate) fn spawn_containerd(&mut self) -> Result<()> {
        let path = self.path("/var/log/containerd.log");
        let failed = |source| Error::File { path: path.clone(), source };
        let log = File::options().create(true).append(true).open(&path).map_err(failed)?;
        let mut command = self.command("containerd");
        // Its temporary files would stay in this machine's /tmp if it were killed.
        command.env("TMPDIR", "/run/tmp").process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.containerd = Some(command.spawn().map_err(failed)?);
        Ok(())
    }

    pub(crate) async fn await_containerd(&mut self) -> Result<()> {
        let what = format!("containerd on {}", self.plan.name);
        let (socket, log) = (self.path(SOCKET), self.path("/var/log/containerd.log"));
        let ready = eventually(&what, CONTAINERD_LIMIT, async || {
            let client = Client::connect(&socket).await.map_err(|error| error.to_string())?;
            let conditions = client.status().await.map_err(|error| error.to_string())?;
            match conditions.iter().find(|condition| !condition.status) {
                None => Ok(()),
                Some(condition) => Err(format!("{}: {}", condition.r#type, condition.message)),
            }
        });
        ready.await.map_err(|error| {
            let log = fs::read_to_string(&log).unwrap_or_default();
            let tail = log.lines().rev().take(5).collect::<Vec<_>>().join("\n");
            Error::Start { what: what.clone(), said: format!("{error}\n{tail}") }
        })
    }

    /// Gives containerd the image that pods run. A reboot does not take it away again.
    pub async fn load_image(&self) -> Result<()> {
        // The archive is read here, on standard input: the node itself does not see it.
        let path = self.lab.path(Path::new(IMAGE_ARCHIVE));
        let archive = fs::read(&path).map_err(|source| Error::File { path, source })?;
        let mut import = self.command("ctr");
        run_with_input(import.args(["--namespace", "k8s.io", "images", "import", "-"]), archive)?;
        let client = self.cri().await?;
        // containerd's CRI part learns of the import by an event.
        eventually("the imported image", CONTAINERD_LIMIT, async || match client.has_image(IMAGE).await {
            Ok(true) => Ok(()),
            Ok(false) => Err("unknown to the CRI".to_owned()),
            Err(error) => Err(error.to_string()),
        })
        .await
    }

    /// Asks containerd to end, and waits until it has. Its pods go on running.
    pub fn stop_containerd(&mut self) -> Result<()> {
        self.end_containerd(Signal::TERM)
    }

    /// Kills containerd in the middle of whatever it does. Its pods go on running.
    pub fn kill_containerd(&mut self) -> Result<()> {
        self.end_containerd(Signal::KILL)
    }

    fn end_containerd(&mut self, how: Signal) -> Result<()> {
        let Some(mut entered) = self.containerd.take() else { return Ok(()) };
        // Ours is `nsenter`, which waits for its child: containerd.
        if let Some(containerd) = first_child(entered.id()) {
            signal(containerd, how);
        }
        entered.wait().map_err(|error| Error::Command {
            command: "containerd".to_owned(),
            reason: error.to_string(),
        })?;
        Ok(())
    }

    /// Pulls the plug: all processes of the node end at once, its links, routes and /run are gone. Then it comes up
    /// again with its disk as it was, without a running containerd.
    pub fn reboot(&mut self, how: Reboot) -> Result<()> {
        signal(self.inside.init, Signal::KILL);
        for child in [Some(&mut self.holder), self.containerd.as_mut()].into_iter().flatten() {
            // Waiting can fail only if it was waited for before.
            let _ = child.wait();
        }
        self.containerd = None;
        (self.holder, self.inside) = boot(self.lab, &self.plan, how)?;
        Ok(())
    }

    /// A connection to the node's containerd.
    pub async fn cri(&self) -> Result<Client> {
        Client::connect(&self.path(SOCKET)).await
    }

    /// A pod to run on this node, with everything that kubelet would set. Its uid differs each time.
    pub fn pod(&self, namespace: &str, name: &str) -> PodSandboxConfig {
        let uid = fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap_or_default();
        PodSandboxConfig {
            hostname: name.to_owned(),
            log_directory: format!("/var/log/pods/{namespace}_{name}"),
            linux: Some(LinuxPodSandboxConfig { cgroup_parent: self.cgroup.clone(), ..Default::default() }),
            ..PodSandboxConfig::named(namespace, name, uid.trim())
        }
    }
}

/// Starts a node's namespaces and connects it to the underlay.
fn boot(lab: Namespaces, plan: &NodePlan, how: Reboot) -> Result<(Child, Namespaces)> {
    let failed = |said: &str| Error::Start { what: plan.name.clone(), said: said.to_owned() };
    let boot_id = match how {
        Reboot::Machine => "new",
        Reboot::Container => "same",
    };
    let disk = format!("/run/disks/{}", plan.name);
    let mut command = lab.command("unshare");
    command.args(["--mount", "--net", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    command.args(["sh", "-c", BOOT, "node.sh", &disk, boot_id, &plan.name]).stdin(Stdio::null());
    let holder = start_until_ready(&plan.name, &mut command)?;
    // `nsenter` waits for `unshare`, and that for the node's first process.
    let init = first_child(holder.id()).and_then(first_child).ok_or_else(|| failed("it ended at once"))?;
    connect(lab, plan, init)?;
    Ok((holder, Namespaces { init }))
}

/// Lays the cable between a node and the underlay.
fn connect(lab: Namespaces, plan: &NodePlan, init: u32) -> Result<()> {
    let NodePlan { name, ipv4, ipv6, .. } = plan;
    // After a reboot the kernel may not have got round yet to removing the old one.
    let _ = run(lab.ip().args(["link", "delete", name]));
    let cable = format!("link add {name} up master underlay type veth peer name eth0 netns {init}\n");
    run_with_input(lab.ip().args(["-batch", "-"]), cable)?;
    let addresses = format!(
        "address add {ipv4}/24 dev eth0\n\
         address add {ipv6}/64 dev eth0 nodad\n\
         link set eth0 up\n\
         route add default via 192.168.77.1\n\
         route add default via fd00:77::1\n"
    );
    run_with_input(Namespaces { init }.ip().args(["-batch", "-"]), addresses)?;
    Ok(())
}

fn fs_write(path: &Path, content: &str) -> Result<()> {
    fs::write(path, content).map_err(|source| Error::File { path: path.to_owned(), source })
}
