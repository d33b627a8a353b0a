//! Who is meant, as it stands on the command line.

use std::fmt;
use std::net::IpAddr;

use crate::command_line::values::{self, is_object_name, split_port};

/// One end of a connection, with a port where one is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// Who.
    pub who: Who,
    /// `PORT` or `PORT/PROTOCOL`.
    pub port: Option<String>,
}

/// Who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// A pod by its name; without a namespace in that of the context.
    Pod {
        /// Its namespace.
        namespace: Option<String>,
        /// Its name.
        name: String,
    },
    /// A Service, likewise.
    Service {
        /// Its namespace.
        namespace: Option<String>,
        /// Its name.
        name: String,
    },
    /// A node by its name.
    Node(String),
    /// An address.
    Address(IpAddr),
}

impl End {
    /// With that namespace where none is named.
    pub fn in_namespace(&self, default: &str) -> Self {
        let mut end = self.clone();
        if let Who::Pod { namespace, .. } | Who::Service { namespace, .. } = &mut end.who {
            namespace.get_or_insert_with(|| default.to_owned());
        }
        end
    }
}

/// As `ferrulectl` reads it, of what it knows.
impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.who, &self.port) {
            (Who::Pod { namespace: Some(namespace), name }, _) => write!(f, "{namespace}/{name}")?,
            (Who::Pod { namespace: None, name }, _) => f.write_str(name)?,
            (Who::Service { namespace: Some(namespace), name }, _) => write!(f, "{namespace}/svc/{name}")?,
            (Who::Service { namespace: None, name }, _) => write!(f, "svc/{name}")?,
            (Who::Node(name), _) => write!(f, "node/{name}")?,
            (Who::Address(address @ IpAddr::V6(_)), Some(_)) => write!(f, "[{address}]")?,
            (Who::Address(address), _) => write!(f, "{address}")?,
        }
        self.port.as_ref().map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

/// Reads `NAMESPACE/POD` or `POD`.
///
/// # Errors
/// What is wrong with it.
pub fn parse_pod(text: &str) -> Result<End, String> {
    let (namespace, name) = match text.split_once('/') {
        Some((namespace, name)) => (Some(namespace), name),
        None => (None, text),
    };
    if !is_object_name(name) || !namespace.is_none_or(is_object_name) {
        return Err("a pod is written NAMESPACE/POD, or POD".to_owned());
    }
    let who = Who::Pod { namespace: namespace.map(str::to_owned), name: name.to_owned() };
    Ok(End { who, port: None })
}

/// Reads the same, or an address; with `:PORT` or `:PORT/PROTOCOL` behind it, or without. An IPv6 address with a port is
/// in brackets.
///
/// # Errors
/// What is wrong with it.
pub fn parse_end(text: &str) -> Result<End, String> {
    let (who, port) = split_port(text)?;
    let port = port.map(parse_port).transpose()?;
    match who.parse() {
        Ok(address) => Ok(End { who: Who::Address(address), port }),
        Err(_) => parse_pod(who)
            .map(|end| End { port, ..end })
            .map_err(|_| "neither an address nor NAMESPACE/POD".to_owned()),
    }
}

/// Reads the same, or `svc/NAME`, `NAMESPACE/svc/NAME`, `node/NAME`.
///
/// # Errors
/// What is wrong with it.
pub fn parse_any(text: &str) -> Result<End, String> {
    let (rest, port) = match text.split_once(':') {
        Some((rest, port)) => (rest, Some(port)),
        None => (text, None),
    };
    let parts: Vec<&str> = rest.split('/').collect();
    let who = match parts.as_slice() {
        ["svc", name] if is_object_name(name) => Who::Service { namespace: None, name: (*name).to_owned() },
        [namespace, "svc", name] if is_object_name(namespace) && is_object_name(name) => {
            Who::Service { namespace: Some((*namespace).to_owned()), name: (*name).to_owned() }
        }
        ["node", name] if is_object_name(name) => Who::Node((*name).to_owned()),
        _ => {
            let hint = "neither an address nor NAMESPACE/POD, NAMESPACE/svc/SERVICE or node/NODE";
            return parse_end(text)
                .map_err(|error| if error.contains("neither") { hint.to_owned() } else { error });
        }
    };
    Ok(End { who, port: port.map(parse_port).transpose()? })
}

/// Stays as it is written: `ferrulectl` reads it again.
fn parse_port(text: &str) -> Result<String, String> {
    values::parse_port(text).map(|_| text.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_read_and_written_as_ferrulectl_reads_them() {
        for (text, written) in [
            ("web", "shop/web"),
            ("a/web:80", "a/web:80"),
            ("web:53/UDP", "shop/web:53/udp"),
            ("10.0.0.1", "10.0.0.1"),
            ("10.0.0.1:443/tcp", "10.0.0.1:443/tcp"),
            ("fd00::1", "fd00::1"),
            ("[fd00::1]", "fd00::1"),
            ("[fd00::1]:80", "[fd00::1]:80"),
        ] {
            assert_eq!(parse_end(text).unwrap().in_namespace("shop").to_string(), written, "{text}");
        }
    }

    #[test]
    fn services_and_nodes_are_read_where_they_make_sense() {
        for (text, written) in [
            ("svc/web:80", "shop/svc/web:80"),
            ("a/svc/web:53/udp", "a/svc/web:53/udp"),
            ("node/n1", "node/n1"),
            ("node/n1:22", "node/n1:22"),
            ("a/web:80", "a/web:80"),
            ("[fd00::1]:80", "[fd00::1]:80"),
        ] {
            assert_eq!(parse_any(text).unwrap().in_namespace("shop").to_string(), written, "{text}");
        }
        assert!(parse_any("a/b/c").unwrap_err().contains("svc/SERVICE"));
        assert!(parse_any("svc/web:http").unwrap_err().contains("\"http\" is no port"));
    }

    #[test]
    fn what_is_neither_is_refused_with_the_form() {
        for (text, why) in [
            ("a/b/c", "NAMESPACE/POD"),
            ("Web", "NAMESPACE/POD"),
            ("a/", "NAMESPACE/POD"),
            ("a/b:http", "\"http\" is no port"),
            ("a/b:0", "is no port"),
            ("a/b:80/icmp", "\"icmp\" is not one of"),
            ("fd00::1:80:x", "[ADDRESS]:PORT"),
        ] {
            let error = parse_end(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
