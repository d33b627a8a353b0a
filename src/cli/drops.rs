//! `ferrulectl drops`: how many packets were dropped on this node, by reason. Changes nothing.

use serde::Serialize;

use crate::attachments::networks::Networks;
use crate::attachments::pod_rules;
use crate::cli::Report;
use crate::cli::arguments::Common;
use crate::cni::error::CniError;
use crate::datapath::drops;
use crate::desired::nftables::reason::Reason;
use crate::text_table::{Cell, Table, Tone};

/// What was counted.
#[derive(Serialize)]
pub struct DropsReport {
    version: u32,
    drops: Vec<Dropped>,
}

/// Packets of one reason.
#[derive(Serialize)]
struct Dropped {
    reason: &'static str,
    packets: u64,
    meaning: &'static str,
    #[serde(skip)]
    is_usual: bool,
}

/// Reads the counters.
///
/// # Errors
/// Where conf directory or kernel cannot be read.
pub async fn drops(common: &Common) -> Result<DropsReport, CniError> {
    let networks = common.find_networks(None)?;
    let counted = drops::read(&pod_rules::open()?).await?;
    let told = counted.into_iter().filter(|(reason, _)| is_dropped(*reason, &networks));
    let mut drops: Vec<Dropped> = told
        .map(|(reason, packets)| Dropped {
            reason: reason.name(),
            packets,
            meaning: reason.meaning(),
            is_usual: reason.is_usual(),
        })
        .collect();
    let order = |it: &Dropped| Reason::ALL.iter().position(|reason| reason.name() == it.reason);
    drops.sort_by_key(order);
    Ok(DropsReport { version: 1, drops })
}

/// Whether packets for that reason are dropped here. Those to the metadata service are counted in any case.
pub fn is_dropped(reason: Reason, networks: &Networks) -> bool {
    let refuses = || networks.known.iter().filter_map(|it| it.meaning.as_ref()).any(|it| it.block_metadata);
    reason != Reason::Metadata || refuses()
}

impl Report for DropsReport {
    fn to_text(&self, colour: bool) -> String {
        let mut table = Table::new(["REASON", "PACKETS", "WHICH"]);
        for it in &self.drops {
            let tone = if it.packets > 0 && !it.is_usual { Tone::Odd } else { Tone::Plain };
            table.push([it.reason.into(), Cell::toned(it.packets.to_string(), tone), it.meaning.into()]);
        }
        table.render(colour)
    }
}
