//! The command line of `kubectl ferrule`. The texts here are its help and its man pages.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueHint};
use clap_complete::Shell;

use crate::cni::ids::NetworkName;
use crate::command_line::outcome::OutputFormat;
use crate::command_line::values::{parse_duration, parse_network};
use crate::kubectl::target::{End, parse_any, parse_end, parse_pod};

/// Ask ferrule's agents about the pod network of the nodes, of all of them at once
///
/// It runs ferrulectl in the agents' pods by exec, so it needs the rights to list nodes and pods, and to exec in the
/// agents' namespace (deploy/kubectl has them as roles). Nothing is installed on the nodes.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "kubectl-ferrule",
    bin_name = "kubectl ferrule",
    version,
    arg_required_else_help = true,
    after_help = "Exit status: 0 if all is well, 1 if something is not, 2 if the command line is wrong, 3 if nothing is known to be \
                  wrong and not everything could be looked at."
)]
pub struct CommandLine {
    /// Which cluster, which nodes, and how to print.
    #[command(flatten)]
    pub common: Common,
    /// What is to be done.
    #[command(subcommand)]
    pub verb: Verb,
}

/// What every verb understands, before or after its name.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Common options")]
pub struct Common {
    /// How to print the result
    #[arg(short, long, global = true, value_enum, value_name = "FORMAT", default_value_t = OutputFormat::Table)]
    pub output: OutputFormat,

    /// Only this node; may be given several times [default: all nodes]
    #[arg(long = "node", global = true, value_name = "NODE")]
    pub nodes: Vec<String>,

    /// The kubeconfig's context [default: its current one]
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,

    /// The kubeconfig [default: as kubectl finds it]
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub kubeconfig: Option<PathBuf>,

    /// Namespace of the agents [default: any, they are found by their label]
    #[arg(short, long, global = true, value_name = "NAMESPACE")]
    pub namespace: Option<String>,

    /// How long an agent may take for its answer: 30s, 2m
    #[arg(long, global = true, value_name = "TIME", default_value = "30s", value_parser = parse_duration)]
    pub deadline: Duration,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum Verb {
    /// List the nodes' attachments, addresses in use and routes to each other
    Inspect {
        /// Only this network
        #[arg(value_parser = parse_network)]
        network: Option<NetworkName>,
    },

    /// Find what is wrong, on which nodes, why, and what to do about it
    ///
    /// What several nodes have is told once, with their names. The exit status is 1 if there is a finding that keeps pods
    /// from their network, 3 if there is none and not everything could be looked at, as always where an agent cannot be
    /// asked.
    Doctor {
        /// Only this network
        #[arg(value_parser = parse_network)]
        network: Option<NetworkName>,
    },

    /// Ask the nodes of the pods what NetworkPolicies do to them
    Policy {
        /// What is asked.
        #[command(subcommand)]
        verb: PolicyVerb,
    },

    /// Find out why a connection works, or does not
    ///
    /// The nodes of both ends are asked, and of a Service those of its endpoints. The exit status is 0 if the connection
    /// works, 1 if something is in its way, 3 if nothing that could be looked at is.
    Why {
        /// Who begins: NAMESPACE/POD, node/NODE or an address
        #[arg(value_name = "FROM", value_parser = parse_any)]
        from: End,

        /// Who is meant: the same or NAMESPACE/svc/SERVICE, then :PORT or :PORT/udp or :PORT/sctp; without a port, ICMP is
        /// asked about
        #[arg(value_name = "TO[:PORT[/PROTOCOL]]", value_parser = parse_any)]
        to: End,
    },

    /// Write what a pod sends and receives to stdout, as a pcap
    ///
    /// For `| tcpdump -n -r -` or `| wireshark -k -i -`. Nothing is installed in the pod. Only headers are written, unless
    /// you ask for more. Ends with Ctrl-C.
    Capture {
        /// NAMESPACE/POD, or POD in the context's namespace
        #[arg(value_name = "POD", value_parser = parse_pod)]
        pod: End,
        /// How much, and until when.
        #[command(flatten)]
        options: CaptureOptions,
    },

    /// Collect what a report of a defect needs into one archive, without secrets
    ///
    /// A MANIFEST in it says what each file is.
    Bundle {
        /// The archive [default: ferrule-bundle-TIME.tar.gz]; - is stdout
        #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
        file: Option<PathBuf>,

        /// Lines of each agent's log
        #[arg(long, value_name = "LINES", default_value_t = 2000, value_parser = clap::value_parser!(i64).range(0..))]
        log_lines: i64,
    },

    /// Move the nodes from another plugin to ferrule, one after another, while their pods run
    ///
    /// For plugins whose addresses are host-local's: kindnet, flannel, bridge, ptp. The agents have to be installed with
    /// deploy/components/migration, so that they come to a node with this. A pod with all rights is made on each node, and
    /// removed again. Stops at the first node that does not move; the same command goes on from there.
    Migrate(MigrateOptions),

    /// Remove ferrule from the cluster: the agents, and what is on the nodes
    ///
    /// The steps of docs/install.md, one after another. Refuses while pods have addresses of ferrule's; coredns, which every
    /// cluster has, is scaled down.
    Uninstall {
        /// Do not ask
        #[arg(long)]
        yes: bool,

        /// Say what would be done, and change nothing
        #[arg(long)]
        dry_run: bool,

        /// The image that cleans the nodes [default: that of the agents]
        #[arg(long, value_name = "IMAGE")]
        image: Option<String>,
    },

    /// Print the completions for a shell
    Completions {
        /// The shell
        #[arg(value_enum)]
        shell: Shell,
    },

    /// Write completions and man pages into a directory
    #[command(hide = true)]
    Generate {
        /// Below it completions/ and man/ are made
        #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
        directory: PathBuf,
    },
}

/// How much is captured, and until when.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct CaptureOptions {
    /// Only this interface of the pod
    #[arg(long, value_name = "NAME")]
    pub interface: Option<String>,

