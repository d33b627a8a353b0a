//! Whether there are tables of iptables-legacy.
//!
//! Their content is read by a socket option (`IPT_SO_GET_ENTRIES`), for which there is no safe interface.

use std::fs;
use std::io;

/// The legacy tables of IPv4 or IPv6 that packets of the calling thread's namespace go through: "filter", "nat". None
/// where the kernel does not have them, or no program has used them in this namespace.
///
/// # Errors
/// The file exists and cannot be read; root may.
pub fn legacy_tables(ipv4: bool) -> io::Result<Vec<String>> {
    let name = if ipv4 { "ip_tables_names" } else { "ip6_tables_names" };
    match fs::read_to_string(format!("/proc/thread-self/net/{name}")) {
        Ok(names) => Ok(names.lines().map(str::to_owned).collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}
