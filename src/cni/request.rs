//! What a runtime asks for: environment and stdin together.

use std::ffi::OsString;
use std::io::Read;

use super::conf::{Conf, version_of_fragment};
use super::env::{Command, Environment};
use super::error::{CniError, Code};
use super::version::SpecVersion;

/// Longest conf read, in bytes. The 5,000 nodes of the largest clusters, all as static peers, take less
/// than a quarter of it.
pub const CONF_MAX: u64 = 4 << 20;

/// A command, and the conf of the network that it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The command and its parameters.
    pub environment: Environment,
    /// The conf. For VERSION it says nothing but the version to answer in.
    pub conf: Conf,
}

/// Why there is no request, and in which version the runtime expects to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What to answer.
    pub error: CniError,
    /// The conf's version where it could be made out, otherwise the newest.
    pub version: SpecVersion,
}

impl Request {
    /// Reads environment and stdin; at most [`CONF_MAX`] bytes of it. Without `CNI_COMMAND` stdin is left
    /// alone, as it may be a terminal.
    ///
    /// # Errors
    /// Code 4 for the environment, 5 if stdin cannot be read, 6 and 7 for a conf that is none, 1 for a
    /// version that ferrule does not speak or that does not have the command.
    pub fn read(lookup: impl Fn(&str) -> Option<OsString>, stdin: impl Read) -> Result<Self, Failure> {
        let has_command = lookup("CNI_COMMAND").is_some_and(|command| !command.is_empty());
        let environment = Environment::read(lookup);
        let stdin = if has_command { read_bounded(stdin) } else { Stdin::default() };
        let version = version_of_fragment(&stdin.bytes);
        let fail = |error| Failure { error, version: version.unwrap_or(SpecVersion::NEWEST) };

        let environment = environment.map_err(fail)?;
        if environment.command == Command::Version {
            // The answer is the same whatever was asked, so that whatever was asked is good enough.
            let conf = Conf::empty(version.unwrap_or(SpecVersion::NEWEST));
            return Ok(Self { environment, conf });
        }
        if let Some(error) = stdin.error {
            return Err(fail(error));
        }
        let conf = Conf::parse(&stdin.bytes).map_err(fail)?;
        match refuse_too_old(environment.command, conf.version) {
            Ok(()) => Ok(Self { environment, conf }),
            Err(error) => Err(Failure { error, version: conf.version }),
        }
    }
}

/// What came over stdin, and why that is not all.
#[derive(Default)]
struct Stdin {
    bytes: Vec<u8>,
    error: Option<CniError>,
}

fn read_bounded(stdin: impl Read) -> Stdin {
    let mut bytes = Vec::new();
    let error = match stdin.take(CONF_MAX + 1).read_to_end(&mut bytes) {
        Err(error) => {
            Some(CniError::new(Code::Io, "cannot read the conf from stdin").with_details(error.to_string()))
        }
        Ok(len) if len as u64 > CONF_MAX => {
            Some(CniError::new(Code::Decode, format!("the conf on stdin is longer than {CONF_MAX} bytes")))
        }
        Ok(_) => None,
    };
    Stdin { bytes, error }
}

fn refuse_too_old(command: Command, version: SpecVersion) -> Result<(), CniError> {
    if version >= command.since() {
        return Ok(());
    }
    let message = format!("{command} is not part of version {version}");
    let remedy = format!("it needs a conf whose cniVersion is {} or later", command.since());
    Err(CniError::new(Code::IncompatibleVersion, message).with_details(remedy))
}