    /// Whole packets: what applications say, with their secrets
    #[arg(long)]
    pub full: bool,

    /// End after so many packets
    #[arg(long, value_name = "PACKETS", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,

    /// End after this time: 30s, 5m
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub duration: Option<Duration>,
}

/// What moves, and from what.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct MigrateOptions {
    /// The DaemonSet of the old plugin, which leaves each node as it moves, or none; may be given several times
    #[arg(long, value_name = "NAMESPACE/NAME|none", value_parser = parse_daemon_set)]
    pub replaces: Vec<String>,

    /// host-local's directory on the nodes [default: as the old conflist says]
    #[arg(long, value_name = "DIR")]
    pub from: Option<String>,

    /// Where the runtime of the nodes keeps the results of ADD [default: as ferrulectl import]
    #[arg(long, value_name = "DIR")]
    pub results: Option<String>,

    /// Do not ask
    #[arg(long)]
    pub yes: bool,

    /// Say for each node what would be done, and change nothing but for the pod that looks
    #[arg(long)]
    pub dry_run: bool,
}

/// What is asked about policies.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum PolicyVerb {
    /// Say whether a connection is allowed, and by which rule, or what the policies lack
    ///
    /// The nodes of both pods are asked, each about its own kernel. The exit status is 0 if it is allowed, 1 if it is denied,
    /// 3 if that cannot be told.
    Why {
        /// Who begins: NAMESPACE/POD or an address
        #[arg(value_name = "FROM", value_parser = parse_end)]
        from: End,

        /// Who is meant: NAMESPACE/POD or an address, then :PORT or :PORT/udp or :PORT/sctp; without a port, ICMP is asked
        /// about
        #[arg(value_name = "TO[:PORT[/PROTOCOL]]", value_parser = parse_end)]
        to: End,
    },

    /// Show the policies of a pod, their chains in its node's kernel, and how many packets each rule has let pass
    Show {
        /// NAMESPACE/POD, or POD in the context's namespace
        #[arg(value_name = "POD", value_parser = parse_pod)]
        pod: End,
    },
}

impl Verb {
    /// As it stands on the command line.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Inspect { .. } => "inspect",
            Self::Doctor { .. } => "doctor",
            Self::Policy { verb: PolicyVerb::Why { .. } } => "policy why",
            Self::Policy { verb: PolicyVerb::Show { .. } } => "policy show",
            Self::Why { .. } => "why",
            Self::Capture { .. } => "capture",
            Self::Bundle { .. } => "bundle",
            Self::Migrate(_) => "migrate",
            Self::Uninstall { .. } => "uninstall",
            Self::Completions { .. } => "completions",
            Self::Generate { .. } => "generate",
        }
    }

    /// Whether its status 1 says something about the cluster.
    pub(super) fn only_looks(&self) -> bool {
        matches!(self, Self::Inspect { .. } | Self::Doctor { .. } | Self::Policy { .. } | Self::Why { .. })
    }
}

/// `none`, or a DaemonSet by namespace and name.
fn parse_daemon_set(text: &str) -> Result<String, String> {
    let is_full = text
        .split_once('/')
        .is_some_and(|(namespace, name)| !namespace.is_empty() && !name.is_empty() && !name.contains('/'));
    match is_full || text == "none" {
        true => Ok(text.to_owned()),
        false => Err("a DaemonSet is written NAMESPACE/NAME; none is written none".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(line: &str) -> Result<CommandLine, String> {
        let words = ["kubectl-ferrule"].into_iter().chain(line.split(' '));
        CommandLine::try_parse_from(words).map_err(|error| error.to_string())
    }

    #[test]
    fn the_command_line_is_consistent() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn common_options_stand_before_or_after_the_verb() {
        for line in [
            "doctor --node a --context c -n net --node b --deadline 2m -o json",
            "--node a --node b --namespace net --context c --deadline 120 --output=json doctor",
        ] {
            let CommandLine { common, verb } = parse(line).unwrap();
            assert_eq!(verb, Verb::Doctor { network: None }, "{line}");
            assert_eq!((common.nodes, common.context), (vec!["a".into(), "b".into()], Some("c".into())));
            assert_eq!((common.namespace, common.deadline), (Some("net".into()), Duration::from_secs(120)));
            assert_eq!(common.output, OutputFormat::Json, "{line}");
        }
    }

    #[test]
    fn a_wrong_word_is_named() {
        for (line, named) in [
            ("inspect ../a", "../a"),
            ("frobnicate", "frobnicate"),
            ("capture", "POD"),
            ("capture default/web --count 0", "0"),
            ("capture default/web --duration 5d", "5m"),
            ("capture a/b/c", "NAMESPACE/POD"),
            ("policy why default/a", "TO"),
            ("policy why default/a default/b:http", "http"),
            ("bundle --log-lines -1", "-1"),
            ("doctor --deadline 0", "30s"),
            ("migrate --replaces kindnet", "NAMESPACE/NAME"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(named), "{line}: {error}");
        }
    }
}
