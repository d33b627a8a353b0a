//! The command line of the verbs.

use std::ffi::OsString;
use std::path::PathBuf;

use lexopt::{Arg, Parser, ValueExt};

use crate::cni::ids::NetworkName;
use crate::cni::problem::quote;

/// Where runtimes look for conflists unless told otherwise.
const DEFAULT_CONF_DIR: &str = "/etc/cni/net.d";

/// Where libcni keeps what it was answered (`CacheDir`, libcni/api.go), unless the runtime says otherwise.
const DEFAULT_RESULTS_DIR: &str = "/var/lib/cni/results";

/// What `--help` says of the verbs.
pub const USAGE: &str = "  ferrule inspect [NETWORK]     attachments, addresses in use and routes to peers
  ferrule doctor [NETWORK]      what is wrong, why, and what to do; exit status 1 if anything is
  ferrule reclaim [NETWORK]     free what dead attachments and nobody hold
  ferrule sync [NETWORK]        make routes, nftables table and forwardAccept true now
  ferrule uninstall             remove all that ferrule made on this node
  ferrule import --from DIR     take over the pods whose addresses host-local holds in DIR (docs/OPERATE.md)

      --json           one JSON document instead of text
      --dry-run        say what would be done, and change nothing (reclaim, uninstall, import)
      --yes-pods-lose-their-network
                       go on though pods are running (uninstall)
      --network NAME   the network that they become part of; DIR's own name if not said (import)
      --results DIR    where the runtime keeps its results; /var/lib/cni/results if not said (import)
      --conf-dir DIR   where the conflists are; /etc/cni/net.d if not said
      --data-dir DIR   where the stores are of networks without a conf; /var/lib/cni/ferrule if not said
";

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Show what there is.
    Inspect,
    /// Find what is wrong.
    Doctor,
    /// Free what nobody uses.
    Reclaim,
    /// Make the node what the confs say.
    Sync,
    /// Remove everything.
    Uninstall,
    /// Take over another plugin's pods.
    Import,
}

impl Verb {
    /// Every verb.
    pub const ALL: [Verb; 6] =
        [Self::Inspect, Self::Doctor, Self::Reclaim, Self::Sync, Self::Uninstall, Self::Import];

    /// As it stands on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inspect => "inspect",
            Self::Doctor => "doctor",
            Self::Reclaim => "reclaim",
            Self::Sync => "sync",
            Self::Uninstall => "uninstall",
            Self::Import => "import",
        }
    }
}

impl Verb {
    /// Whether the name of a network may follow it.
    fn takes_a_network(self) -> bool {
        !matches!(self, Self::Uninstall | Self::Import)
    }

    fn can_foresee(self) -> bool {
        matches!(self, Self::Reclaim | Self::Uninstall | Self::Import)
    }
}

/// A command line that makes sense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arguments {
    /// What is to be done.
    pub verb: Verb,
    /// `--help`: say how it is used, and do nothing.
    pub help: bool,
    /// `--json`.
    pub json: bool,
    /// `--dry-run`: change nothing. Only for verbs that remove something.
    pub dry_run: bool,
    /// `--yes-pods-lose-their-network`. Only for [`Verb::Uninstall`].
    pub may_cut_pods_off: bool,
    /// `--conf-dir`.
    pub conf_dir: PathBuf,
    /// `--data-dir`.
    pub data_dir: Option<PathBuf>,
    /// The one network that it is about; `None`: all. Of [`Verb::Import`]: `--network`.
    pub network: Option<NetworkName>,
    /// `--from`. Always there for [`Verb::Import`], which alone has it.
    pub from: Option<PathBuf>,
    /// `--results`. Only for [`Verb::Import`].
    pub results: PathBuf,
}

