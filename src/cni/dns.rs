//! What a pod's resolver is to use, as a conf or the node's resolv.conf says it.

use serde::Serialize;

use super::json::Node;

/// The `dns` object of confs and results (SPEC, "Success"). ferrule passes it on and resolves nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Dns {
    /// Addresses of name servers, in the order of preference.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nameservers: Vec<String>,
    /// The local domain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// Domains tried for short names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub search: Vec<String>,
    /// Options of the resolver.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

impl Dns {
    /// True if nothing is said.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// This, and behind it what `other` says besides: that of an earlier plugin of a chain.
    #[must_use]
    pub fn followed_by(mut self, other: Self) -> Self {
        let add = |ours: &mut Vec<String>, theirs: Vec<String>| {
            for word in theirs {
                if !ours.contains(&word) {
                    ours.push(word);
                }
            }
        };
        add(&mut self.nameservers, other.nameservers);
        add(&mut self.search, other.search);
        add(&mut self.options, other.options);
        self.domain = self.domain.or(other.domain);
        self
    }

    /// Reads the `dns` object under the key of that name in `parent`; nothing said if there is none.
    pub fn read_member(parent: &Node<'_, '_>) -> Self {
        let Some(dns) = parent.object("dns") else { return Self::default() };
        Self {
            nameservers: dns.texts("nameservers"),
            domain: dns.text("domain").map(str::to_owned),
            search: dns.texts("search"),
            options: dns.texts("options"),
        }
    }

    /// Reads the text of a resolv.conf, as host-local does for its `resolvConf`: lists of several lines
    /// are joined, of several `domain` lines the last counts, what is not understood is skipped. Unlike
    /// resolv.conf(5), a second `search` line adds to the first.
    pub fn from_resolv_conf(text: &str) -> Self {
        let mut dns = Self::default();
        for line in text.lines() {
            if line.trim_start().starts_with(['#', ';']) {
                continue;
            }
            let mut words = line.split_whitespace();
            let keyword = words.next();
            let mut values = words.filter(|word| !word.contains(char::is_control)).map(str::to_owned);
            match keyword {
                Some("nameserver") => dns.nameservers.extend(values.next()),
                Some("domain") => dns.domain = values.next().or(dns.domain),
                Some("search") => dns.search.extend(values),
                Some("options") => dns.options.extend(values),
                _ => {}
            }
        }
        dns
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_resolv_conf_is_read_as_host_local_reads_it() {
        let dns = Dns::from_resolv_conf(
            "# made by hand\n\
             ; so it says\n\
             \n\
             nameserver 192.0.2.0\r\n\
             \tnameserver 192.0.2.1 ignored\n\
             nameserver fe80::1%eth0\n\
             nameserver\n\
             search example.com\n\
             search x.example.com y.example.com\n\
             domain first.example\n\
             domain mydomain.example\n\
             domain\n\
             options ndots:5 edns0 # no comment here\n\
             sortlist 130.155.160.0\n\
             nameservers 192.0.2.9",
        );
        assert_eq!(
            dns,
            Dns {
                nameservers: ["192.0.2.0", "192.0.2.1", "fe80::1%eth0"].map(str::to_owned).into(),
                domain: Some("mydomain.example".to_owned()),
                search: ["example.com", "x.example.com", "y.example.com"].map(str::to_owned).into(),
                options: ["ndots:5", "edns0", "#", "no", "comment", "here"].map(str::to_owned).into(),
            }
        );
    }

    #[test]
    fn what_an_earlier_plugin_said_comes_behind_and_nothing_twice() {
        let dns = |servers: &[&str], domain: Option<&str>| Dns {
            nameservers: servers.iter().map(|&it| it.to_owned()).collect(),
            domain: domain.map(str::to_owned),
            ..Dns::default()
        };
        let (ours, theirs) =
            (dns(&["192.0.2.1", "192.0.2.2"], None), dns(&["192.0.2.2", "192.0.2.3"], Some("x")));
        let both = dns(&["192.0.2.1", "192.0.2.2", "192.0.2.3"], Some("x"));
        assert_eq!(ours.clone().followed_by(theirs.clone()), both);
        assert_eq!(Dns::default().followed_by(theirs.clone()), theirs);
        assert_eq!(ours.clone().followed_by(Dns::default()), ours);
        assert_eq!(dns(&[], Some("y")).followed_by(theirs).domain.as_deref(), Some("y"));
    }

    proptest! {
        #[test]
        fn no_resolv_conf_brings_control_characters_into_a_result(text in any::<String>(), word in any::<String>()) {
            let dns = Dns::from_resolv_conf(&format!("{text}\nnameserver {word}\nsearch {word}\ndomain {word}"));
            let words = dns.nameservers.iter().chain(&dns.search).chain(&dns.options).chain(&dns.domain);
            for word in words {
                prop_assert!(!word.is_empty() && !word.contains(char::is_control));
            }
        }
    }
}
