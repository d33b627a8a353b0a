//! What of a pod's traffic leaves with the node's address (`ipMasq`, as ptp and bridge have it; `nonMasqueradeCIDRs`).

use ipnetwork::IpNetwork;

use super::range::parse_subnet;
use crate::cni::json::Node;

/// Whether pods are masqueraded, and where they are not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Masquerade {
    /// `ipMasq`: what a pod sends out of the pod networks bears the node's address.
    pub is_on: bool,
    /// `nonMasqueradeCIDRs`: further places where pods keep their own address. That of nodes, and of all pods that
    /// the conf knows, are such places anyway.
    pub exempt: Vec<IpNetwork>,
}

impl Masquerade {
    /// Reads both keys.
    pub(super) fn read(root: &Node<'_, '_>) -> Self {
        let is_on = root.member("ipMasq").and_then(|node| node.as_bool()).unwrap_or_default();
        let exempt = root.list("nonMasqueradeCIDRs").map(|list| {
            let cidrs = list.items().filter_map(|item| item.parse(parse_subnet));
            cidrs.collect()
        });
        Self { is_on, exempt: exempt.unwrap_or_default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cni::json::Document;
    use serde_json::{Value, json};

    fn read(conf: Value) -> (Masquerade, String) {
        let document = Document::new(&conf);
        let read = Masquerade::read(&document.root());
        (read, document.into_problems().to_string())
    }

    #[test]
    fn it_is_off_unless_asked_for() {
        assert_eq!(read(json!({})), (Masquerade::default(), String::new()));
        let (read, problems) =
            read(json!({ "ipMasq": true, "nonMasqueradeCIDRs": ["10.0.0.0/8", "fd00::/8"] }));
        assert!(read.is_on);
        assert_eq!((read.exempt.len(), problems.as_str()), (2, ""));
    }

    #[test]
    fn every_problem_names_its_place() {
        let (_, problems) = read(json!({ "ipMasq": "yes", "nonMasqueradeCIDRs": ["10.0.0.1/8", 7] }));
        for place in ["ipMasq: ", "nonMasqueradeCIDRs[0]: ", "nonMasqueradeCIDRs[1]: "] {
            assert!(problems.contains(place), "{problems}");
        }
    }
}
