//! What the kernel's own parts have counted: /proc/net/snmp, snmp6 and netstat.
//!
//! Each group has two lines, one with the names and one with the numbers:
//!
//! ```text
//! Udp: InDatagrams NoPorts InErrors ... InCsumErrors
//! Udp: 5120 3 0 ... 0
//! ```
//!
//! The numbers are those of the namespace of the calling thread, since it was made.

use std::{fs, io};

/// How many IPv4 packets rp_filter has dropped, on all links.
///
/// # Errors
/// The file cannot be read, or does not say.
pub fn reverse_path_drops() -> io::Result<u64> {
    read("netstat", "TcpExt:", "IPReversePathFilter")
}

/// How many datagrams of UDP came with a wrong checksum, of both families.
///
/// # Errors
/// The file cannot be read, or does not say.
pub fn udp_checksum_errors() -> io::Result<u64> {
    let ipv4 = read("snmp", "Udp:", "InCsumErrors")?;
    // A line for each, and none in a kernel without IPv6.
    let text = fs::read_to_string("/proc/thread-self/net/snmp6").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("Udp6InCsumErrors"));
    Ok(ipv4 + line.and_then(|it| it.trim().parse::<u64>().ok()).unwrap_or_default())
}

fn read(file: &str, group: &str, name: &str) -> io::Result<u64> {
    let path = format!("/proc/thread-self/net/{file}");
    find(&fs::read_to_string(&path)?, group, name)
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("{path} has no {group} {name}")))
}

fn find(text: &str, group: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(group));
    let place = lines.next()?.split_ascii_whitespace().position(|it| it == name)?;
    lines.next()?.split_ascii_whitespace().nth(place)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "Ip: InReceives InHdrErrors\nIp: 7 0\nUdp: InDatagrams InCsumErrors\nUdp: 12 5\n\
                        UdpLite: InDatagrams InCsumErrors\nUdpLite: 1 2\n";

    #[test]
    fn a_number_is_found_by_its_group_and_name() {
        assert_eq!(find(TEXT, "Udp:", "InCsumErrors"), Some(5));
        assert_eq!(find(TEXT, "UdpLite:", "InCsumErrors"), Some(2));
        assert_eq!(find(TEXT, "Udp:", "NoPorts"), None);
        assert_eq!(find(TEXT, "Tcp:", "InCsumErrors"), None);
        assert_eq!(find("Udp: InDatagrams\n", "Udp:", "InDatagrams"), None);
        assert_eq!(find("Udp: A B\nUdp: 1\n", "Udp:", "B"), None);
    }

    #[test]
    fn the_kernel_has_what_is_asked_for() {
        reverse_path_drops().unwrap();
        udp_checksum_errors().unwrap();
    }
}
