//! Who is at an end of a connection.

use std::net::IpAddr;

use serde::Serialize;

use crate::cli::policy::known::Known;
use crate::cli::policy::target::Target;
use crate::cni::error::{CniError, Code};
use crate::policy::object::{ObjectName, Pod};
use crate::policy::objects::Objects;

/// Where an end is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// A pod of this node.
    ThisNode,
    /// A pod of this node that the agent has not seen yet.
    Held,
    /// A pod of another node.
    OtherNode,
    /// The node itself, and whatever is in its network.
    Node,
    /// No pod that is known.
    Elsewhere,
}

/// One end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Side {
    /// The pod, if it is one.
    pub pod: Option<String>,
    /// Its addresses, or the one that was asked about.
    pub addresses: Vec<IpAddr>,
    /// Where it is.
    pub place: Place,
    /// The node's end of its link.
    pub link: Option<String>,
    /// The pod's uid; of a pod of another node, what stands for it here.
    #[serde(skip)]
    pub uid: String,
}

impl Side {
    /// Finds it.
    ///
    /// # Errors
    /// If there is no such pod, as far as is known here.
    pub fn find(target: &Target, known: &Known, objects: &Objects) -> Result<Self, CniError> {
        match target {
            Target::Pod(name) => Self::find_pod(name, known, objects),
            Target::Address(address) => Ok(Self::with_address(*address, known, objects)),
        }
    }

    fn find_pod(name: &ObjectName, known: &Known, objects: &Objects) -> Result<Self, CniError> {
        let attached: Vec<_> = known.attached.iter().filter(|it| it.is(name)).collect();
        let own = objects.own_pod(name);
        if let Some(last) = attached.iter().min_by_key(|it| it.age) {
            let uid = &last.attached.uid;
            let of_pod = attached.iter().filter(|it| it.attached.uid == *uid);
            let is_known = objects.own_pods.iter().any(|pod| pod.uid == *uid);
            return Ok(Self {
                pod: Some(last.attached.name.clone()),
                addresses: of_pod.flat_map(|it| it.attached.addresses.iter().copied()).collect(),
                place: if is_known { Place::ThisNode } else { Place::Held },
                link: Some(last.attached.link.clone()),
                uid: uid.clone(),
            });
        }
        if let Some(pod) = own {
            return Ok(Self::of_pod(pod, Place::ThisNode));
        }
        if let Some(pod) = objects.any_pod(name) {
            return Ok(Self::of_pod(&pod, Place::OtherNode));
        }
        let message = format!("pod {}/{} is not known on this node", name.namespace, name.name);
        let details = match (&known.objects, known.problem()) {
            (_, Some(problem)) => problem,
            (None, None) => {
                "there is no NetworkPolicy in the cluster, or ferruled does not follow them: then only pods of this node \
                 are known here; give an address instead"
            }
            .to_owned(),
            (Some(_), None) => {
                "it may have no address yet, be finished, or be in its node's network: then give that node's address instead"
            }
            .to_owned(),
        };
        Err(CniError::new(Code::InvalidConf, message).with_details(details))
    }

    fn with_address(address: IpAddr, known: &Known, objects: &Objects) -> Self {
        let named = |name: &str| {
            let (namespace, name) = name.split_once('/')?;
            let name = ObjectName { namespace: namespace.to_owned(), name: name.to_owned() };
            Self::find_pod(&name, known, objects).ok()
        };
        let attached = known.attached.iter().find(|it| it.attached.addresses.contains(&address));
        let own = attached.and_then(|it| named(&it.attached.name));
        let pod = own.or_else(|| {
            let pod = objects.with_address(address)?;
            let is_own = objects.own_pods.iter().any(|own| own.name == pod.name);
            Some(Self::of_pod(&pod, if is_own { Place::ThisNode } else { Place::OtherNode }))
        });
        let nobody = Self {
            pod: None,
            addresses: Vec::new(),
            place: if known.node.contains(&address) { Place::Node } else { Place::Elsewhere },
            link: None,
            uid: String::new(),
        };
        Self { addresses: vec![address], ..pod.unwrap_or(nobody) }
    }

    fn of_pod(pod: &Pod, place: Place) -> Self {
        let name = format!("{}/{}", pod.name.namespace, pod.name.name);
        let uid = if pod.uid.is_empty() { format!("of another node: {name}") } else { pod.uid.clone() };
        Self { pod: Some(name), addresses: pod.addresses.clone(), place, link: None, uid }
    }

    /// As people know it.
    pub fn name(&self) -> String {
        match (&self.pod, self.place) {
            (Some(pod), _) => pod.clone(),
            (None, Place::Node) => "this node".to_owned(),
            (None, _) => self.addresses.first().map(ToString::to_string).unwrap_or_default(),
        }
    }

    /// Its namespace, if it is a pod.
    pub fn namespace(&self) -> Option<&str> {
        self.pod.as_ref()?.split_once('/').map(|(namespace, _)| namespace)
    }

    /// Whether policies isolate it here.
    pub fn is_of_this_node(&self) -> bool {
        matches!(self.place, Place::ThisNode | Place::Held)
    }

    /// Its address of a family.
    pub fn address(&self, ipv4: bool) -> Option<IpAddr> {
        self.addresses.iter().copied().find(|it| it.is_ipv4() == ipv4)
    }

    /// A pod of another node as if it were here, for whoever wants its own node's answer.
    pub fn as_own(&self, objects: &Objects) -> Option<Pod> {
        if self.place != Place::OtherNode {
            return None;
        }
        let (namespace, name) = self.pod.as_ref()?.split_once('/')?;
        let name = ObjectName { namespace: namespace.to_owned(), name: name.to_owned() };
        Some(Pod { uid: self.uid.clone(), ..objects.any_pod(&name)? })
    }
}
