//! Who is asked about, as it stands on the command line.

use std::net::IpAddr;

use crate::command_line::values::{is_object_name, parse_port, split_port, without_brackets};
use crate::policy::object::ObjectName;

/// One end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A pod by its name.
    Pod(ObjectName),
    /// An address.
    Address(IpAddr),
}

/// The end that is asked for, and by which port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Door {
    /// Who.
    pub target: Target,
    /// An `IPPROTO_*`, and the port; `None`: something without ports, as ICMP.
    pub port: Option<(u8, u16)>,
}

/// Reads `NAMESPACE/POD`.
///
/// # Errors
/// What is wrong with it.
pub fn parse_pod(text: &str) -> Result<ObjectName, String> {
    match text.split_once('/') {
        Some((namespace, name)) if is_object_name(namespace) && is_object_name(name) => {
            Ok(ObjectName { namespace: namespace.to_owned(), name: name.to_owned() })
        }
        _ => Err("a pod is written NAMESPACE/POD".to_owned()),
    }
}

/// Reads `NAMESPACE/POD` or an address.
///
/// # Errors
/// What is wrong with it.
pub fn parse_target(text: &str) -> Result<Target, String> {
    if let Ok(address) = without_brackets(text).parse() {
        return Ok(Target::Address(address));
    }
    let pod = parse_pod(text).map_err(|_| "neither an address nor NAMESPACE/POD".to_owned())?;
    Ok(Target::Pod(pod))
}

/// Reads the same with `:PORT`, `:PORT/tcp`, `:PORT/udp` or `:PORT/sctp` behind it, or without. An IPv6 address with a
/// port is in brackets.
///
/// # Errors
/// What is wrong with it.
pub fn parse_door(text: &str) -> Result<Door, String> {
    let (target, port) = split_port(text)?;
    Ok(Door { target: parse_target(target)?, port: port.map(parse_port).transpose()? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::names::{SCTP, TCP, UDP};

    fn pod(namespace: &str, name: &str) -> Target {
        Target::Pod(ObjectName { namespace: namespace.into(), name: name.into() })
    }

    fn address(text: &str) -> Target {
        Target::Address(text.parse().unwrap())
    }

    #[test]
    fn ends_and_ports_are_read() {
        for (text, target, port) in [
            ("default/web", pod("default", "web"), None),
            ("default/web:80", pod("default", "web"), Some((TCP, 80))),
            ("default/web-0.a:53/udp", pod("default", "web-0.a"), Some((UDP, 53))),
            ("default/web:9/SCTP", pod("default", "web"), Some((SCTP, 9))),
            ("10.0.0.1", address("10.0.0.1"), None),
            ("10.0.0.1:443/tcp", address("10.0.0.1"), Some((TCP, 443))),
            ("fd00::1", address("fd00::1"), None),
            ("[fd00::1]", address("fd00::1"), None),
            ("[fd00::1]:80", address("fd00::1"), Some((TCP, 80))),
        ] {
            assert_eq!(parse_door(text), Ok(Door { target, port }), "{text}");
        }
        assert_eq!(parse_target("[fd00::1]"), Ok(address("fd00::1")));
    }

    #[test]
    fn what_is_neither_is_refused_with_the_form() {
        for (text, why) in [
            ("web", "NAMESPACE/POD"),
            ("web:80", "NAMESPACE/POD"),
            ("default/", "NAMESPACE/POD"),
            ("default/a/b", "NAMESPACE/POD"),
            ("default/web:http", "\"http\" is no port"),
            ("default/web:0", "is no port"),
            ("default/web:70000/udp", "is no port"),
            ("default/web:80/icmp", "\"icmp\" is not one of"),
            ("fd00::1:80:x", "[ADDRESS]:PORT"),
            ("10.0.0.256", "NAMESPACE/POD"),
        ] {
            let error = parse_door(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
        assert!(parse_pod("10.0.0.1").is_err());
    }
}
