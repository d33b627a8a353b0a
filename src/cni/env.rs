//! The environment variables by which a runtime says what it wants (SPEC, "Parameters").
//!
//! Which command needs which variable is one table, `VARIABLES`. Every variable that is missing or
//! malformed is named in one answer.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::PathBuf;

use super::args::Args;
use super::error::{CniError, Code};
use super::ids::{AttachmentKey, ContainerId, IfName, NetnsPath, NetworkName};
use super::problem::quote;
use super::version::SpecVersion;

/// What the runtime wants (`CNI_COMMAND`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Command {
    /// Attach a container to the network.
    Add,
    /// Undo an ADD. Succeeds where there is nothing to undo.
    Del,
    /// Is an attachment still as ADD left it?
    Check,
    /// Remove all attachments that the conf does not list.
    Gc,
    /// Could an ADD succeed?
    Status,
    /// Which versions of the specification are spoken?
    Version,
}

impl Command {
    /// Every command, in the order of the columns of the table `VARIABLES`.
    pub const ALL: [Command; 6] = [Self::Add, Self::Del, Self::Check, Self::Gc, Self::Status, Self::Version];

    /// As it stands in `CNI_COMMAND`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Gc => "GC",
            Self::Status => "STATUS",
            Self::Version => "VERSION",
        }
    }

    /// The first version of the specification that has it.
    pub fn since(self) -> SpecVersion {
        match self {
            Self::Add | Self::Del | Self::Version => SpecVersion::V0_1_0,
            Self::Check => SpecVersion::V0_4_0,
            Self::Gc | Self::Status => SpecVersion::V1_1_0,
        }
    }

    /// The command that `CNI_COMMAND` names.
    fn read(lookup: &impl Fn(&str) -> Option<OsString>) -> Result<Self, CniError> {
        let known = Self::ALL.map(Self::as_str).join(", ");
        let Some(given) = lookup("CNI_COMMAND").filter(|value| !value.is_empty()) else {
            return Err(CniError::new(Code::InvalidEnvironment, "CNI_COMMAND is not set")
                .with_details(format!("a runtime sets it to one of {known}")));
        };
        Self::ALL.into_iter().find(|command| given == command.as_str()).ok_or_else(|| {
            let given = quote(&given.to_string_lossy());
            CniError::new(Code::InvalidEnvironment, format!("CNI_COMMAND is {given}, which is no command"))
                .with_details(format!("known are {known}"))
        })
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a command makes of a variable. Unset and empty are the same.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Need {
    /// Missing or malformed: an error.
    Must,
    /// Malformed: an error.
    May,
    /// Malformed: as if unset. A DEL must get through with whatever is left of a container.
    Try,
    /// Not looked at.
    No,
}

struct Variable {
    name: &'static str,
    /// In the order of [`Command::ALL`].
    needs: [Need; 6],
    /// Puts the value where it belongs. What is wrong with it follows the variable's name.
    read: fn(&OsStr, &mut Environment) -> Result<(), String>,
}

/// The contract. `CNI_PATH` is demanded by the specification for GC and STATUS, and not missed here
/// unless another program has to be found.
#[rustfmt::skip]
const VARIABLES: [Variable; 5] = {
    use Need::{May, Must, No, Try};
    [   //                                            ADD   DEL   CHECK GC   STATUS VERSION
        Variable { name: "CNI_CONTAINERID", needs: [Must, Must, Must, No,  No,    No], read: read_container },
        Variable { name: "CNI_NETNS",       needs: [Must, Try,  Must, No,  No,    No], read: read_netns },
        Variable { name: "CNI_IFNAME",      needs: [Must, Must, Must, No,  No,    No], read: read_ifname },
        Variable { name: "CNI_ARGS",        needs: [May,  Try,  May,  No,  No,    No], read: read_args },
        Variable { name: "CNI_PATH",        needs: [May,  May,  May,  May, May,   No], read: read_path },
    ]
};

impl Variable {
    fn need(&self, command: Command) -> Need {
        let columns = Command::ALL.into_iter().zip(self.needs);
        columns.into_iter().find(|(column, _)| *column == command).map_or(Need::No, |(_, need)| need)
    }

    fn take(&self, need: Need, value: Option<&OsStr>, environment: &mut Environment) -> Result<(), String> {
        match (need, value) {
            (Need::No, _) | (Need::May | Need::Try, None) => Ok(()),
            (Need::Must, None) => Err("is not set".to_owned()),
            (Need::Must | Need::May, Some(value)) => (self.read)(value, environment),
            (Need::Try, Some(value)) => (self.read)(value, environment).or(Ok(())),
        }
    }
}

fn read_container(value: &OsStr, environment: &mut Environment) -> Result<(), String> {
    let id = ContainerId::parse(text(value)?).map_err(|error| error.to_string())?;
    environment.container = Some(id);
    Ok(())
}

fn read_netns(value: &OsStr, environment: &mut Environment) -> Result<(), String> {
    let path = NetnsPath::parse(text(value)?).map_err(|error| error.to_string())?;
    environment.netns = Some(path);
    Ok(())
}

fn read_ifname(value: &OsStr, environment: &mut Environment) -> Result<(), String> {
    let name = IfName::parse(text(value)?).map_err(|error| error.to_string())?;
    environment.ifname = Some(name);
    Ok(())
}

fn read_args(value: &OsStr, environment: &mut Environment) -> Result<(), String> {
    // A key of another plugin may hold anything, bytes that are not UTF-8 included.
    environment.args = Args::parse(&value.to_string_lossy())?;
    Ok(())
}

fn read_path(value: &OsStr, environment: &mut Environment) -> Result<(), String> {
    environment.path = std::env::split_paths(value).filter(|dir| !dir.as_os_str().is_empty()).collect();
    Ok(())
}

fn text(value: &OsStr) -> Result<&str, String> {
    value.to_str().ok_or_else(|| "is not UTF-8".to_owned())
}

/// What the environment said, as far as the command reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    /// `CNI_COMMAND`.
    pub command: Command,
    /// `CNI_CONTAINERID`. There for ADD, DEL and CHECK.
    pub container: Option<ContainerId>,
    /// `CNI_NETNS`. There for ADD and CHECK; at DEL the namespace may be gone, or its path malformed,
    /// and either is `None`.
    pub netns: Option<NetnsPath>,
    /// `CNI_IFNAME`. There for ADD, DEL and CHECK.
    pub ifname: Option<IfName>,
    /// `CNI_ARGS`.
    pub args: Args,
    /// `CNI_PATH`: where other plugins are found, in this order.
    pub path: Vec<PathBuf>,
}

