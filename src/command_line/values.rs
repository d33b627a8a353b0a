//! What stands behind an option or in an operand's place. Each error says what is wrong with the text, in the words that
//! clap shows behind the name of the option.

use std::net::IpAddr;
use std::time::Duration;

use crate::cni::ids::NetworkName;
use crate::policy::names::{SCTP, TCP, UDP};

/// Reads the name of a network.
///
/// # Errors
/// What is wrong with it.
pub fn parse_network(text: &str) -> Result<NetworkName, String> {
    NetworkName::parse(text).map_err(|error| format!("the name of a network {error}"))
}

/// Reads `30s`, `5m`, `1h`, or seconds.
///
/// # Errors
/// What is wrong with it.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text.chars().last() {
        Some('s') => (text.strip_suffix('s'), 1),
        Some('m') => (text.strip_suffix('m'), 60),
        Some('h') => (text.strip_suffix('h'), 3600),
        _ => (Some(text), 1),
    };
    let seconds = number.and_then(|number| number.parse::<u32>().ok()).filter(|number| *number > 0);
    let seconds = seconds.ok_or_else(|| "a time is written 30s, 5m or 1h".to_owned())?;
    Ok(Duration::from_secs(u64::from(seconds) * unit))
}

/// Reads `PORT`, `PORT/tcp`, `PORT/udp` or `PORT/sctp` as an `IPPROTO_*` and the port.
///
/// # Errors
/// What is wrong with it.
pub fn parse_port(text: &str) -> Result<(u8, u16), String> {
    let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = match protocol.to_ascii_lowercase().as_str() {
        "tcp" => TCP,
        "udp" => UDP,
        "sctp" => SCTP,
        _ => return Err(format!("{protocol:?} is not one of tcp, udp, sctp")),
    };
    match number.parse() {
        Ok(port) if port > 0 => Ok((protocol, port)),
        _ => Err(format!("{number:?} is no port: a number from 1 to 65535")),
    }
}

/// Splits `WHO:PORT` or `WHO`, where an IPv6 address with a port is in brackets. Answers without the brackets.
///
/// # Errors
/// If it cannot be told where an IPv6 address ends.
pub fn split_port(text: &str) -> Result<(&str, Option<&str>), String> {
    let bare = without_brackets(text);
    if bare.parse::<IpAddr>().is_ok() {
        return Ok((bare, None));
    }
    if let Some((address, port)) = text.rsplit_once("]:") {
        return Ok((address.trim_start_matches('['), Some(port)));
    }
    match text.split_once(':') {
        Some((_, rest)) if rest.contains(':') => {
            Err("an IPv6 address with a port is written [ADDRESS]:PORT".to_owned())
        }
        Some((who, port)) => Ok((who, Some(port))),
        None => Ok((text, None)),
    }
}

/// What is between brackets; the whole text where there are none around it.
pub fn without_brackets(text: &str) -> &str {
    text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text)
}

/// Whether an object of Kubernetes can be named so (RFC 1123).
pub fn is_object_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
    (1..=253).contains(&text.len()) && text.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_has_a_unit_or_is_in_seconds() {
        for (text, seconds) in [("7", 7), ("30s", 30), ("2m", 120), ("1h", 3600)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "s", "0", "-1s", "1d", "1.5m"] {
            assert!(parse_duration(text).unwrap_err().contains("30s"), "{text}");
        }
    }

    #[test]
    fn a_port_is_of_tcp_unless_it_says_otherwise() {
        for (text, port) in
            [("80", (TCP, 80)), ("443/tcp", (TCP, 443)), ("53/udp", (UDP, 53)), ("9/SCTP", (SCTP, 9))]
        {
            assert_eq!(parse_port(text), Ok(port), "{text}");
        }
        for (text, why) in [
            ("http", "\"http\" is no port"),
            ("0", "\"0\" is no port"),
            ("70000/udp", "\"70000\" is no port"),
            ("80/icmp", "\"icmp\" is not one of"),
        ] {
            let error = parse_port(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn a_port_is_told_from_an_address() {
        for (text, who, port) in [
            ("default/web", "default/web", None),
            ("default/web:80/udp", "default/web", Some("80/udp")),
            ("10.0.0.1:443", "10.0.0.1", Some("443")),
            ("fd00::1", "fd00::1", None),
            ("[fd00::1]", "fd00::1", None),
            ("[fd00::1]:80", "fd00::1", Some("80")),
        ] {
            assert_eq!(split_port(text), Ok((who, port)), "{text}");
        }
        assert!(split_port("fd00::1:80:x").unwrap_err().contains("[ADDRESS]:PORT"));
    }

    #[test]
    fn names_are_those_of_objects() {
        assert!(["web", "web-0.a", "0"].into_iter().all(is_object_name));
        assert!(!["", "Web", "a/b", "a_b", &"a".repeat(254)].into_iter().any(is_object_name));
    }
}
