//! What `iptables-save` prints, read as the rules that iptables-nft would have made of it.
//!
//! For legacy tables only: there the program is the one way to look. An option that has no word here makes a match
//! that may hold or not.

use std::collections::HashMap;

use ipnetwork::IpNetwork;

use crate::cni::ids::NetworkName;
use crate::foreign_firewall::accept::{MARK, comment, within};
use crate::foreign_firewall::filter::{FORWARD, Filter};
use crate::linux::nft::expr::{Comparison, Expr, Extension, MetaField, Reg, Verdict};
use crate::linux::nft::rule::Rule;

/// The rule's only register.
const AT: Reg = Reg(0);

/// `NF_CT_STATE_*` of the words behind `--ctstate` and `--state`.
const STATES: [(&str, u32); 5] =
    [("INVALID", 1), ("ESTABLISHED", 2), ("RELATED", 4), ("NEW", 8), ("UNTRACKED", 64)];

/// `IPPROTO_*` of the words behind `-p`.
const PROTOCOLS: [(&str, u8); 6] =
    [("tcp", 6), ("udp", 17), ("icmp", 1), ("ipv6-icmp", 58), ("sctp", 132), ("esp", 50)];

/// The chain FORWARD of the table `filter` in the text, if it ends in a drop.
pub fn read(text: &str, ipv4: bool) -> Option<Filter> {
    let mut chains: HashMap<String, Vec<Rule>> = HashMap::new();
    let mut policy_drops = false;
    for line in filter_table(text) {
        if let Some(declared) = line.strip_prefix(':') {
            let mut words = declared.split(' ');
            let (name, policy) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            policy_drops |= name == FORWARD && policy == "DROP";
            chains.insert(name.to_owned(), Vec::new());
        }
    }
    for line in filter_table(text) {
        let words = words(line);
        if let [flag, chain, rest @ ..] = words.as_slice()
            && flag == "-A"
        {
            let exprs = Reader { rest, chains: &chains, module: "", exprs: Vec::new() }.read();
            let rule = Rule { chain: chain.clone(), exprs, comment: None };
            chains.entry(chain.clone()).or_default().push(rule);
        }
    }
    Filter::of_iptables(ipv4, policy_drops, chains)
}

/// The rules of a network, or of all, in the text: each as the words that follow `iptables -A` or `-D`.
pub fn own_rules(text: &str, network: Option<&NetworkName>) -> Vec<Vec<String>> {
    let wanted = network.map(comment);
    let is_own = |mark: &String| wanted.as_ref().map_or(mark.starts_with(MARK), |wanted| mark == wanted);
    let rules = filter_table(text).map(words).filter(|words| {
        let accepts = words.ends_with(&["-j".to_owned(), "ACCEPT".to_owned()]);
        let comments = words.iter().zip(words.iter().skip(1)).filter(|(option, _)| *option == "--comment");
        accepts && comments.map(|(_, text)| text).any(is_own)
    });
    rules.map(|words| words.into_iter().skip(1).collect()).collect()
}

/// The words that follow `iptables -I` or `-A`, for a rule of ours.
pub fn own_rule(chain: &str, subnet: IpNetwork, is_source: bool, network: &NetworkName) -> Vec<String> {
    let direction = if is_source { "-s" } else { "-d" };
    let words = [
        chain,
        direction,
        &subnet.to_string(),
        "-m",
        "comment",
        "--comment",
        &comment(network),
        "-j",
        "ACCEPT",
    ];
    words.map(str::to_owned).into()
}

fn filter_table(text: &str) -> impl Iterator<Item = &str> {
    let mut is_inside = false;
    text.lines().map(str::trim).filter(move |line| {
        if line.starts_with('*') {
            is_inside = *line == "*filter";
        }
        is_inside
    })
}

/// Splits a line as iptables-restore does: at spaces outside quotes, in which a backslash takes the next character
/// as it is.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut is_quoted) = (Vec::new(), None::<String>, false);
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '"' => {
                is_quoted = !is_quoted;
                word.get_or_insert_default();
            }
            '\\' if is_quoted => word.get_or_insert_default().extend(letters.next()),
            ' ' if !is_quoted => words.extend(word.take()),
            letter => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    words
}

