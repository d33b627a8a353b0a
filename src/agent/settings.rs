//! What the administrator decides: flags, each with an environment variable, `FERRULE_` and the flag's name in capitals.
//! Nothing else is read from the environment: kubelet puts variables there for each Service of the namespace, and a
//! Service `vxlan` makes `VXLAN_PORT=tcp://10.96.0.5:8472`.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use clap::Parser;
use ipnetwork::IpNetwork;

use crate::agent::install::conflist::ConfOptions;
use crate::cni::ids::NetworkName;
use crate::cni::version::SpecVersion;
use crate::config::policy::PolicyUnknown;
use crate::desired::overlay::{DEFAULT_ID, DEFAULT_PORT, MAX_ID, Routing};

/// The flags of `ferruled`.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "ferruled",
    version,
    about = "The node agent of ferrule: makes it the network of a Kubernetes cluster, and keeps it so."
)]
pub struct Settings {
    /// Name of the Node that this is (spec.nodeName by the downward API)
    #[arg(long, env = "FERRULE_NODE_NAME")]
    pub node_name: String,

    /// Name of the network; it names the store's directory, so keep it
    #[arg(long, env = "FERRULE_NETWORK", default_value = "podnet", value_parser = parse_network)]
    pub network: NetworkName,

    /// Directory of the runtime's CNI plugins
    #[arg(long, env = "FERRULE_BIN_DIR", default_value = "/opt/cni/bin")]
    pub bin_dir: PathBuf,

    /// Directory of the runtime's network confs
    #[arg(long, env = "FERRULE_CONF_DIR", default_value = "/etc/cni/net.d")]
    pub conf_dir: PathBuf,

    /// File name of our conf in it; runtimes take the first by name
    #[arg(long, env = "FERRULE_CONF_NAME", default_value = "10-ferrule.conflist")]
    pub conf_name: String,

    /// Versions of the CNI specification in our conf; fewer where a plugin behind ferrule is older
    #[arg(long, env = "FERRULE_CNI_VERSIONS", default_value = "0.4.0,1.0.0,1.1.0", value_delimiter = ',', value_parser = parse_version)]
    pub cni_versions: Vec<SpecVersion>,

    /// Directory of the stores; the same path for the agent and for the plugin
    #[arg(long, env = "FERRULE_DATA_DIR", default_value = "/var/lib/cni/ferrule")]
    pub data_dir: PathBuf,

    /// The plugin's binary to install
    #[arg(long, env = "FERRULE_PLUGIN", default_value = "/ferrule")]
    pub plugin: PathBuf,

    /// How packets get to other nodes: by routes alone, through VXLAN, or through VXLAN to those that are not on-link
    #[arg(long, env = "FERRULE_ROUTING", default_value = "auto", value_name = "direct|vxlan|auto")]
    pub routing: Routing,

    /// UDP port of VXLAN
    #[arg(long, env = "FERRULE_VXLAN_PORT", default_value_t = DEFAULT_PORT, value_parser = parse_port)]
    pub vxlan_port: u16,

    /// VXLAN network identifier
    #[arg(long, env = "FERRULE_VXLAN_ID", default_value_t = DEFAULT_ID, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_ID)))]
    pub vxlan_id: u32,

    /// Whether the checksums of what pods send by VXLAN are left to the card: keep leaves it as it is, off has the kernel compute them
    #[arg(long, env = "FERRULE_VXLAN_CHECKSUM_OFFLOAD", default_value = "keep")]
    pub vxlan_checksum_offload: ChecksumOffload,

    /// MTU of pods in bytes; 0 takes the uplink's
    #[arg(long, env = "FERRULE_MTU", default_value_t = 0)]
    pub mtu: u32,

    /// Masquerade packets that leave the cluster
    #[arg(long, env = "FERRULE_MASQUERADE", default_value_t = true, action = clap::ArgAction::Set)]
    pub masquerade: bool,

    /// Destinations, besides those in the cluster, that are not masqueraded
    #[arg(long, env = "FERRULE_NON_MASQUERADE_CIDRS", value_delimiter = ',')]
    pub non_masquerade_cidrs: Vec<IpNetwork>,

    /// Keep pods from the cloud's instance metadata service (169.254.169.254 and the like)
    #[arg(long, env = "FERRULE_BLOCK_INSTANCE_METADATA", default_value_t = false, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub block_instance_metadata: bool,

    /// Where iptables' FORWARD drops (docker): auto inserts accept rules for this node's pods, off only reports it
    #[arg(long, env = "FERRULE_FORWARD_ACCEPT", default_value = "auto", num_args = 0..=1, default_missing_value = "auto")]
    pub forward_accept: ForwardAccept,

    /// What a pod starts with whose NetworkPolicies are not known yet: hold allows what its namespace's policies allow all of its pods, open allows all
    #[arg(long, env = "FERRULE_POLICY_UNKNOWN", default_value = "hold", value_name = "hold|open", value_parser = parse_policy_unknown)]
    pub policy_unknown: PolicyUnknown,

