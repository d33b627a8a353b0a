//! The command line of `ferrulectl`. The texts here are its help and its man pages.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::Shell;
use ipnetwork::IpNetwork;
use serde::Serialize;

use crate::cli::policy::target::{Door, Target, parse_door, parse_pod, parse_target};
use crate::cni::ids::{IfName, NetworkName};
use crate::command_line::outcome::OutputFormat;
use crate::command_line::values::{parse_duration, parse_network};
use crate::config::role::DEFAULT_DATA_DIR;
use crate::policy::object::ObjectName;

/// Where runtimes look for conflists unless told otherwise.
const DEFAULT_CONF_DIR: &str = "/etc/cni/net.d";

/// Where libcni keeps the results of ADD (`CacheDir`, libcni/api.go), unless the runtime says otherwise.
const DEFAULT_RESULTS_DIR: &str = "/var/lib/cni/results";

/// Inspect and repair the pod network that ferrule makes on this node
///
/// Run it as root on the node, or in the agent's pod: kubectl --namespace kube-system exec ds/ferrule -- /ferrulectl doctor
#[derive(Debug, Clone, Parser)]
#[command(
    name = "ferrulectl",
    version,
    arg_required_else_help = true,
    after_help = "Exit status: 0 if all is well, 1 if something is not, 2 if the command line is wrong."
)]
pub struct CommandLine {
    /// Where to look, and how to print.
    #[command(flatten)]
    pub common: Common,
    /// What is to be done.
    #[command(subcommand)]
    pub verb: Verb,
}

/// What every verb understands, before or after its name.
///
/// The environment variables are those of ferruled: in its container both look in the same places.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Common options")]
pub struct Common {
    /// How to print the result
    #[arg(short, long, global = true, value_enum, value_name = "FORMAT", default_value_t = OutputFormat::Table)]
    pub output: OutputFormat,

    /// Directory of the conflists
    #[arg(long, global = true, env = "FERRULE_CONF_DIR", value_name = "DIR", default_value = DEFAULT_CONF_DIR, value_hint = ValueHint::DirPath, hide_env_values = true)]
    pub conf_dir: PathBuf,

