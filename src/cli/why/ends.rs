//! Who is at an end of the connection.

use std::net::IpAddr;

use crate::cli::policy::target::Target;
use crate::cli::why::look::Look;
use crate::cni::error::{CniError, Code};
use crate::connectivity::question::{self, EndKind, NodeRef, Question};
use crate::policy::evaluate::Flow;
use crate::policy::object::ObjectName;
use crate::store::Record;

/// One end of one flow, as this node sees it.
pub struct End<'a> {
    /// Its address.
    pub address: IpAddr,
    /// As the question has it.
    pub asked: question::End,
    /// Where it is.
    pub place: Place<'a>,
}

/// Where an end is.
#[derive(Clone, Copy)]
pub enum Place<'a> {
    /// A pod of this node.
    Pod(&'a Record),
    /// This node itself.
    Node,
    /// Neither.
    Elsewhere,
}

/// Both ends of one flow.
pub struct Ends<'a> {
    /// The flow.
    pub flow: Flow,
    /// Who begins.
    pub source: End<'a>,
    /// Who is meant.
    pub destination: End<'a>,
}

impl<'a> End<'a> {
    /// The ends of a flow.
    pub fn of_flow(look: &'a Look<'_>, question: &Question, flow: Flow) -> Ends<'a> {
        let end = |address, asked| End { address, asked, place: place(look, address) };
        Ends {
            flow,
            source: end(flow.source, question.source.clone()),
            destination: end(flow.destination, question.destination_of(&flow)),
        }
    }

    /// Whether this node has it.
    pub fn is_here(&self) -> bool {
        !matches!(self.place, Place::Elsewhere)
    }

    /// The pod, if it is one of this node.
    pub fn pod(&self) -> Option<&'a Record> {
        match self.place {
            Place::Pod(record) => Some(record),
            Place::Node | Place::Elsewhere => None,
        }
    }

    /// What this node is called, if the end is here.
    pub fn node_name(&self, look: &Look<'_>) -> String {
        self.asked.node.as_ref().map_or_else(|| look.name.clone(), |node| node.name.clone())
    }
}

impl Ends<'_> {
    /// The same after a hostPort: to a pod of this node, at a port of its own.
    pub fn rewritten<'b>(&self, address: IpAddr, port: u16, record: &'b Record) -> Ends<'b>
    where
        Self: 'b,
    {
        let name = record.pod.as_ref().map_or_else(|| record.key().to_string(), ToString::to_string);
        let (kind, addresses, node) = (EndKind::Pod, vec![address], self.destination.asked.node.clone());
        let source =
            End { address: self.source.address, asked: self.source.asked.clone(), place: self.source.place };
        Ends {
            flow: Flow { destination: address, port, ..self.flow },
            source,
            destination: End {
                address,
                asked: question::End { name, kind, addresses, node },
                place: Place::Pod(record),
            },
        }
    }
}

fn place<'a>(look: &'a Look<'_>, address: IpAddr) -> Place<'a> {
    match look.pod_with(address) {
        Some(record) => Place::Pod(record),
        None if look.own.contains(&address) => Place::Node,
        None => Place::Elsewhere,
    }
}

/// Finds who is meant, without the API server: pods of this node by their records, those of others by what the agent has
/// left of policies.
///
/// # Errors
/// If there is no such pod, as far as is known here.
pub fn find_end(look: &Look<'_>, target: &Target) -> Result<question::End, CniError> {
    match target {
        Target::Pod(name) => find_pod(look, name),
        Target::Address(address) => Ok(find_address(look, *address)),
    }
}

fn here(look: &Look<'_>) -> Option<NodeRef> {
    let addresses = look.mains().flat_map(|it| it.node_ips.iter().copied()).collect();
    Some(NodeRef { name: look.name.clone(), addresses })
}

fn find_pod(look: &Look<'_>, name: &ObjectName) -> Result<question::End, CniError> {
    let shown = format!("{}/{}", name.namespace, name.name);
    let is_named = |it: &&Record| it.pod.as_ref().is_some_and(|pod| pod.to_string() == shown);
    // One that is made again under the same name has another address.
    if let Some(record) = look.pods.iter().filter(is_named).max_by_key(|it| it.created) {
        let (kind, addresses) = (EndKind::Pod, record.addresses.clone());
        return Ok(question::End { name: shown, kind, addresses, node: here(look) });
    }
    if let Some(pod) = look.objects.as_ref().and_then(|it| it.any_pod(name)) {
        return Ok(question::End { name: shown, kind: EndKind::Pod, addresses: pod.addresses, node: None });
    }
    let message = format!("pod {shown} is not known on this node");
    let details = "it may be on another node: give its address instead, or ask with kubectl ferrule why, which asks the API \
                   server; a pod in its node's network is asked about by that node's address";
    Err(CniError::new(Code::InvalidConf, message).with_details(details))
}

fn find_address(look: &Look<'_>, address: IpAddr) -> question::End {
    let (name, kind, node) = match place(look, address) {
        Place::Pod(record) => {
            let name = record.pod.as_ref().map_or_else(|| record.key().to_string(), ToString::to_string);
            (name, EndKind::Pod, here(look))
        }
        Place::Node => (look.name.clone(), EndKind::Node, here(look)),
        Place::Elsewhere => match look.objects.as_ref().and_then(|it| it.with_address(address)) {
            Some(pod) => (format!("{}/{}", pod.name.namespace, pod.name.name), EndKind::Pod, None),
            None => match look.listed_route(address) {
                Some((node, next_hop)) => {
                    let node = NodeRef { name: node, addresses: vec![next_hop] };
                    (address.to_string(), EndKind::Pod, Some(node))
                }
                None if look.is_other_node(address) => (address.to_string(), EndKind::Node, None),
                // The agent's peers are in no conf, but their routes are there.
                None if look.standing_route(address).is_some() => (address.to_string(), EndKind::Pod, None),
                None => (address.to_string(), EndKind::Address, None),
            },
        },
    };
    question::End { name, kind, addresses: vec![address], node }
}