    /// Cut existing connections that a change of NetworkPolicies forbids
    #[arg(long, env = "FERRULE_POLICY_CUT", default_value_t = true, action = clap::ArgAction::Set)]
    pub policy_cut: bool,

    /// The node's /run: write drop-ins there that keep systemd-networkd and NetworkManager off routes and links
    #[arg(long, env = "FERRULE_DROP_INS", value_name = "DIR")]
    pub drop_ins: Option<PathBuf>,

    /// Where /metrics, /healthz and /readyz are served; ":9690" is that port of every address
    #[arg(long, env = "FERRULE_LISTEN", default_value = ":9690", value_parser = parse_listen)]
    pub listen: SocketAddr,

    /// Where kubelet's probes ask for /healthz and /readyz: on the loopback, where no pod and no other host can take the places
    #[arg(long, env = "FERRULE_PROBE_LISTEN", default_value = "127.0.0.1:9691", value_parser = parse_listen)]
    pub probe_listen: SocketAddr,

    /// error, warn, info, debug or trace; or directives such as "info,kube=debug"
    #[arg(long, env = "FERRULE_LOG_LEVEL", default_value = "info")]
    pub log_level: String,

    /// URL of the API server, where the one of the pod's environment cannot be reached (no kube-proxy yet)
    #[arg(long, env = "FERRULE_APISERVER")]
    pub apiserver: Option<String>,

    /// Do nothing until told to end: what is left of the pod that has cleaned a node
    #[arg(long, env = "FERRULE_IDLE", default_value_t = false, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub idle: bool,

    /// Remove ferrule from this node and exit
    #[arg(long, env = "FERRULE_UNINSTALL", default_value_t = false, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub uninstall: bool,

    /// With --uninstall: go on though pods are running
    #[arg(long, env = "FERRULE_YES_PODS_LOSE_THEIR_NETWORK", default_value_t = false, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub yes_pods_lose_their_network: bool,
}

/// Who computes the checksums of what is sent by VXLAN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum ChecksumOffload {
    /// Whoever does it now: the card, unless somebody has said otherwise.
    Keep,
    /// The card.
    On,
    /// The kernel.
    Off,
}

impl ChecksumOffload {
    /// Whether it is to be the card; `None` if nobody asks for either.
    pub fn wanted(self) -> Option<bool> {
        match self {
            Self::Keep => None,
            Self::On => Some(true),
            Self::Off => Some(false),
        }
    }
}

/// What is done where iptables' chain FORWARD drops what it does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum ForwardAccept {
    /// Insert accept rules for the subnets of this node's pods.
    #[value(alias = "true")]
    Auto,
    /// Report it.
    #[value(alias = "false")]
    Off,
}

impl Settings {
    /// Where our conf is.
    pub fn conf_file(&self) -> PathBuf {
        self.conf_dir.join(&self.conf_name)
    }

    /// Where the plugin is to be.
    pub fn plugin_target(&self) -> PathBuf {
        self.bin_dir.join("ferrule")
    }

    /// The node's directories that it uses.
    pub fn directories(&self) -> Vec<PathBuf> {
        vec![self.data_dir.clone(), self.conf_dir.clone(), self.bin_dir.clone()]
    }

    /// The addresses to serve at. One stands for both where the first takes in the second.
    pub fn listeners(&self) -> Vec<SocketAddr> {
        let (all, probes) = (self.listen, self.probe_listen);
        let is_in = all.port() == probes.port() && (all.ip() == probes.ip() || all.ip().is_unspecified());
        if is_in { vec![all] } else { vec![all, probes] }
    }

    /// What concerns the conf. `mtu` is the one that the overlay leaves; `--mtu` comes before it.
    pub fn conf_options(&self, mtu: Option<u32>) -> ConfOptions {
        ConfOptions {
            network: self.network.clone(),
            data_dir: self.data_dir.clone(),
            mtu: Some(self.mtu).filter(|&mtu| mtu != 0).or(mtu),
            masquerade: self.masquerade,
            non_masquerade: self.non_masquerade_cidrs.clone(),
            cni_versions: self.cni_versions.clone(),
            forward_accept: self.forward_accept == ForwardAccept::Auto,
            policy_unknown: self.policy_unknown,
            block_metadata: self.block_instance_metadata,
        }
    }
}

/// The one name that a Service can take, `ferrule-vxlan`: what kubelet says of it is no setting.
fn parse_port(text: &str) -> Result<u16, String> {
    if ["tcp://", "udp://", "sctp://"].iter().any(|scheme| text.starts_with(scheme)) {
        return Ok(DEFAULT_PORT);
    }
    text.parse().map_err(|error: std::num::ParseIntError| error.to_string())
}

