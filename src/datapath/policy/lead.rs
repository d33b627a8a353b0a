//! Leads the packets of pods to their chains. ADD and DEL do so at the same time, so what is decided on what was read is
//! committed only if nobody changed anything meanwhile.

use std::collections::{BTreeMap, BTreeSet};

use crate::datapath::nftables::{Attempts, NftError};
use crate::datapath::policy::bindings::{Attached, Bindings, Unknown, elements, link_of, places};
use crate::datapath::policy::compare::{is_leading, is_wanted};
use crate::datapath::policy::layout::table;
use crate::datapath::policy::skeleton;
use crate::linux::error::KernelError;
use crate::linux::nfnetlink::Nfnetlink;
use crate::linux::nft::change::Change;
use crate::linux::nft::element::{Bytes, Element};
use crate::linux::nft::expr::Verdict;
use crate::policy::names::{hold_chain, map, pod_chain};
use crate::policy::plan::{Direction, Plan, Touched};

/// What it came to.
#[derive(Debug, Default)]
pub(super) struct Led {
    /// Transactions that changed something.
    pub(super) transactions: usize,
    /// Whether a pod's packets are led to a chain that they were not led to before.
    pub(super) taken_away: bool,
}

/// Whose elements.
pub(super) struct Leading<'p> {
    pub(super) plan: &'p Plan,
    pub(super) attached: &'p [Attached],
    /// Those of pods and namespaces that were touched, or all.
    pub(super) touched: &'p Touched,
    /// Whether chains of pods or of holds are to go: then elements that lead there go first, whosever they are.
    pub(super) any_goes: bool,
    /// What pods have that are led nowhere and are not in the plan.
    pub(super) unknown: Unknown,
}

/// Elements by set and key.
type Found = BTreeMap<(String, Bytes), Element>;

impl Leading<'_> {
    pub(super) async fn lead(&self, nft: &Nfnetlink) -> Result<Led, NftError> {
        let concerned: Vec<&Attached> = self.attached.iter().filter(|it| self.concerns(it)).collect();
        let all = self.touched.all || self.any_goes;
        if concerned.is_empty() && !all {
            return Ok(Led::default());
        }
        let mut attempts = Attempts::default();
        loop {
            let generation = nft.generation().await?;
            let found = if all { read_all(nft).await? } else { find(nft, &concerned).await? };
            let (changes, taken_away) = self.changes(&concerned, &found);
            if changes.is_empty() {
                return Ok(Led::default());
            }
            match nft.commit(Some(generation), &changes).await {
                Ok(()) => return Ok(Led { transactions: 1, taken_away }),
                Err(rejection) if rejection.is_because(KernelError::is_outrun) => {
                    attempts.count(rejection)?
                }
                // A chain is gone that should be there.
                Err(rejection) => return Err(rejection.into()),
            }
        }
    }

    fn concerns(&self, attached: &Attached) -> bool {
        let touched = self.touched;
        touched.all
            || self.any_goes
            || touched.pods.contains(&attached.uid)
            || touched.holds.contains(attached.namespace())
    }

    fn changes(&self, concerned: &[&Attached], found: &Found) -> (Vec<Change>, bool) {
        let (mut added, mut removed, mut taken_away) = (Vec::new(), Vec::new(), false);
        let mut links = BTreeSet::new();
        for attached in concerned {
            links.insert(attached.link.clone());
            let mut wanted = elements(attached, &self.bindings(attached, found));
            for place in places(attached) {
                let there = found.get(&key_of(&place));
                let at = wanted.iter().position(|it| key_of(it) == key_of(&place));
                let wanted = at.map(|at| wanted.swap_remove(at));
                if there.map(|it| &it.verdict) == wanted.as_ref().map(|it| &it.verdict) {
                    continue;
                }
                taken_away |= wanted.as_ref().is_some_and(|it| it.verdict.is_some());
                removed.extend(there.cloned());
                added.extend(wanted);
            }
        }
        // Of links that no record has: what leads to a chain that goes, and what is left of the pod then.
        let others = |it: &&Element| !links.contains(&link_of(&it.key));
        let leading = found.values().filter(others).filter(|it| it.verdict.is_some());
        let (stay, go): (Vec<&Element>, Vec<&Element>) = leading.partition(|it| !self.leads_to_stale(it));
        let stay: BTreeSet<String> = stay.into_iter().map(|it| link_of(&it.key)).collect();
        removed.extend(go.into_iter().cloned());
        let own = found.values().filter(others).filter(|it| it.verdict.is_none());
        removed.extend(own.filter(|it| !stay.contains(&link_of(&it.key))).cloned());
        let mut changes = Vec::new();
        removed.sort_by(|a, b| a.set.cmp(&b.set));
        added.sort_by(|a, b| a.set.cmp(&b.set));
        changes.extend((!removed.is_empty()).then_some(Change::DeleteElements(table(), removed)));
        changes.extend((!added.is_empty()).then_some(Change::AddElements(table(), added)));
        (changes, taken_away)
    }

    fn leads_to_stale(&self, element: &Element) -> bool {
        match &element.verdict {
            Some(Verdict::Goto(chain) | Verdict::Jump(chain)) => {
                !is_leading(chain) || !is_wanted(chain, self.plan)
            }
            _ => true,
        }
    }

    fn bindings(&self, attached: &Attached, found: &Found) -> Bindings {
        let link = Bytes::default().link_name(&attached.link);
        let of = |direction| {
            let is_led = found.contains_key(&(map(direction).to_owned(), link.clone()));
            self.chain_for(attached, direction, is_led)
        };
        Bindings { ingress: of(Direction::Ingress), egress: of(Direction::Egress) }
    }

    fn chain_for(&self, attached: &Attached, direction: Direction, is_led: bool) -> Option<String> {
        if self.plan.pods.contains_key(&attached.uid) {
            return Some(pod_chain(direction, &attached.uid));
        }
        let namespace = attached.namespace();
        let has_hold = self.plan.holds.contains_key(namespace);
        let is_held = is_led || self.unknown == Unknown::Hold;
        (has_hold && is_held).then(|| hold_chain(direction, namespace))
    }
}

fn key_of(element: &Element) -> (String, Bytes) {
    (element.set.clone(), element.key.clone())
}

async fn read_all(nft: &Nfnetlink) -> Result<Found, KernelError> {
    let mut found = Found::new();
    for set in skeleton::sets() {
        let elements = nft.elements(&table(), &set.name).await?;
        found.extend(elements.into_iter().map(|it| (key_of(&it), it)));
    }
    Ok(found)
}

/// What a look-up finds may be about to expire: it is added again then, which makes it last.
async fn find(nft: &Nfnetlink, concerned: &[&Attached]) -> Result<Found, KernelError> {
    let places: Vec<Element> = concerned.iter().flat_map(|it| places(it)).collect();
    let found = nft.find_elements(&table(), &places).await?;
    Ok(found.into_iter().flatten().map(|it| (key_of(&it), it)).collect())
}