impl Arguments {
    /// Reads the words behind the program's name; the first must be a verb.
    ///
    /// # Errors
    /// Says which word is wrong.
    pub fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Self, lexopt::Error> {
        let mut words = Parser::from_args(words);
        let verb = match words.next()? {
            Some(Arg::Value(word)) => Verb::ALL.into_iter().find(|verb| word == verb.as_str()),
            _ => None,
        };
        let verb = verb.ok_or("the first word must be a verb")?;
        let conf_dir = PathBuf::from(DEFAULT_CONF_DIR);
        let mut arguments = Self {
            verb,
            help: false,
            json: false,
            dry_run: false,
            may_cut_pods_off: false,
            conf_dir,
            data_dir: None,
            network: None,
            from: None,
            results: PathBuf::from(DEFAULT_RESULTS_DIR),
        };
        while let Some(word) = words.next()? {
            match word {
                Arg::Long("help") | Arg::Short('h') => arguments.help = true,
                Arg::Long("json") => arguments.json = true,
                Arg::Long("dry-run") if verb.can_foresee() => arguments.dry_run = true,
                Arg::Long("yes-pods-lose-their-network") if verb == Verb::Uninstall => {
                    arguments.may_cut_pods_off = true;
                }
                Arg::Long("conf-dir") => arguments.conf_dir = words.value()?.into(),
                Arg::Long("data-dir") => arguments.data_dir = Some(words.value()?.into()),
                Arg::Long("from") if verb == Verb::Import => arguments.from = Some(words.value()?.into()),
                Arg::Long("results") if verb == Verb::Import => arguments.results = words.value()?.into(),
                Arg::Long("network") if verb == Verb::Import => {
                    arguments.network = Some(parse_network(words.value()?.string()?)?);
                }
                Arg::Value(name) if arguments.network.is_none() && verb.takes_a_network() => {
                    arguments.network = Some(parse_network(name.string()?)?);
                }
                _ => return Err(word.unexpected()),
            }
        }
        if verb == Verb::Import && !arguments.help && arguments.from.is_none() {
            return Err("import needs --from DIR, such as /var/lib/cni/networks/NAME".into());
        }
        Ok(arguments)
    }
}

fn parse_network(name: String) -> Result<NetworkName, lexopt::Error> {
    let parsed = NetworkName::parse(&name);
    Ok(parsed.map_err(|error| format!("{} is no name of a network: it {error}", quote(&name)))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Arguments, String> {
        Arguments::parse(line.split(' ').map(OsString::from)).map_err(|error| error.to_string())
    }

    #[test]
    fn options_stand_anywhere_behind_the_verb() {
        let arguments = parse("inspect --conf-dir=/a podnet --json --data-dir /b").unwrap();
        assert_eq!((arguments.verb, arguments.json), (Verb::Inspect, true));
        assert_eq!(arguments.conf_dir, PathBuf::from("/a"));
        assert_eq!(arguments.data_dir, Some("/b".into()));
        assert_eq!(arguments.network, Some(NetworkName::parse("podnet").unwrap()));
        assert_eq!(parse("inspect").unwrap().conf_dir, PathBuf::from(DEFAULT_CONF_DIR));
    }

    #[test]
    fn an_import_has_its_own_options() {
        let arguments = parse("import --from /a/podnet --dry-run").unwrap();
        assert_eq!((arguments.from, arguments.network), (Some("/a/podnet".into()), None));
        assert_eq!(arguments.results, PathBuf::from(DEFAULT_RESULTS_DIR));
        let arguments = parse("import --network podnet --from=/a --results /b").unwrap();
        assert_eq!(arguments.network, Some(NetworkName::parse("podnet").unwrap()));
        assert_eq!(arguments.results, PathBuf::from("/b"));
    }

    #[test]
    fn what_is_no_use_is_named() {
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
            ("inspect --json=yes", "yes"),
            ("frobnicate", "verb"),
            ("import", "--from"),
            ("import --from", "--from"),
            ("import --from /a podnet", "podnet"),
            ("import --from /a --network ../a", "../a"),
            ("inspect --from /a", "--from"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(named), "{line}: {error}");
        }
    }
}