fn parse_version(text: &str) -> Result<SpecVersion, String> {
    SpecVersion::parse(text).ok_or_else(|| format!("{text:?} is no version that ferrule speaks"))
}

fn parse_policy_unknown(text: &str) -> Result<PolicyUnknown, String> {
    PolicyUnknown::parse(text)
}

fn parse_network(text: &str) -> Result<NetworkName, String> {
    NetworkName::parse(text).map_err(|error| error.to_string())
}

fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    // Both families: an IPv6 socket takes IPv4 as well, unless the node has bindv6only.
    let everywhere = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    let parsed = match text.strip_prefix(':') {
        Some(port) => port.parse().ok().map(|port| SocketAddr::new(everywhere, port)),
        None => text.parse().ok(),
    };
    parsed.ok_or_else(|| format!("{text:?} is no address; write it like :9690 or 127.0.0.1:9690"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn flags_have_the_defaults_of_a_common_node() {
        let settings = Settings::try_parse_from(["ferruled", "--node-name", "a"]).unwrap();
        assert_eq!(settings.conf_file(), PathBuf::from("/etc/cni/net.d/10-ferrule.conflist"));
        assert_eq!(settings.plugin_target(), PathBuf::from("/opt/cni/bin/ferrule"));
        assert_eq!(settings.listen, "[::]:9690".parse().unwrap());
        assert!(settings.masquerade && !settings.uninstall);
        assert_eq!(settings.forward_accept, ForwardAccept::Auto);
        assert_eq!(settings.policy_unknown, PolicyUnknown::Hold);
        assert!(settings.policy_cut);
        assert_eq!(settings.vxlan_checksum_offload.wanted(), None);
        assert_eq!(settings.conf_options(Some(1450)).mtu, Some(1450));
    }

    /// A Service of any name must not be able to set one: its variables begin with its name.
    #[test]
    fn every_variable_begins_with_ferrule() {
        let command = Settings::command();
        let flags: Vec<_> = command.get_arguments().filter(|arg| arg.get_long() != Some("version")).collect();
        assert!(flags.len() > 15);
        for flag in flags {
            let long = flag.get_long().unwrap();
            let name = format!("FERRULE_{}", long.replace('-', "_").to_uppercase());
            assert_eq!(flag.get_env().and_then(|name| name.to_str()), Some(&*name), "--{long}");
        }
    }

    #[test]
    fn probes_have_a_place_of_their_own() {
        let listeners = |listen: &str| {
            let settings =
                Settings::try_parse_from(["ferruled", "--node-name", "a", "--listen", listen]).unwrap();
            settings.listeners().iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(listeners(":9690"), ["[::]:9690", "127.0.0.1:9691"]);
        assert_eq!(listeners("127.0.0.1:9690"), ["127.0.0.1:9690", "127.0.0.1:9691"]);
        assert_eq!(listeners("192.0.2.1:9691"), ["192.0.2.1:9691", "127.0.0.1:9691"]);
        for same in ["127.0.0.1:9691", "0.0.0.0:9691", "[::]:9691"] {
            assert_eq!(listeners(same), [same]);
        }
    }

    #[test]
    fn a_service_named_ferrule_vxlan_is_no_setting() {
        let port = |text: &str| {
            Settings::try_parse_from(["ferruled", "--node-name", "a", "--vxlan-port", text])
                .map(|it| it.vxlan_port)
        };
        assert_eq!(port("tcp://10.96.0.5:8472").unwrap(), DEFAULT_PORT);
        assert_eq!(port("4789").unwrap(), 4789);
        assert!(port("70000").is_err() && port("http").is_err());
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for words in [
            vec!["--network", "a/b"],
            vec!["--routing", "magic"],
            vec!["--non-masquerade-cidrs", "10.0.0.0/8,x"],
            vec!["--listen", "9690"],
            vec!["--vxlan-id", "16777216"],
            vec!["--masquerade", "maybe"],
            vec!["--policy-unknown", "deny"],
            vec!["--vxlan-checksum-offload", "maybe"],
            vec!["--cni-versions", "1.0.0,2.0.0"],
        ] {
            let all = ["ferruled", "--node-name", "a"].into_iter().chain(words.iter().copied());
            assert!(Settings::try_parse_from(all).is_err(), "{words:?}");
        }
        let given = [
            "ferruled",
            "--node-name",
            "a",
            "--mtu",
            "1400",
            "--non-masquerade-cidrs",
            "10.0.0.0/8,fd00::/8",
        ];
        let settings = Settings::try_parse_from(given).unwrap();
        assert_eq!(
            (settings.non_masquerade_cidrs.len(), settings.conf_options(Some(1450)).mtu),
            (2, Some(1400))
        );
        let given = ["ferruled", "--node-name", "a", "--uninstall", "--masquerade", "false"];
        let settings = Settings::try_parse_from(given).unwrap();
        assert!(settings.uninstall && !settings.masquerade);
    }
}
