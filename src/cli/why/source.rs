//! What the node of the source says.

use crate::cli::why::departure::{self, Departure};
use crate::cli::why::ends::{Ends, Place};
use crate::cli::why::look::Look;
use crate::cli::why::{firewall, forwarding, pod, policies, table};
use crate::cni::error::CniError;
use crate::connectivity::half::{Half, Kind, Role, Step};
use crate::connectivity::question::EndKind;
use crate::policy::plan::Direction;

/// Its half.
///
/// # Errors
/// Where the kernel cannot be asked.
pub async fn half(look: &Look<'_>, ends: &Ends<'_>) -> Result<Half, CniError> {
    let (source, destination) = (&ends.source, &ends.destination);
    let mut half = Half {
        node: source.node_name(look),
        role: Role::Source,
        flow: ends.flow,
        steps: Vec::new(),
        link_mtu: None,
        pod_mtu: None,
        other: None,
    };
    let steps = &mut half.steps;
    let mut input = None;
    if let Place::Pod(record) = source.place {
        let found = pod::examine(look, record, source.address, destination.address, true).await?;
        half.pod_mtu = found.mtu;
        input = found.link;
        steps.extend(found.steps);
        steps.extend(firewall::examine_in_pod(look, record, ends, true).await);
        steps.extend(table::examine_source(look, record, source.address).await?);
    }
    policies::examine(look, ends, Direction::Egress, steps).await?;
    let input_name = input.map(|index| look.link_name(index));
    match destination.place {
        // What is between the two links of one node is said by the destination's half.
        Place::Pod(_) | Place::Node => {}
        Place::Elsewhere if look.is_of_own_subnet(destination.address) => {
            let sentence = format!("{} is of this node's range, and no pod here has it", destination.address);
            let remedy = "ferrulectl inspect lists the pods of this node and their addresses; a client may go by an old one";
            steps.push(Step::broken(Kind::PodRoute, sentence, remedy));
        }
        Place::Elsewhere => {
            if let Some(name) = &input_name {
                steps.push(forwarding::examine(source.address.is_ipv4(), name));
                let pair = (source.address, destination.address);
                steps.extend(forwarding::examine_origin(look, pair, input, name).await?);
            }
            let departure = Departure {
                input,
                source: source.address,
                destination: destination.address,
                other: &destination.asked,
                is_back: false,
            };
            let left = departure::examine(look, &departure).await?;
            (half.link_mtu, half.other) = (left.mtu, left.other);
            steps.extend(left.steps);
            if let Some(output) = left.link {
                steps.extend(firewall::examine_leaving(look, ends, input_name.as_deref(), output).await);
                steps.extend(firewall::examine_answers(look, ends, Some(output), input).await);
            }
            if let Place::Pod(record) = source.place {
                let inside = destination.asked.kind != EndKind::Address;
                steps.extend(table::examine_masquerade(look, record, destination.address, inside).await?);
            }
            steps.extend(forwarding::examine_flows());
            if destination.asked.kind == EndKind::Address {
                let beyond = left.next_hop.filter(|it| *it != destination.address);
                let sentence = match beyond {
                    Some(next_hop) => {
                        format!("what becomes of packets beyond {next_hop} cannot be seen from here")
                    }
                    None => format!("what {} does with them cannot be seen from here", destination.address),
                };
                steps.push(Step::unknown(Kind::Beyond, sentence));
            }
        }
    }
    policies::examine_hearsay(look, ends, Direction::Ingress, steps).await?;
    Ok(half)
}
