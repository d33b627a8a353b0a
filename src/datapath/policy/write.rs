//! Changes, in transactions that are not too large.

use crate::datapath::nftables::NftError;
use crate::datapath::policy::layout::{Made, rule, table};
use crate::datapath::policy::skeleton;
use crate::desired::nftables::expr::verdict;
use crate::linux::nfnetlink::Nfnetlink;
use crate::linux::nft::change::{Change, Rejection};
use crate::linux::nft::element::Element;
use crate::linux::nft::expr::{Expr, Verdict};

/// About how many bytes one transaction has: nobody else changes a table meanwhile, an ADD neither. The socket's buffer
/// takes eight times as much.
const TRANSACTION: usize = 512 << 10;

/// Elements of a set that travel together.
const ELEMENTS: usize = 4096;

/// Rules of a chain that travel together.
pub(super) const RULES: usize = 512;

/// Gathers changes and makes them.
pub(super) struct Writer<'n> {
    nft: &'n Nfnetlink,
    pending: Vec<Change>,
    bytes: usize,
    /// Transactions so far.
    pub(super) transactions: usize,
    /// Whether the kernel cannot tell of denied packets.
    pub(super) is_untold: bool,
}

impl<'n> Writer<'n> {
    pub(super) fn new(nft: &'n Nfnetlink) -> Self {
        Self { nft, pending: Vec::new(), bytes: 0, transactions: 0, is_untold: false }
    }

    /// Makes `changes` at one moment, together with others or not, and after all that came before.
    pub(super) async fn add(&mut self, changes: Vec<Change>) -> Result<(), Rejection> {
        let bytes = changes.iter().map(bytes_of).sum::<usize>();
        if self.bytes + bytes > TRANSACTION {
            self.flush().await?;
        }
        self.bytes += bytes;
        self.pending.extend(changes);
        Ok(())
    }

    /// Adds elements of one set, in several transactions if they are many.
    pub(super) async fn add_elements(
        &mut self,
        elements: impl IntoIterator<Item = Element>,
    ) -> Result<(), Rejection> {
        let mut elements = elements.into_iter();
        loop {
            let some: Vec<Element> = elements.by_ref().take(ELEMENTS).collect();
            if some.is_empty() {
                return Ok(());
            }
            self.add(vec![Change::AddElements(table(), some)]).await?;
        }
    }

    /// Removes elements of one set likewise.
    pub(super) async fn delete_elements(&mut self, elements: &[Element]) -> Result<(), Rejection> {
        // Both ends of a range go together.
        for some in elements.chunks(ELEMENTS) {
            self.add(vec![Change::DeleteElements(table(), some.to_vec())]).await?;
        }
        Ok(())
    }

    /// Makes a chain of more rules than travel together. `is_there`: packets may come to it meanwhile, so it drops them until
    /// it has all of its rules.
    pub(super) async fn add_long_chain(&mut self, made: &Made, is_there: bool) -> Result<(), NftError> {
        let name = &made.chain.name;
        let mut changes = Made { rules: Vec::new(), ..made.clone() }.changes();
        if is_there {
            let drop = [vec![Expr::Counter], verdict(Verdict::Drop)];
            changes.push(Change::AddRule(
                table(),
                rule(name, drop, Some("until the rules behind it are complete")),
            ));
        }
        self.add(changes).await?;
        for rules in made.rules.chunks(RULES) {
            self.add(rules.iter().map(|rule| Change::AddRule(table(), rule.clone())).collect()).await?;
        }
        if is_there {
            self.flush().await?;
            let placed = self.nft.placed_rules_of(&table(), name).await?;
            let first = placed.into_iter().next();
            let changes =
                first.map(|it| Change::DeleteRule { table: table(), chain: name.clone(), handle: it.handle });
            self.add(changes.into_iter().collect()).await?;
        }
        Ok(())
    }

    /// Makes what was added and is not made yet.
    pub(super) async fn flush(&mut self) -> Result<(), Rejection> {
        let changes = std::mem::take(&mut self.pending);
        self.bytes = 0;
        if !changes.is_empty() {
            if let Err(rejection) = self.nft.commit(None, &changes).await {
                // Policies matter more than who is told of what they deny.
                let Some(changes) = skeleton::changes_untold(&changes, &rejection) else {
                    return Err(rejection);
                };
                self.nft.commit(None, &changes).await?;
                self.is_untold = true;
            }
            self.transactions += 1;
            // Whoever has the thread to itself has other duties as well.
            tokio::task::yield_now().await;
        }
        Ok(())
    }
}

/// About as much as the change takes in a message.
fn bytes_of(change: &Change) -> usize {
    match change {
        Change::AddElements(_, elements) | Change::DeleteElements(_, elements) => elements.len() * 64,
        Change::AddRule(..) => 600,
        _ => 200,
    }
}
