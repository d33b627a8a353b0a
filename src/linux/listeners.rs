//! Who listens in the network namespace of the calling thread, as /proc/thread-self/net tells.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::{fs, io};

/// `IPPROTO_*` (include/uapi/linux/in.h).
const TCP: u8 = 6;
const UDP: u8 = 17;

/// `TCP_LISTEN` (include/net/tcp_states.h).
const LISTEN: &str = "0A";
/// `TCP_CLOSE`, which a socket of UDP is in that is connected to nobody.
const UNCONNECTED: &str = "07";

/// The addresses on which somebody listens at a port; the unspecified one stands for all of its family, and `::` as a rule
/// for those of IPv4 too. A socket of IPv6 may have an address of IPv4 (Java's do), and counts as such. `None` of a protocol that cannot be looked at like this.
///
/// # Errors
/// The files cannot be read.
pub fn listeners(protocol: u8, port: u16) -> io::Result<Option<Vec<IpAddr>>> {
    let (names, state) = match protocol {
        TCP => (["tcp", "tcp6"], LISTEN),
        UDP => (["udp", "udp6"], UNCONNECTED),
        _ => return Ok(None),
    };
    let mut found = Vec::new();
    for name in names {
        match fs::read_to_string(format!("/proc/thread-self/net/{name}")) {
            Ok(text) => found.extend(text.lines().skip(1).filter_map(|line| read(line, state, port))),
            // A kernel without IPv6.
            Err(error) if error.kind() == io::ErrorKind::NotFound && name.ends_with('6') => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Some(found))
}

/// `0: 0100007F:1F90 00000000:0000 0A ...`
fn read(line: &str, state: &str, port: u16) -> Option<IpAddr> {
    let mut words = line.split_whitespace().skip(1);
    let (local, _remote, found) = (words.next()?, words.next()?, words.next()?);
    let (address, local_port) = local.split_once(':')?;
    if found != state || u16::from_str_radix(local_port, 16).ok()? != port {
        return None;
    }
    read_address(address)
}

/// Words of four bytes in the host's order, each as a number.
fn read_address(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| Some(u32::from_str_radix(hex.get(at * 8..at * 8 + 8)?, 16).ok()?.to_ne_bytes());
    match hex.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let mut octets = [0; 16];
            for (at, part) in octets.chunks_exact_mut(4).enumerate() {
                part.copy_from_slice(&word(at)?);
            }
            Some(Ipv6Addr::from(octets).to_canonical())
        }
        _ => None,
    }
}

#[cfg(test)]
#[cfg(target_endian = "little")]
mod tests {
    use super::*;

    #[test]
    fn who_listens_at_the_port_is_read() {
        let line = "  0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 1 1 0 100 0 0 10 0";
        assert_eq!(read(line, LISTEN, 8080), Some("127.0.0.1".parse().unwrap()));
        assert_eq!(read(line, LISTEN, 8081), None);
        assert_eq!(read(line, UNCONNECTED, 8080), None);
        let line = "  1: 000000FD000000000000000007000000:0050 00000000000000000000000000000000:0000 0A 0";
        assert_eq!(read(line, LISTEN, 80), Some("fd00::7".parse().unwrap()));
        let line = "  2: 0000000000000000FFFF000000000000:0050 00000000000000000000000000000000:0000 0A 0";
        assert_eq!(read(line, LISTEN, 80), Some("0.0.0.0".parse().unwrap()), "as of Java");
        assert_eq!(read("  sl  local_address", LISTEN, 80), None);
    }

    #[test]
    fn a_socket_of_this_process_is_found() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        assert_eq!(listeners(TCP, port).unwrap().unwrap(), ["127.0.0.1".parse::<IpAddr>().unwrap()]);
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        assert_eq!(listeners(UDP, port).unwrap().unwrap(), ["127.0.0.1".parse::<IpAddr>().unwrap()]);
        assert_eq!(listeners(132, port).unwrap(), None);
        let socket = std::net::TcpListener::bind("[::ffff:127.0.0.1]:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        assert_eq!(listeners(TCP, port).unwrap().unwrap(), ["127.0.0.1".parse::<IpAddr>().unwrap()]);
    }
}