    /// Directory of the stores of networks that no longer have a conflist
    #[arg(long, global = true, env = "FERRULE_DATA_DIR", value_name = "DIR", default_value = DEFAULT_DATA_DIR, value_hint = ValueHint::DirPath, hide_env_values = true)]
    pub data_dir: PathBuf,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum Verb {
    /// List attachments, addresses in use and routes to peers
    Inspect {
        /// Only this network
        #[arg(value_parser = parse_network)]
        network: Option<NetworkName>,
    },

    /// Find what is wrong on this node, why, and what to do about it
    ///
    /// Changes nothing. The exit status is 1 if there is a finding that keeps pods from their network; warnings alone
    /// leave it 0. The ids of findings in the JSON output are stable.
    Doctor {
        /// Only this network
        #[arg(value_parser = parse_network)]
        network: Option<NetworkName>,
    },

    /// Count the packets that were dropped on this node, by reason
    ///
    /// Since the nftables table was made. `doctor` tells which of these counts are rising.
    Drops,

    /// Release addresses that belong to dead pods or to no pod
    ///
    /// A pod counts as dead if its network namespace is gone, or if the node was rebooted since it was added. What may
    /// belong to a running pod is left alone.
    Reclaim {
        /// Only this network
        #[arg(value_parser = parse_network)]
        network: Option<NetworkName>,

        /// Say what would be released, and change nothing
        #[arg(long)]
        dry_run: bool,
    },

    /// Restore forwarding, routes to peers and the nftables table now, instead of with the next pod
    ///
    /// Where a conflist has forwardAccept, iptables' chain FORWARD is made to accept the pods' packets.
    Sync {
        /// Only this network
        #[arg(value_parser = parse_network)]
        network: Option<NetworkName>,
    },

    /// Remove everything that ferrule made on this node
    ///
    /// Links, routes, the nftables table, changed sysctls and the stores. Refuses while pods are running. The conflist
    /// and the binaries stay; the output says how to remove them.
    Uninstall {
        /// Say what would be removed, and change nothing
        #[arg(long)]
        dry_run: bool,

        /// Go on even if pods are running
        #[arg(long)]
        yes_pods_lose_their_network: bool,
    },

    /// Take over the running pods of a plugin that has its addresses from host-local
    ///
    /// So a node moves to ferrule without being drained. Their links and routes stay as they are, and so does
    /// host-local's directory.
    Import {
        /// host-local's directory of the network, such as /var/lib/cni/networks/NAME
        #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
        from: PathBuf,

        /// The network that the pods become part of [default: the last component of --from]
        #[arg(long, value_name = "NAME", value_parser = parse_network)]
        network: Option<NetworkName>,

        /// Where the runtime keeps the results of ADD
        #[arg(long, value_name = "DIR", default_value = DEFAULT_RESULTS_DIR, value_hint = ValueHint::DirPath)]
        results: PathBuf,

        /// Say which pods would be taken over, and change nothing
        #[arg(long)]
        dry_run: bool,
    },

    /// One step of a move to ferrule under running pods, as kubectl ferrule migrate does them on each node
    ///
    /// docs/migration.md says what they are for. Each may be repeated.
    Migrate {
        /// Which one
        #[arg(value_enum)]
        step: MigrateStep,
        /// Of what, and to what.
        #[command(flatten)]
        options: MigrateOptions,
    },

    /// Show what NetworkPolicies do to a pod, and say why a connection is allowed or denied
    Policy {
        /// What is asked.
        #[command(subcommand)]
        verb: PolicyVerb,
    },

    /// Find out why a connection works, or does not
    ///
    /// Looks at all that is on the way of its packets on this node: policies, routes, rules, links, the next hop, VXLAN,
    /// firewalls of others, sysctls, who listens. An end on another node is that node's to look at: the answer names it.
    /// Changes nothing, and sends nothing without --probe. The exit status is 0 if the connection works, 1 if something is in
    /// its way, 3 if nothing that could be looked at is.
    Why {
        /// Who begins: NAMESPACE/POD or an address
        #[arg(value_name = "FROM", value_parser = parse_target, required_unless_present = "question")]
        from: Option<Target>,

        /// Who is meant: NAMESPACE/POD or an address, then :PORT or :PORT/udp or :PORT/sctp; without a port, ICMP is
        /// asked about
        #[arg(value_name = "TO[:PORT[/PROTOCOL]]", value_parser = parse_door, required_unless_present = "question")]
        to: Option<Door>,

        /// Both ends as a JSON document, with what only the API server knows of them: `question` of the JSON output
        #[arg(long, value_name = "JSON", conflicts_with_all = ["from", "to"])]
        question: Option<String>,

        /// Send a packet from FROM as well, which no application sees, and tell what becomes of it
        ///
        /// On the node of FROM, as root. Rules and chains of nf_tables that drop it are named. For as long as it takes, at most
        /// some seconds, there is a table for it.
        #[arg(long)]
        probe: bool,
    },

    /// Write what a pod sends and receives to stdout, as a pcap
    ///
    /// For tcpdump -n -r - or Wireshark. Works without a packet socket, so in the agent's pod as well. Only headers are
    /// written, unless you ask for more. Ends with Ctrl-C.
    Capture {
        /// NAMESPACE/POD
        #[arg(value_name = "NAMESPACE/POD", value_parser = parse_pod)]
        pod: ObjectName,

        /// Only this interface of the pod
        #[arg(long, value_name = "NAME", value_parser = parse_interface)]
        interface: Option<IfName>,

        /// Whole packets: what applications say, with their secrets
        #[arg(long)]
        full: bool,

        /// End after so many packets
        #[arg(long, value_name = "PACKETS", value_parser = clap::value_parser!(u64).range(1..))]
        count: Option<u64>,

        /// End after this time: 30s, 5m
        #[arg(long, value_name = "TIME", value_parser = parse_duration)]
        duration: Option<Duration>,

        /// End with stdin, or when nothing comes from there for half a minute
        #[arg(long, hide = true)]
        leash: bool,
    },

    /// Print what a report of a defect needs of this node, as one JSON document
    ///
    /// What inspect, doctor and policy show say, and what the kernel has: links, routes, tables, counters. No conflist, no
    /// environment, nothing that a pod has said. For a whole cluster: kubectl ferrule bundle
    Bundle,

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

/// A step of a move to ferrule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MigrateStep {
    /// Say what would be taken over, and what keeps the node from moving; changes nothing
    Look,
    /// Make room for ferrule's conflist behind the old one
    Stage,
    /// Take the old conflist away and its pods over
    Take,
}

/// What moves. The environment variables are those of ferruled.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct MigrateOptions {
    /// The network's name, which is that of the old network
    #[arg(long, env = "FERRULE_NETWORK", value_name = "NAME", default_value = "podnet", value_parser = parse_network, hide_env_values = true)]
    pub network: NetworkName,