impl Environment {
    /// Reads what the command needs through `lookup`, which is `std::env::var_os` outside tests.
    ///
    /// # Errors
    /// Code 4, naming every variable that is missing or malformed.
    pub fn read(lookup: impl Fn(&str) -> Option<OsString>) -> Result<Self, CniError> {
        let command = Command::read(&lookup)?;
        let mut environment = Self::empty(command);
        let mut problems = Vec::new();
        for variable in &VARIABLES {
            let value = lookup(variable.name).filter(|value| !value.is_empty());
            let taken = variable.take(variable.need(command), value.as_deref(), &mut environment);
            problems.extend(taken.err().map(|problem| format!("{} {problem}", variable.name)));
        }
        if problems.is_empty() {
            return Ok(environment);
        }
        let message = format!("{command} cannot be done with this environment");
        Err(CniError::new(Code::InvalidEnvironment, message).with_details(problems.join(" | ")))
    }

    /// An environment that says nothing but the command.
    fn empty(command: Command) -> Self {
        Self { command, container: None, netns: None, ifname: None, args: Args::default(), path: Vec::new() }
    }

    /// The attachment to `network` that the command is about.
    ///
    /// # Errors
    /// Code 4 for a command that is about none (GC, STATUS, VERSION).
    pub fn attachment(&self, network: NetworkName) -> Result<AttachmentKey, CniError> {
        match (&self.container, &self.ifname) {
            (Some(container), Some(ifname)) => {
                Ok(AttachmentKey { network, container: container.clone(), ifname: ifname.clone() })
            }
            (None, _) => Err(self.lacks("CNI_CONTAINERID")),
            (_, None) => Err(self.lacks("CNI_IFNAME")),
        }
    }

    /// The namespace that the command is about.
    ///
    /// # Errors
    /// Code 4 where there is none: DEL, GC, STATUS, VERSION.
    pub fn required_netns(&self) -> Result<&NetnsPath, CniError> {
        self.netns.as_ref().ok_or_else(|| self.lacks("CNI_NETNS"))
    }