/// Reads the words behind `-A CHAIN`.
struct Reader<'a> {
    rest: &'a [String],
    chains: &'a HashMap<String, Vec<Rule>>,
    /// The match (`-m`) whose options are read.
    module: &'a str,
    exprs: Vec<Expr>,
}

impl<'a> Reader<'a> {
    fn read(mut self) -> Vec<Expr> {
        let mut is_not = false;
        while let Some(word) = self.next() {
            match word {
                "!" => {
                    is_not = true;
                    continue;
                }
                "-s" | "-d" => self.address(word == "-s", is_not),
                "-i" => self.link(MetaField::InputName, is_not),
                "-o" => self.link(MetaField::OutputName, is_not),
                "-p" => self.protocol(is_not),
                // What it asks comes as options of its own.
                "-m" => self.module = self.next().unwrap_or_default(),
                "--comment" => drop(self.next()),
                "--ctstate" | "--state" => self.states(is_not),
                "--mark" if self.module == "mark" => self.mark(is_not),
                "-j" | "-g" => {
                    self.target(word == "-g");
                    return self.exprs;
                }
                _ => self.unknown(),
            }
            is_not = false;
        }
        self.exprs
    }

    fn next(&mut self) -> Option<&'a str> {
        let (word, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(word)
    }

    /// Something that may hold or not.
    fn unknown(&mut self) {
        let extension = Extension { is_target: false, name: String::new(), revision: 0, info: Vec::new() };
        self.exprs.push(Expr::Extension(extension));
    }

    fn compare(&mut self, load: Expr, value: Vec<u8>, is_not: bool) {
        let comparison = if is_not { Comparison::NotEqual } else { Comparison::Equal };
        self.exprs.extend([load, Expr::Compare { from: AT, comparison, value }]);
    }

    fn address(&mut self, is_source: bool, is_not: bool) {
        let Some(subnet) = self.next().and_then(|text| text.parse().ok()) else { return self.unknown() };
        let mut exprs = within(subnet, is_source);
        if let (true, Some(Expr::Compare { comparison, .. })) = (is_not, exprs.last_mut()) {
            *comparison = Comparison::NotEqual;
        }
        self.exprs.extend(exprs);
    }

    fn link(&mut self, field: MetaField, is_not: bool) {
        let name = self.next().unwrap_or_default();
        let value = match name.strip_suffix('+') {
            Some(prefix) => prefix.as_bytes().to_vec(),
            None => {
                let mut name = name.as_bytes().to_vec();
                name.resize(16, 0);
                name
            }
        };
        self.compare(Expr::Meta { field, to: AT }, value, is_not);
    }

    fn protocol(&mut self, is_not: bool) {
        let name = self.next().unwrap_or_default();
        let known = PROTOCOLS.iter().find(|(word, _)| *word == name).map(|(_, number)| *number);
        match known.or_else(|| name.parse().ok()) {
            Some(number) => {
                self.compare(Expr::Meta { field: MetaField::Protocol, to: AT }, vec![number], is_not);
            }
            None => self.unknown(),
        }
    }

    fn states(&mut self, is_not: bool) {
        let words = self.next().unwrap_or_default().split(',');
        let states: Option<Vec<u32>> =
            words.map(|word| STATES.iter().find(|(it, _)| *it == word).map(|(_, bit)| *bit)).collect();
        let Some(states) = states else { return self.unknown() };
        let mask = states.into_iter().fold(0, |mask, bit| mask | bit);
        self.exprs
            .extend([Expr::FlowState { to: AT }, Expr::Mask { at: AT, mask: u32::to_ne_bytes(mask).into() }]);
        let comparison = if is_not { Comparison::Equal } else { Comparison::NotEqual };
        self.exprs.push(Expr::Compare { from: AT, comparison, value: vec![0; 4] });
    }

