//! Which connections are made and which are not: many at once, from many places.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::cluster::addresses_of;
use crate::ensure;
use crate::fetch::{Asker, In};
use crate::process::{Result, eventually};
use crate::space::Space;

/// How long a change may take until every node has it, on a machine that others use as well.
const IN_FORCE: Duration = Duration::from_secs(20);

/// Shell: `try PROTOCOL ADDRESS` says what comes of a connection. Kubernetes' own test image has a program for it; a node
/// has curl, and is asked for TCP only.
const TRY: &str = r#"
    try() {
        if [ -x /agnhost ]; then
            said=$(/agnhost connect "$2" --protocol="$1" --timeout=1s 2>&1)
        else
            said=
            curl --silent --output /dev/null --connect-timeout 1 --max-time 3 "http://$2/hostname" || said="curl $?"
        fi
        echo "$1 $2 ${said:-OPEN}"
    }"#;

/// A port of TCP, or with [`udp`] one of UDP.
#[derive(Clone, Copy)]
pub struct Port(&'static str, u16);

impl From<u16> for Port {
    fn from(number: u16) -> Self {
        Self("tcp", number)
    }
}

/// A port of UDP.
pub fn udp(number: u16) -> Port {
    Port("udp", number)
}

/// Connections, and what must come of each.
pub struct Ways<'a> {
    pods: BTreeMap<String, (&'a Space<'a>, Vec<IpAddr>)>,
    tries: BTreeMap<String, Tries<'a>>,
    /// What was asked for in vain.
    unknown: Vec<String>,
}

/// Those from one place.
struct Tries<'a> {
    from: Box<dyn Asker + Sync + 'a>,
    list: Vec<Try>,
}

/// One connection.
struct Try {
    label: String,
    protocol: &'static str,
    to: SocketAddr,
    is_open: bool,
}

impl fmt::Display for Try {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} ({} {})", self.label, self.protocol, self.to)
    }
}

impl<'a> Ways<'a> {
    /// Among the pods of these namespaces, which have addresses by now and are known by their names.
    pub fn among(spaces: &[&'a Space<'a>]) -> Result<Self> {
        let mut pods = BTreeMap::new();
        for space in spaces {
            for pod in space.get(&["pods"])?["items"].as_array().into_iter().flatten() {
                let name = pod["metadata"]["name"].as_str().unwrap_or_default().to_owned();
                pods.insert(name, (*space, addresses_of(pod)));
            }
        }
        Ok(Self { pods, tries: BTreeMap::new(), unknown: Vec::new() })
    }

    /// A pod reaches another at all its addresses.
    pub fn open(self, from: &str, to: &str, port: impl Into<Port>) -> Self {
        self.between(from, to, port.into(), true)
    }

    /// A pod reaches another at none of its addresses.
    pub fn shut(self, from: &str, to: &str, port: impl Into<Port>) -> Self {
        self.between(from, to, port.into(), false)
    }

    fn between(mut self, from: &str, to: &str, port: Port, is_open: bool) -> Self {
        match self.pods.get(to).map(|(_, addresses)| addresses.clone()) {
            Some(addresses) if !addresses.is_empty() => self.to(from, to, &addresses, port, is_open),
            _ => {
                self.unknown.push(to.to_owned());
                self
            }
        }
    }

    /// A pod reaches these addresses, all or none.
    pub fn to(
        mut self,
        from: &str,
        label: &str,
        addresses: &[IpAddr],
        port: impl Into<Port>,
        is_open: bool,
    ) -> Self {
        let Some((space, _)) = self.pods.get(from) else {
            self.unknown.push(from.to_owned());
            return self;
        };
        let asker = Whose { space, pod: from.to_owned() };
        self.from(asker, from, label, addresses, port, is_open)
    }

    /// Somebody who need not be a pod reaches these addresses, all or none.
    pub fn from(
        mut self,
        asker: impl Asker + Sync + 'a,
        name: &str,
        label: &str,
        addresses: &[IpAddr],
        port: impl Into<Port>,
        is_open: bool,
    ) -> Self {
        let Port(protocol, number) = port.into();
        let tries = self
            .tries
            .entry(name.to_owned())
            .or_insert_with(|| Tries { from: Box::new(asker), list: Vec::new() });
        tries.list.extend(addresses.iter().map(|address| Try {
            label: format!("{name} to {label}"),
            protocol,
            to: SocketAddr::new(*address, number),
            is_open,
        }));
        self
    }

    /// Asks until all is as said.
    pub fn hold(&self) -> Result {
        ensure!(self.unknown.is_empty(), "no pod with addresses: {:?}", self.unknown);
        eventually("all ways are as they should be", IN_FORCE, || self.hold_now())
    }

    /// Asks once.
    pub fn hold_now(&self) -> Result {
        let wrong = std::thread::scope(|scope| {
            let asked: Vec<_> = self.tries.values().map(|tries| scope.spawn(|| tries.wrong())).collect();
            let mut wrong = Vec::new();
            for one in asked {
                wrong.extend(one.join().map_err(|_| "a thread panicked")??);
            }
            Result::Ok(wrong)
        })?;
        ensure!(wrong.is_empty(), "{}", wrong.join("; "));
        Ok(())
    }
}

impl Tries<'_> {
    /// Those that are not as they should be, with what was said.
    fn wrong(&self) -> Result<Vec<String>> {
        let calls = self.list.iter().map(|one| format!("try {} {} &", one.protocol, one.to));
        let script = format!("{TRY}\n{}\nwait", calls.collect::<Vec<_>>().join("\n"));
        let answer = self.from.run(&["sh", "-c", &script])?;
        let said = |one: &Try| {
            let begin = format!("{} {} ", one.protocol, one.to);
            answer.lines().find_map(|line| line.strip_prefix(&begin)).unwrap_or("no word").to_owned()
        };
        let wrong =
            self.list.iter().map(|one| (one, said(one))).filter(|(one, said)| !is_as(one.is_open, said));
        Ok(wrong.map(|(one, said)| format!("{one} must be {}: {said}", word(one.is_open))).collect())
    }
}

fn word(is_open: bool) -> &'static str {
    if is_open { "open" } else { "shut" }
}

/// Whether that was said of a way that is open, or of one that is shut. What is neither is wrong in any case: it did not
/// come to a connection.
fn is_as(is_open: bool, said: &str) -> bool {
    match is_open {
        true => said == "OPEN",
        // curl: 7 it could not connect, 28 no answer in time.
        false => ["TIMEOUT", "REFUSED", "curl 7", "curl 28"].iter().any(|word| said.starts_with(word)),
    }
}

/// A pod, with its name.
struct Whose<'a> {
    space: &'a Space<'a>,
    pod: String,
}

impl Asker for Whose<'_> {
    fn run(&self, words: &[&str]) -> Result<String> {
        In(self.space, &self.pod).run(words)
    }
}

#[cfg(test)]
mod tests {
    use super::is_as;

    #[test]
    fn a_way_that_was_not_tried_is_neither_open_nor_shut() {
        for said in ["no word", "UNKNOWN: bad port", "OTHER: network is unreachable", "DNS", "curl 3"] {
            assert!(!is_as(true, said) && !is_as(false, said), "{said}");
        }
        assert!(is_as(true, "OPEN") && !is_as(false, "OPEN"));
        assert!(is_as(false, "TIMEOUT") && is_as(false, "curl 28") && !is_as(true, "TIMEOUT"));
    }
}