    /// File name of ferrule's conflist
    #[arg(
        long,
        env = "FERRULE_CONF_NAME",
        value_name = "FILE",
        default_value = "10-ferrule.conflist",
        hide_env_values = true
    )]
    pub conf_name: String,

    /// A range of the node's pods; may be given several times
    #[arg(long = "pod-cidr", value_name = "CIDR", required = true)]
    pub pod_cidrs: Vec<IpNetwork>,

    /// host-local's directory of the old network [default: as its conflist says]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub from: Option<PathBuf>,

    /// Where the runtime keeps the results of ADD
    #[arg(long, value_name = "DIR", default_value = DEFAULT_RESULTS_DIR, value_hint = ValueHint::DirPath)]
    pub results: PathBuf,

    /// The node's root directory, in a container that sees it elsewhere
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub root: Option<PathBuf>,
}

/// What is asked about policies.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum PolicyVerb {
    /// Say whether a connection is allowed, and by which rule, or what the policies lack
    ///
    /// Asks the policies, as the agent knows them, and the kernel's table, and compares the two. The exit status is 0
    /// if it is allowed, 1 if it is denied, 3 if that cannot be told or the two differ.
    Why {
        /// Who begins: NAMESPACE/POD or an address
        #[arg(value_name = "FROM", value_parser = parse_target)]
        from: Target,

        /// Who is meant: NAMESPACE/POD or an address, then :PORT or :PORT/udp or :PORT/sctp; without a port, ICMP is
        /// asked about
        #[arg(value_name = "TO[:PORT[/PROTOCOL]]", value_parser = parse_door)]
        to: Door,
    },

    /// Show the policies of a pod, their chains in the kernel, and how many packets each rule has let pass
    ///
    /// Pods with the same rules share a chain, and so its counters. The exit status is 1 if the agent has not seen the
    /// pod yet, or if the kernel does something else than the policies say; 3 if the pod is not known here.
    Show {
        /// NAMESPACE/POD
        #[arg(value_name = "NAMESPACE/POD", value_parser = parse_pod)]
        pod: ObjectName,
    },
}

impl Verb {
    /// As it stands on the command line.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Inspect { .. } => "inspect",
            Self::Doctor { .. } => "doctor",
            Self::Drops => "drops",
            Self::Reclaim { .. } => "reclaim",
            Self::Sync { .. } => "sync",
            Self::Uninstall { .. } => "uninstall",
            Self::Import { .. } => "import",
            Self::Migrate { .. } => "migrate",
            Self::Policy { verb: PolicyVerb::Why { .. } } => "policy why",
            Self::Policy { verb: PolicyVerb::Show { .. } } => "policy show",
            Self::Why { .. } => "why",
            Self::Capture { .. } => "capture",
            Self::Bundle => "bundle",
            Self::Completions { .. } => "completions",
            Self::Generate { .. } => "generate",
        }
    }
}

