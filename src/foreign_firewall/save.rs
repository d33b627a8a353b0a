//! What `iptables-save` prints: how a chain ends, and which accept rules are in it.

use ipnetwork::IpNetwork;

use crate::cni::ids::NetworkName;
use crate::foreign_firewall::DropChain;
use crate::foreign_firewall::accept::{MARK, comment};
use crate::foreign_firewall::drop_chain::{DOCKER_USER, name_of};
use crate::linux::nft::table::Hook;

/// The chain of a hook in the table `filter` of the text, if it ends in a drop.
pub fn drop_chain(text: &str, ipv4: bool, hook: Hook) -> Option<DropChain> {
    let chain = name_of(hook);
    let policy_drops = filter_table(text).any(|line| line.starts_with(&format!(":{chain} DROP")));
    let rules: Vec<Vec<String>> = rules_of(text, chain).collect();
    if !policy_drops && !rules.last().is_some_and(|rule| drops_everything(rule)) {
        return None;
    }
    let has_docker_user = rules.contains(&words_of(["-A", chain, "-j", DOCKER_USER]));
    Some(DropChain::of_iptables(ipv4, hook, policy_drops, has_docker_user))
}

/// Whether a chain has an accept rule with this comment.
pub fn has_accept_rule(text: &str, chain: &str, comment: &str) -> bool {
    rules_of(text, chain).any(|words| {
        let accepts = words.ends_with(&words_of(["-j", "ACCEPT"]));
        let has_comment = words.windows(2).any(|it| it == words_of(["--comment", comment]));
        accepts && has_comment
    })
}

fn rules_of(text: &str, chain: &str) -> impl Iterator<Item = Vec<String>> {
    let start = words_of(["-A", chain]);
    filter_table(text).map(words).filter(move |words| words.starts_with(&start))
}

/// `-A FORWARD -j DROP` or `-j REJECT ...`, with or without a comment.
fn drops_everything(rule: &[String]) -> bool {
    let mut options = rule.get(2..).unwrap_or_default();
    if let [module, name, option, _, rest @ ..] = options
        && [module, name, option] == ["-m", "comment", "--comment"]
    {
        options = rest;
    }
    matches!(options, [jump, target, ..] if jump == "-j" && ["DROP", "REJECT"].contains(&target.as_str()))
}

fn words_of<const N: usize>(words: [&str; N]) -> Vec<String> {
    words.map(str::to_owned).into()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn save(forward: &str) -> String {
        format!("*nat\n:FORWARD DROP [0:0]\nCOMMIT\n*filter\n:INPUT DROP [0:0]\n{forward}\nCOMMIT\n")
    }

    #[test]
    fn only_the_end_of_forward_in_filter_counts() {
        for (forward, drops) in [
            (":FORWARD DROP [0:0]", true),
            (":FORWARD ACCEPT [0:0]", false),
            (":FORWARD ACCEPT [0:0]\n-A FORWARD -j DROP\n-A FORWARD -i docker0 -j ACCEPT", false),
            (":FORWARD ACCEPT [0:0]\n-A FORWARD -i eth0 -j DROP", false),
            (":FORWARD ACCEPT [0:0]\n-A FORWARD -j REJECT --reject-with icmp-host-prohibited", true),
            (":FORWARD ACCEPT [0:0]\n-A FORWARD -m comment --comment \"the \\\"end\" -j DROP", true),
        ] {
            let found = drop_chain(&save(forward), true, Hook::Forward);
            assert_eq!(found.is_some(), drops, "{forward}");
        }
        let docker =
            drop_chain(&save(":FORWARD DROP [0:0]\n-A FORWARD -j DOCKER-USER"), true, Hook::Forward).unwrap();
        assert_eq!(docker.entry(), "DOCKER-USER");
    }

    #[test]
    fn each_chain_is_judged_by_itself() {
        let text = save("-A INPUT -s 10.244.1.0/24 -m comment --comment \"ferrule-node: podnet\" -j ACCEPT");
        assert_eq!(drop_chain(&text, true, Hook::Input).unwrap().chain, "INPUT");
        assert_eq!(drop_chain(&text, true, Hook::Output), None);
        assert!(has_accept_rule(&text, "INPUT", "ferrule-node: podnet"));
        assert!(!has_accept_rule(&text, "OUTPUT", "ferrule-node: podnet"));
        assert!(!has_accept_rule(&text, "INPUT", "ferrule-node: other"));
    }

    #[test]
    fn own_rules_are_those_with_the_comment_and_accept() {
        let network = NetworkName::parse("podnet").unwrap();
        let rule = own_rule("FORWARD", "10.244.1.0/24".parse().unwrap(), true, &network);
        let text = save(
            ":FORWARD DROP [0:0]\n-A FORWARD -s 10.244.1.0/24 -m comment --comment \"ferrule: podnet\" -j ACCEPT\n\
             -A FORWARD -s 10.9.0.0/16 -m comment --comment \"ferrule: other\" -j ACCEPT\n\
             -A FORWARD -s 10.9.0.0/16 -m comment --comment \"ferrule: podnet\" -j DROP",
        );
        assert_eq!(own_rules(&text, Some(&network)), [rule]);
        assert_eq!(own_rules(&text, None).len(), 2);
    }
}