/// VERSION's answer (SPEC, "VERSION"), with a final newline.
pub fn version_answer(version: SpecVersion) -> String {
    let answer = serde_json::json!({
        "cniVersion": version.as_str(),
        "supportedVersions": SpecVersion::ALL.map(SpecVersion::as_str),
    });
    format!("{answer:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io;

    fn read(command: &str, stdin: &[u8]) -> Result<Request, Failure> {
        Request::read(
            |name| match name {
                "CNI_COMMAND" => Some(command.into()),
                "CNI_CONTAINERID" => Some("8e5d".into()),
                "CNI_NETNS" => Some("/run/netns/a".into()),
                "CNI_IFNAME" => Some("eth0".into()),
                _ => None,
            },
            stdin,
        )
    }

    fn conf(version: SpecVersion) -> Vec<u8> {
        format!(r#"{{"cniVersion":"{version}","name":"podnet"}}"#).into_bytes()
    }

    #[test]
    fn each_version_has_the_commands_of_its_specification() {
        for version in SpecVersion::ALL {
            for command in Command::ALL {
                match read(command.as_str(), &conf(version)) {
                    Ok(request) => {
                        assert!(version >= command.since());
                        assert_eq!((request.environment.command, request.conf.version), (command, version));
                    }
                    Err(failure) => {
                        assert!(version < command.since());
                        assert_eq!(
                            (failure.error.code, failure.version),
                            (Code::IncompatibleVersion, version)
                        );
                    }
                }
            }
        }
        let failure = read("GC", &conf(SpecVersion::V1_0_0)).unwrap_err();
        assert_eq!(failure.error.message, "GC is not part of version 1.0.0");
        assert_eq!(failure.error.details, "it needs a conf whose cniVersion is 1.1.0 or later");
    }

    #[test]
    fn a_failure_is_told_in_the_version_of_the_conf() {
        let expire_elements = br#"{"cniVersion":"0.4.0","name""#;
        for (command, stdin, code) in [
            ("ADD", expire_elements.as_slice(), Code::Decode),
            ("NONE", expire_elements, Code::InvalidEnvironment),
        ] {
            let failure = read(command, stdin).unwrap_err();
            assert_eq!((failure.error.code, failure.version), (code, SpecVersion::V0_4_0));
        }
        assert_eq!(read("ADD", b"").unwrap_err().version, SpecVersion::NEWEST);
        assert_eq!(read("ADD", br#"{"cniVersion":"7"}"#).unwrap_err().version, SpecVersion::NEWEST);
    }

    #[test]
    fn a_long_or_endless_stdin_is_refused_naming_the_limit() {
        let mut long = conf(SpecVersion::V1_0_0);
        long.resize(5 << 20, b' ');
        let failure = read("ADD", &long).unwrap_err();
        assert_eq!((failure.error.code, failure.version), (Code::Decode, SpecVersion::V1_0_0));
        assert!(failure.error.message.contains("4194304 bytes"), "{}", failure.error);

        long.truncate(4 << 20);
        assert!(read("ADD", &long).is_ok());

        let endless =
            Request::read(|name| (name == "CNI_COMMAND").then(|| "STATUS".into()), io::repeat(b' '));
        assert_eq!(endless.unwrap_err().error.code, Code::Decode);
    }

    #[test]
    fn an_unreadable_stdin_is_code_5_and_unread_without_a_command() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("torn"))
            }
        }
        let failure =
            Request::read(|name| (name == "CNI_COMMAND").then(|| "STATUS".into()), Broken).unwrap_err();
        assert_eq!((failure.error.code, failure.error.details.as_str()), (Code::Io, "torn"));

        struct Untouchable;
        impl Read for Untouchable {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                panic!("a terminal would hang here")
            }
        }
        let failure = Request::read(|_| None, Untouchable).unwrap_err();
        assert_eq!(failure.error.message, "CNI_COMMAND is not set");
    }

    #[test]
    fn version_is_answered_whatever_was_asked() {
        for stdin in [b"".as_slice(), b"{", b"\xff", br#"{"cniVersion":"9.9.9"}"#] {
            assert_eq!(read("VERSION", stdin).unwrap().conf.version, SpecVersion::NEWEST);
        }
        let request = read("VERSION", &conf(SpecVersion::V0_3_1)).unwrap();
        let answer: serde_json::Value = serde_json::from_str(&version_answer(request.conf.version)).unwrap();
        assert_eq!(
            answer,
            serde_json::json!({
                "cniVersion": "0.3.1",
                "supportedVersions": ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]
            })
        );
    }

    proptest! {
        #[test]
        fn no_stdin_makes_it_panic(command in "ADD|DEL|CHECK|GC|STATUS|VERSION", stdin in any::<Vec<u8>>()) {
            let _ = read(&command, &stdin);
        }
    }
}
