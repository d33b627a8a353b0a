//! What `CNI_ARGS` tells: `KEY=VALUE;KEY=VALUE`, for ferrule and for others.
//!
//! Keys of others are theirs, and never an error: chained plugins choke on each other's keys otherwise
//! (cni#560). Nothing here is required: nerdctl and nomad send no `K8S_*`, and `K8S_POD_UID` is
//! not always there (istio#51292). An attachment is never told apart by what stands here.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::problem::quote;
use crate::mac::MacAddr;

/// Longest name of a Kubernetes object (a DNS subdomain, RFC 1123).
const POD_WORD_MAX: usize = 253;

/// Whose sandbox it is, for logs and link aliases. The words hold printable ASCII and no `/`, so that they
/// cannot forge a log line or another alias.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodName {
    /// `K8S_POD_NAMESPACE`.
    pub namespace: String,
    /// `K8S_POD_NAME`.
    pub name: String,
    /// `K8S_POD_UID`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
}

impl PodName {
    /// Whether the words are such: it may come from a file as well.
    pub fn has_plain_words(&self) -> bool {
        [&self.namespace, &self.name].into_iter().chain(&self.uid).all(|word| is_pod_word(word))
    }

    /// The name, and the uid if it is known: what the alias of the pod's links says.
    pub fn with_uid(&self) -> String {
        self.uid.as_ref().map_or_else(|| self.to_string(), |uid| format!("{self} {uid}"))
    }
}

impl std::fmt::Display for PodName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The keys of `CNI_ARGS` that ferrule reads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Args {
    /// The pod, if namespace and name were given and are such words. What is not is left out: a label is
    /// no reason to fail a pod.
    pub pod: Option<PodName>,
    /// `IP`: the address asked for; a prefix length that came with it is dropped.
    pub ip: Option<IpAddr>,
    /// `MAC`: the hardware address asked for, as for the bridge plugin.
    pub mac: Option<MacAddr>,
}

impl Args {
    /// Reads the value of `CNI_ARGS`. Of a key given twice the last counts; pairs without `=` are skipped.
    ///
    /// # Errors
    /// If an address was asked for that is none. The text follows "CNI_ARGS".
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut args = Self::default();
        let (mut namespace, mut name, mut uid) = (None, None, None);
        for (key, value) in text.split(';').filter_map(|pair| pair.split_once('=')) {
            match key.trim() {
                "K8S_POD_NAMESPACE" => namespace = pod_word(value),
                "K8S_POD_NAME" => name = pod_word(value),
                "K8S_POD_UID" => uid = pod_word(value),
                "IP" if value.is_empty() => args.ip = None,
                "IP" => {
                    let ip = parse_requested(value)
                        .ok_or_else(|| format!("asks for IP={}, which is no address", quote(value)))?;
                    args.ip = Some(ip);
                }
                "MAC" if value.is_empty() => args.mac = None,
                "MAC" => {
                    let mac = MacAddr::parse(value).filter(|mac| mac.is_unicast());
                    let why = || format!("asks for MAC={}, which is no unicast address", quote(value));
                    args.mac = Some(mac.ok_or_else(why)?);
                }
                _ => {}
            }
        }
        args.pod = namespace.zip(name).map(|(namespace, name)| PodName { namespace, name, uid });
        Ok(args)
    }
}

/// An address asked for: `10.0.0.5` or, as the `ips` capability has it, `10.0.0.5/24`. The length only
/// has to be possible: the range set says which prefix an address gets. An IPv4 address written as an IPv6
/// one (`::ffff:10.0.0.5`) is the IPv4 address.
pub fn parse_requested(text: &str) -> Option<IpAddr> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().ok()?;
    if let Some(length) = length {
        let most = if address.is_ipv4() { 32 } else { 128 };
        let is_number = length.bytes().all(|digit| digit.is_ascii_digit());
        length.parse::<u8>().ok().filter(|length| is_number && *length <= most)?;
    }
    Some(address.to_canonical())
}

fn pod_word(value: &str) -> Option<String> {
    is_pod_word(value).then(|| value.to_owned())
}

fn is_pod_word(value: &str) -> bool {
    (1..=POD_WORD_MAX).contains(&value.len()) && value.chars().all(|c| c.is_ascii_graphic() && c != '/')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_containerd_sends_is_read() {
        let args = Args::parse(
            "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0;K8S_POD_INFRA_CONTAINER_ID=8e5d;K8S_POD_UID=2f1f-4e",
        )
        .unwrap();
        let pod = args.pod.unwrap();
        assert_eq!(pod.to_string(), "default/web-0");
        assert_eq!(pod.uid.as_deref(), Some("2f1f-4e"));
        assert_eq!((args.ip, args.mac), (None, None));
    }

    #[test]
    fn cni560_keys_of_others_and_broken_pairs_are_no_error() {
        for text in ["", ";", ";;a;=;=b;c=;d=e=f;K8S_POD_NAME=lonely;", "IP=", "MAC=", "\u{1F980}=\0"] {
            assert_eq!(Args::parse(text), Ok(Args::default()), "{text:?}");
        }
    }

    #[test]
    fn addresses_asked_for_are_read_with_and_without_length() {
        for (text, ip) in [
            ("IP=10.0.0.5", "10.0.0.5"),
            ("x=y;IP=10.0.0.4;IP=10.0.0.5/24", "10.0.0.5"),
            ("IP=::ffff:10.0.0.5", "10.0.0.5"),
            ("IP=fd00::5/64;", "fd00::5"),
        ] {
            assert_eq!(Args::parse(text).unwrap().ip, Some(ip.parse().unwrap()), "{text}");
        }
        let args = Args::parse("MAC=0a:58:00:00:00:01").unwrap();
        assert_eq!(args.mac, Some(MacAddr([0x0a, 0x58, 0, 0, 0, 1])));
    }

    #[test]
    fn an_address_asked_for_that_is_none_is_named() {
        for text in
            ["IP=10.0.0", "IP=10.0.0.5/33", "IP=10.0.0.5/", "IP=10.0.0.5/+8", "IP=a b", "IP=fe80::1%eth0"]
        {
            let error = Args::parse(text).unwrap_err();
            assert!(error.contains("which is no address"), "{error}");
        }
        for text in ["MAC=1", "MAC=01:00:5e:00:00:01", "MAC=00:00:00:00:00:00"] {
            assert!(Args::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_pod_name_cannot_forge_a_log_line_or_an_alias() {
        for name in ["a\nb", "a/b", "a b", "", "é", "\u{1b}[2J", &"a".repeat(254)] {
            let args = Args::parse(&format!("K8S_POD_NAMESPACE=default;K8S_POD_NAME={name}")).unwrap();
            assert_eq!(args.pod, None, "{name:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "((IP|MAC|K8S_POD_NAME|K8S_POD_NAMESPACE)?=?\\PC*;?)*") {
            if let Ok(Args { pod: Some(pod), .. }) = Args::parse(&text) {
                prop_assert!(pod.to_string().bytes().all(|byte| byte.is_ascii_graphic()));
                prop_assert_eq!(pod.to_string().matches('/').count(), 1);
            }
        }
    }
}