fn parse_interface(text: &str) -> Result<IfName, String> {
    IfName::parse(text).map_err(|error| format!("the name of an interface {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(line: &str) -> Result<CommandLine, String> {
        let words = ["ferrulectl"].into_iter().chain(line.split(' '));
        CommandLine::try_parse_from(words).map_err(|error| error.to_string())
    }

    #[test]
    fn the_command_line_is_consistent() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn common_options_stand_before_or_after_the_verb() {
        let network = Some(NetworkName::parse("podnet").unwrap());
        for line in [
            "inspect --conf-dir=/a podnet -o json --data-dir /b",
            "--data-dir /b --output=json --conf-dir /a inspect podnet",
        ] {
            let CommandLine { common, verb } = parse(line).unwrap();
            assert_eq!(verb, Verb::Inspect { network: network.clone() }, "{line}");
            assert_eq!((common.conf_dir, common.data_dir), ("/a".into(), "/b".into()), "{line}");
            assert_eq!(common.output, OutputFormat::Json, "{line}");
        }
        let common = parse("inspect").unwrap().common;
        assert_eq!(common.conf_dir, PathBuf::from(DEFAULT_CONF_DIR));
        assert_eq!(common.output, OutputFormat::Table);
    }

    #[test]
    fn import_has_options_of_its_own() {
        let Verb::Import { from, network, results, dry_run } =
            parse("import --from /a/podnet --dry-run").unwrap().verb
        else {
            panic!("not import")
        };
        assert_eq!((from, network, dry_run), ("/a/podnet".into(), None, true));
        assert_eq!(results, PathBuf::from(DEFAULT_RESULTS_DIR));
        let Verb::Import { network, results, .. } =
            parse("import --network podnet --from=/a --results /b").unwrap().verb
        else {
            panic!("not import")
        };
        assert_eq!(network, Some(NetworkName::parse("podnet").unwrap()));
        assert_eq!(results, PathBuf::from("/b"));
    }

    #[test]
    fn a_capture_ends_as_it_is_told() {
        let line = "capture default/web --interface eth0 --count 3 --duration 2m --full";
        let Verb::Capture { pod, interface, full, count, duration, leash } = parse(line).unwrap().verb else {
            panic!("not capture")
        };
        assert_eq!((pod.namespace.as_str(), pod.name.as_str()), ("default", "web"));
        assert_eq!(interface, Some(IfName::parse("eth0").unwrap()));
        assert_eq!((full, count, duration, leash), (true, Some(3), Some(Duration::from_secs(120)), false));
    }

    #[test]
    fn a_wrong_word_is_named() {
        for (line, named) in [
            ("inspect --colour", "--colour"),
            ("inspect --dry-run", "--dry-run"),
            ("doctor --dry-run", "--dry-run"),
            ("sync --dry-run", "--dry-run"),
            ("reclaim --yes-pods-lose-their-network", "--yes-pods-lose-their-network"),
            ("uninstall podnet", "podnet"),
            ("inspect a b", "b"),
            ("inspect ../a", "../a"),
            ("inspect --conf-dir", "--conf-dir"),
            ("inspect --output=yaml", "yaml"),
            ("frobnicate", "frobnicate"),
            ("import", "--from"),
            ("import --from", "--from"),
            ("import --from /a podnet", "podnet"),
            ("import --from /a --network ../a", "../a"),
            ("inspect --from /a", "--from"),
            ("completions tcsh", "tcsh"),
            ("policy", "why"),
            ("policy show web", "NAMESPACE/POD"),
            ("policy why default/a", "TO"),
            ("why default/a", "TO"),
            ("why default/a default/b:80 --question {}", "--question"),
            ("policy why default/a default/b:http", "http"),
            ("policy why a default/b", "NAMESPACE/POD"),
            ("capture web", "NAMESPACE/POD"),
            ("capture default/web --count 0", "0"),
            ("capture default/web --duration 5d", "5m"),
            ("capture default/web --interface a/b", "a/b"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(named), "{line}: {error}");
        }
    }
}
