//! The lab as a whole: the namespaces that everything else is in, and the underlay between the nodes.

use std::fs;
use std::io::{self, PipeWriter};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::error::{Error, Result};
use crate::namespaces::Namespaces;
use crate::node::{IMAGE, IMAGE_ARCHIVE, Node};
use crate::plan::NodePlan;
use crate::process::{first_child, run, start_until_ready};

const WORLD: &str = include_str!("world.sh");
const MAKE_IMAGE: &str = include_str!("image.sh");

/// Nodes, joined by a network that carries IPv4 and IPv6. Dropping it removes everything.
#[derive(Debug)]
pub struct Lab {
    nodes: Vec<Node>,
    world: World,
}

/// What is around the nodes.
#[derive(Debug)]
struct World {
    /// Unique on this machine; also the name of the cgroup that holds the lab's pods.
    name: String,
    /// The kernel closes it when we end, in whatever way, and that ends the lab.
    lifeline: Option<PipeWriter>,
    supervisor: Child,
    inside: Namespaces,
}

impl Lab {
    /// An empty lab: the underlay and the image, no node yet. Needs root.
    pub fn create() -> Result<Self> {
        let world = World::create()?;
        let archive = world.inside.path(Path::new(IMAGE_ARCHIVE));
        run(Command::new("sh").args(["-c", MAKE_IMAGE, "image.sh"]).arg(archive).arg(IMAGE))?;
        Ok(Self { nodes: Vec::new(), world })
    }

    /// A lab of `plans`, each node ready for pods.
    ///
    /// `conflist` writes the network configuration of one node, given all of them; `plugins` are the programs that
    /// it names. containerd 1.6 wants one called `loopback` besides.
    pub async fn start(
        plans: &[NodePlan],
        conflist: impl Fn(&NodePlan, &[NodePlan]) -> String,
        plugins: &[PathBuf],
    ) -> Result<Self> {
        let mut lab = Self::create()?;
        for plan in plans {
            let node = lab.add_node(plan)?;
            node.install(plugins, &conflist(plan, plans))?;
            // Without waiting: the nodes' runtimes start at the same time.
            node.spawn_containerd()?;
        }
        for node in &mut lab.nodes {
            node.await_containerd().await?;
            node.load_image().await?;
        }
        Ok(lab)
    }

    /// A further node, connected but without a running containerd.
    pub fn add_node(&mut self, plan: &NodePlan) -> Result<&mut Node> {
        let node = Node::create(&self.world.name, self.world.inside, plan)?;
        Ok(self.nodes.push_mut(node))
    }

    /// The nodes in the order in which they were added.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The node at `index`, to restart it or its runtime.
    pub fn node_mut(&mut self, index: usize) -> Option<&mut Node> {
        self.nodes.get_mut(index)
    }

    /// All nodes, to restart them or their runtimes.
    pub fn nodes_mut(&mut self) -> &mut [Node] {
        &mut self.nodes
    }

    /// A program in the underlay's namespace: a neighbour of the nodes that is none of them, at 192.168.77.1 and
    /// fd00:77::1.
    pub fn outside(&self, program: &str) -> Command {
        self.world.inside.command(program)
    }

    /// Lets the lab outlive this process, and says which process to end to remove it.
    pub fn keep(mut self) -> Result<u32> {
        let failed =
            |error: io::Error| Error::Start { what: "the keeper".to_owned(), said: error.to_string() };
        let Some(lifeline) = self.world.lifeline.take() else {
            return Err(failed(io::Error::other("already taken")));
        };
        let mut keeper = Command::new("sleep");
        keeper.arg("infinity").stdin(Stdio::null()).stdout(lifeline).stderr(Stdio::null()).process_group(0);
        Ok(keeper.spawn().map_err(failed)?.id())
    }
}

impl World {
    fn create() -> Result<Self> {
        let failed = |error: io::Error| Error::Start { what: "the lab".to_owned(), said: error.to_string() };
        let uuid = fs::read_to_string("/proc/sys/kernel/random/uuid").map_err(failed)?;
        let name = format!("ferrule-lab-{}", uuid.get(..8).unwrap_or("0"));
        let (reader, lifeline) = io::pipe().map_err(failed)?;
        let mut command = Command::new("sh");
        command.args(["-c", WORLD, "world.sh", &name]).stdin(reader);
        let supervisor = start_until_ready("the lab", &mut command)?;
        let init = first_child(supervisor.id()).and_then(first_child);
        let init = init.ok_or_else(|| failed(io::Error::other("its first process ended at once")))?;
        Ok(Self { name, lifeline: Some(lifeline), supervisor, inside: Namespaces { init } })
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if self.lifeline.take().is_some() {
            // What could fail here has nobody left to tell; a kept lab has given its lifeline away.
            let _ = self.supervisor.wait();
        }
    }
}
