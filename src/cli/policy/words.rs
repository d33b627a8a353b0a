//! What the evaluator says of a connection, in sentences. Pure.

use crate::cli::policy::word;
use crate::policy::evaluate::{Lack, PeerLack, Refusal, TierRuleName, Verdict};
use crate::policy::object::ObjectName;
use crate::policy::plan::Direction;

/// Why one direction is allowed or denied: a sentence for each policy that has a say. `own` is the pod whose policies
/// these are, `other` the other end, both as people know them.
pub fn sentences(direction: Direction, own: &str, other: &str, verdict: &Verdict) -> Vec<String> {
    match verdict {
        Verdict::NotOfThisNode => vec![format!("{own} is no pod, so no NetworkPolicy isolates it")],
        Verdict::Itself => vec!["no NetworkPolicy keeps a pod from itself".to_owned()],
        Verdict::NotIsolated => vec![format!("no policy isolates {own} for {}", word(direction))],
        Verdict::Allowed(rule) => vec![format!("rule {rule} allows it")],
        Verdict::Accepted(rule) => vec![format!("{} accepts it", of_cluster(rule))],
        Verdict::Forbidden(rule) => vec![format!("{} denies it", of_cluster(rule))],
        Verdict::Denied(refusals) => refusals.iter().map(|it| refusal(direction, other, it)).collect(),
    }
}

/// A rule of a ClusterNetworkPolicy, as people find it.
pub fn of_cluster(rule: &TierRuleName) -> String {
    let name = if rule.name.is_empty() { String::new() } else { format!(" ({})", rule.name) };
    let TierRuleName { tier, policy, direction, index, .. } = rule;
    format!(
        "rule {}[{index}]{name} of ClusterNetworkPolicy {policy} in tier {}",
        word(*direction),
        tier.as_str()
    )
}

fn refusal(direction: Direction, other: &str, refusal: &Refusal) -> String {
    let Refusal { policy, invalid, nearest } = refusal;
    let name = policy.to_string();
    match (invalid, nearest) {
        (Some(reason), _) => format!("policy {name} cannot be compiled, so its pods are closed: {reason}"),
        (None, None) => format!("policy {name} isolates it and has no rule of {}", word(direction)),
        (None, Some(lack)) => format!(
            "policy {name} isolates it; its rule {}[{}] comes nearest, but {}",
            word(direction),
            lack.index,
            lacks(policy, other, lack)
        ),
    }
}

fn lacks(policy: &ObjectName, other: &str, lack: &Lack) -> String {
    let port = lack.port.as_ref().map(|ports| format!("has only {ports}"));
    let peer = lack.peer.as_ref().map(|peer| match peer {
        PeerLack::Label(term) => format!("is for pods with {term}, which {other} is not"),
        PeerLack::Namespace(name) if *name == policy.namespace => {
            format!("is for pods of the policy's own namespace, {name}, where {other} is not")
        }
        PeerLack::Namespace(term) => {
            format!("is for pods of namespaces with {term}, which that of {other} is not")
        }
        PeerLack::NoPod => format!("is for pods, and no pod is known that has the address of {other}"),
        PeerLack::Address => format!("is for addresses among which {other} is not"),
    });
    let lacks: Vec<String> = [port, peer].into_iter().flatten().collect();
    lacks.join(" and ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::evaluate::RuleName;

    fn policy() -> ObjectName {
        ObjectName { namespace: "shop".into(), name: "web".into() }
    }

    fn denied(lack: Option<Lack>, invalid: Option<&str>) -> Verdict {
        Verdict::Denied(vec![Refusal { policy: policy(), invalid: invalid.map(Into::into), nearest: lack }])
    }

    fn say(verdict: &Verdict) -> String {
        sentences(Direction::Ingress, "shop/web-0", "shop/client", verdict).join("; ")
    }

    #[test]
    fn what_allows_is_named() {
        let rule = RuleName { policy: policy(), direction: Direction::Ingress, index: 1 };
        assert_eq!(say(&Verdict::Allowed(rule)), "rule shop/web ingress[1] allows it");
        assert_eq!(say(&Verdict::NotIsolated), "no policy isolates shop/web-0 for ingress");
        assert_eq!(say(&Verdict::Itself), "no NetworkPolicy keeps a pod from itself");
    }

    #[test]
    fn what_the_nearest_rule_lacks_is_said() {
        let lack = |port: Option<&str>, peer| Lack { index: 0, port: port.map(Into::into), peer };
        let begin = "policy shop/web isolates it; its rule ingress[0] comes nearest, but ";
        for (lack, end) in [
            (lack(Some("TCP 80, UDP 53"), None), "has only TCP 80, UDP 53"),
            (
                lack(None, Some(PeerLack::Label("app in (a, b)".into()))),
                "is for pods with app in (a, b), which shop/client is not",
            ),
            (
                lack(Some("TCP http"), Some(PeerLack::Namespace("shop".into()))),
                "has only TCP http and is for pods of the policy's own namespace, shop, where shop/client is not",
            ),
            (
                lack(None, Some(PeerLack::Namespace("team=a".into()))),
                "is for pods of namespaces with team=a, which that of shop/client is not",
            ),
            (
                lack(None, Some(PeerLack::NoPod)),
                "is for pods, and no pod is known that has the address of shop/client",
            ),
            (lack(None, Some(PeerLack::Address)), "is for addresses among which shop/client is not"),
        ] {
            assert_eq!(say(&denied(Some(lack), None)), format!("{begin}{end}"));
        }
        assert_eq!(say(&denied(None, None)), "policy shop/web isolates it and has no rule of ingress");
        assert_eq!(
            say(&denied(None, Some("spec.ingress[0].ports[0].port: 70000 is not within 1 to 65535"))),
            "policy shop/web cannot be compiled, so its pods are closed: spec.ingress[0].ports[0].port: 70000 is not \
             within 1 to 65535"
        );
    }
}