    /// `VALUE/MASK` or `VALUE`, in hexadecimal.
    fn mark(&mut self, is_not: bool) {
        let number = |text: &str| u32::from_str_radix(text.strip_prefix("0x")?, 16).ok();
        let text = self.next().unwrap_or_default();
        let (value, mask) = text.split_once('/').unwrap_or((text, "0xffffffff"));
        let (Some(value), Some(mask)) = (number(value), number(mask)) else { return self.unknown() };
        let load = Expr::Meta { field: MetaField::Mark, to: AT };
        self.exprs.extend([load, Expr::Mask { at: AT, mask: u32::to_ne_bytes(mask).into() }]);
        let comparison = if is_not { Comparison::NotEqual } else { Comparison::Equal };
        self.exprs.push(Expr::Compare { from: AT, comparison, value: u32::to_ne_bytes(value).into() });
    }

    fn target(&mut self, is_goto: bool) {
        let name = self.next().unwrap_or_default();
        self.exprs.push(match name {
            "ACCEPT" => Expr::Verdict(Verdict::Accept),
            "DROP" => Expr::Verdict(Verdict::Drop),
            "RETURN" => Expr::Verdict(Verdict::Return),
            chain if self.chains.contains_key(chain) && is_goto => {
                Expr::Verdict(Verdict::Goto(chain.to_owned()))
            }
            chain if self.chains.contains_key(chain) => Expr::Verdict(Verdict::Jump(chain.to_owned())),
            target => Expr::Extension(Extension {
                is_target: true,
                name: target.to_owned(),
                revision: 0,
                info: Vec::new(),
            }),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::traffic::Traffic;
    use super::super::{Filter, Judgement};
    use super::*;

    fn traffic() -> Traffic {
        Traffic {
            own: vec!["10.244.1.0/24".parse().unwrap()],
            others: vec!["10.244.2.0/24".parse().unwrap(), "10.244.3.0/24".parse().unwrap()],
            link4: Some("eth0".into()),
            link6: None,
        }
    }

    fn filter(rules: &str) -> Option<Filter> {
        let chains = ":INPUT ACCEPT [0:0]\n:FORWARD DROP [0:0]\n:DOCKER - [0:0]\n:DOCKER-USER - [0:0]\n\
                      :DOCKER-ISOLATION-STAGE-1 - [0:0]\n:DOCKER-ISOLATION-STAGE-2 - [0:0]\n:KUBE-FORWARD - [0:0]\n";
        let nat = "*nat\n:POSTROUTING ACCEPT [0:0]\n-A POSTROUTING -j MASQUERADE\nCOMMIT\n";
        read(&format!("# Generated\n{nat}*filter\n{chains}{rules}\nCOMMIT\n"), true)
    }

    fn judge(rules: &str) -> Judgement {
        filter(rules).unwrap().judge(&traffic()).unwrap()
    }

    const DOCKER: &str = "-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-ISOLATION-STAGE-1
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o docker0 -j DOCKER
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A FORWARD -i docker0 -o docker0 -j ACCEPT
-A DOCKER -d 172.17.0.2/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 80 -j ACCEPT
-A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
-A DOCKER-ISOLATION-STAGE-1 -j RETURN
-A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP
-A DOCKER-ISOLATION-STAGE-2 -j RETURN
-A DOCKER-USER -j RETURN";

    const KUBE_PROXY: &str = "-A FORWARD -m conntrack --ctstate NEW -m comment --comment \"kubernetes load balancer\" -j KUBE-FORWARD
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A KUBE-FORWARD -m comment --comment \"kubernetes \\\"forwarding\\\" rules\" -m mark --mark 0x4000/0x4000 -j ACCEPT
-A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT";

    #[test]
    fn what_docker_and_kube_proxy_write_lets_no_pod_pass() {
        assert_eq!(judge(DOCKER), Judgement::Drops);
        assert_eq!(judge(KUBE_PROXY), Judgement::Drops);
        assert_eq!(judge(&format!("{DOCKER}\n{KUBE_PROXY}")), Judgement::Drops);
        assert_eq!(filter(DOCKER).unwrap().entry(), "DOCKER-USER");
        assert_eq!(filter(KUBE_PROXY).unwrap().entry(), "FORWARD");
    }

    #[test]
    fn rules_for_the_pods_let_them_pass_wherever_they_stand() {
        for rules in [
            "-A FORWARD -j ACCEPT",
            "-A FORWARD -s 10.244.0.0/16 -j ACCEPT\n-A FORWARD -j REJECT",
            "-A FORWARD -s 10.244.1.0/24 -j ACCEPT\n-A FORWARD -d 10.244.1.0/24 -j ACCEPT",
            "-A FORWARD -i veth+ -j ACCEPT\n-A FORWARD -o veth+ -j ACCEPT",
            "-A FORWARD ! -i docker0 -j ACCEPT",
            "-A FORWARD -p tcp -m conntrack ! --ctstate INVALID -j ACCEPT",
            "-A FORWARD -i eth0 -j ACCEPT\n-A FORWARD -o eth0 -j ACCEPT",
            &format!("{DOCKER}\n-A DOCKER-USER -j DROP").replace(
                "-A DOCKER-USER -j RETURN",
                "-A DOCKER-USER -s 10.0.0.0/8 -m comment --comment pods -j ACCEPT",
            ),
        ] {
            assert_eq!(judge(rules), Judgement::Passes, "{rules}");
        }
    }

    #[test]
    fn one_direction_is_not_enough() {
        for rules in [
            "-A FORWARD -s 10.244.1.0/24 -j ACCEPT",
            "-A FORWARD -i veth+ -j ACCEPT",
            "-A FORWARD -d 10.244.1.0/24 -j ACCEPT\n-A FORWARD -d 10.244.0.0/16 -p udp -j ACCEPT",
            "-A FORWARD -s 10.244.1.0/24 -j DROP\n-A FORWARD -j ACCEPT",
            "-A FORWARD -s 10.244.1.0/24 -g DOCKER\n-A FORWARD -j ACCEPT",
        ] {
            assert_eq!(judge(rules), Judgement::Drops, "{rules}");
        }
    }

    #[test]
    fn what_lets_some_pass_or_is_not_understood_is_unclear() {
        for rules in [
            "-A FORWARD -p tcp -m tcp --dport 80 -j ACCEPT",
            "-A FORWARD -s 10.244.1.128/25 -j ACCEPT\n-A FORWARD -d 10.244.1.128/25 -j ACCEPT",
            "-A FORWARD -m set --match-set pods src -j ACCEPT\n-A FORWARD -m set --match-set pods dst -j ACCEPT",
            "-A FORWARD -j NFQUEUE --queue-num 1",
            "-A FORWARD -m mark --mark 0x1 -j ACCEPT",
            "-A FORWARD -m connmark --mark 0x4000 -j ACCEPT",
        ] {
            assert_eq!(judge(rules), Judgement::Unclear, "{rules}");
        }
    }

    #[test]
    fn a_chain_that_ends_in_no_drop_is_not_looked_at() {
        let text = |rule| format!("*filter\n:FORWARD ACCEPT [0:0]\n{rule}\nCOMMIT\n");
        assert_eq!(read(&text("-A FORWARD -i eth1 -j DROP"), true), None);
        let ends = text("-A FORWARD -j REJECT --reject-with icmp-host-prohibited");
        let filter = read(&ends, true).unwrap();
        assert_eq!(filter.judge(&traffic()), Some(Judgement::Drops));
        assert_eq!(filter.to_string(), "legacy chain ip filter FORWARD (a drop at its end)");
        assert_eq!(read("", true), None);
    }

    #[test]
    fn rules_of_ours_are_known_by_their_comment() {
        let text = "*filter\n:FORWARD DROP [0:0]\n\
                    -A FORWARD -s 10.244.1.0/24 -m comment --comment \"ferrule: podnet\" -j ACCEPT\n\
                    -A FORWARD -d 10.244.1.0/24 -m comment --comment \"ferrule: other\" -j ACCEPT\n\
                    -A FORWARD -d 10.244.1.0/24 -m comment --comment \"ferrule\" -j ACCEPT\nCOMMIT\n";
        let podnet = NetworkName::parse("podnet").unwrap();
        let rule = own_rule("FORWARD", "10.244.1.0/24".parse().unwrap(), true, &podnet);
        assert_eq!(own_rules(text, Some(&podnet)), [rule]);
        assert_eq!(own_rules(text, None).len(), 2);
    }
}