    fn lacks(&self, variable: &str) -> CniError {
        CniError::new(Code::InvalidEnvironment, format!("{} came without {variable}", self.command))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::ffi::OsStringExt;

    const COMPLETE: [(&str, &str); 5] = [
        ("CNI_CONTAINERID", "8e5d3ecb"),
        ("CNI_NETNS", "/run/netns/cni-1"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_ARGS", "K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0"),
        ("CNI_PATH", "/opt/cni/bin:/usr/lib/cni::./here"),
    ];

    /// Reads `command` in the complete environment with `changes` made to it.
    fn read(command: &str, changes: &[(&str, &str)]) -> Result<Environment, CniError> {
        Environment::read(|name| {
            let command = [("CNI_COMMAND", command)];
            let mut all = changes.iter().chain(&command).chain(&COMPLETE);
            all.find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
        })
    }

    #[test]
    fn a_complete_environment_is_read_by_every_command() {
        for command in Command::ALL {
            let environment = read(command.as_str(), &[]).unwrap();
            assert_eq!(environment.command, command);
            let is_about_one = matches!(command, Command::Add | Command::Del | Command::Check);
            let key = environment.attachment(NetworkName::parse("podnet").unwrap());
            assert_eq!(key.is_ok(), is_about_one, "{command}");
            assert_eq!(environment.required_netns().is_ok(), is_about_one, "{command}");
            assert_eq!(environment.args.pod.is_some(), is_about_one, "{command}");
        }
        let path = read("ADD", &[]).unwrap().path;
        assert_eq!(path, ["/opt/cni/bin", "/usr/lib/cni", "./here"].map(PathBuf::from));
    }

    #[test]
    fn every_missing_or_malformed_variable_is_named_in_one_answer() {
        let changes =
            [("CNI_CONTAINERID", ""), ("CNI_NETNS", "netns"), ("CNI_IFNAME", "a/b"), ("CNI_ARGS", "IP=x")];
        let error = read("ADD", &changes).unwrap_err();
        assert_eq!(error.code, Code::InvalidEnvironment);
        assert_eq!(error.message, "ADD cannot be done with this environment");
        assert_eq!(
            error.details,
            "CNI_CONTAINERID is not set | CNI_NETNS is not an absolute path | CNI_IFNAME has '/' at byte 1; \
             printable ASCII without / : % may stand there | CNI_ARGS asks for IP=\"x\", which is no address"
        );
    }

    #[test]
    fn a_del_is_content_with_container_id_and_ifname() {
        for netns in ["", "no/path", "/run/\n"] {
            let environment =
                read("DEL", &[("CNI_NETNS", netns), ("CNI_ARGS", "IP=x"), ("CNI_PATH", "")]).unwrap();
            assert_eq!(environment.netns, None);
            assert!(environment.attachment(NetworkName::parse("podnet").unwrap()).is_ok());
        }
        assert!(read("DEL", &[("CNI_CONTAINERID", "")]).is_err());
        assert!(read("DEL", &[("CNI_IFNAME", "..")]).is_err());
    }

    #[test]
    fn commands_about_the_network_need_nothing_but_the_command() {
        for command in ["GC", "STATUS", "VERSION"] {
            let changes = COMPLETE.map(|(name, _)| (name, if name == "CNI_PATH" { "" } else { "\n/.." }));
            assert!(read(command, &changes).is_ok(), "{command}");
        }
    }

    #[test]
    fn a_command_that_is_none_is_told_which_there_are() {
        let unset = Environment::read(|_| None).unwrap_err();
        assert_eq!(
            (unset.code, unset.message.as_str()),
            (Code::InvalidEnvironment, "CNI_COMMAND is not set")
        );
        let error = read("add", &[]).unwrap_err();
        assert_eq!(error.message, r#"CNI_COMMAND is "add", which is no command"#);
        assert_eq!(error.details, "known are ADD, DEL, CHECK, GC, STATUS, VERSION");
    }

    #[test]
    fn bytes_that_are_no_text_are_refused_where_a_name_is_needed() {
        let error = Environment::read(|name| match name {
            "CNI_COMMAND" => Some("CHECK".into()),
            _ => Some(OsString::from_vec(vec![b'/', 0xff])),
        })
        .unwrap_err();
        assert_eq!(
            error.details,
            "CNI_CONTAINERID is not UTF-8 | CNI_NETNS is not UTF-8 | CNI_IFNAME is not UTF-8"
        );
    }

    proptest! {
        #[test]
        fn no_environment_panics_and_ids_are_where_promised(
            command in "ADD|DEL|CHECK|GC|STATUS|VERSION|[A-Z]*",
            bytes in proptest::collection::vec(proptest::collection::vec(1u8.., 0..8), 5),
        ) {
            let result = Environment::read(|name| match COMPLETE.iter().position(|(key, _)| *key == name) {
                Some(at) => Some(OsString::from_vec(bytes[at].clone())),
                None => Some(OsString::from(&command)),
            });
            match result {
                Ok(environment) => {
                    let needs = matches!(environment.command, Command::Add | Command::Del | Command::Check);
                    prop_assert_eq!(environment.container.is_some() && environment.ifname.is_some(), needs);
                }
                Err(error) => prop_assert_eq!(error.code, Code::InvalidEnvironment),
            }
        }
    }
}
