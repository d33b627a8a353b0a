//! NetworkPolicies, asked of pods that connect: each case is a thing that went wrong for somebody with some network.
//!
//! A case makes pods and policies, and says which ways are open and which are shut ([`ways`]). Policies are enforced within a
//! bounded time, so the ways are asked for until all are as said. What must be so from the first packet, and all the time,
//! is counted instead ([`first_second`], [`stream`]).
//!
//! The cases that need nothing of ferrule are asked of any network.

mod blocks;
mod changes;
mod disturbed;
mod first_second;
mod flows;
pub mod manifest;
mod nodes;
mod peers;
mod ports;
mod scene;
mod services;
mod stream;
pub mod tiers;
mod ways;
mod without_api;

pub use blocks::{blocks_overlap_repeat_and_leave_out, policy_types_decide_and_not_the_rules};
pub use changes::{
    a_finished_pods_address_is_nobodys_peer, a_hundred_policies_on_one_pod_add_up,
    labels_that_change_are_followed, pods_without_an_address_disturb_nobody,
};
pub use disturbed::{
    a_policy_table_that_was_flushed_is_back, a_worker_that_restarts_has_its_policies_again,
    agents_killed_and_rolled_out_open_and_shut_nothing, without_agents_new_pods_are_not_open,
};
pub use first_second::new_pods_are_isolated_from_their_first_packet_on;
pub use flows::{
    a_download_that_is_forbidden_is_cut, a_flow_that_is_forbidden_is_cut,
    a_flow_that_stays_allowed_lives_through_changes,
};
pub use nodes::{
    a_pod_on_the_hosts_network_is_a_node, other_nodes_are_let_in_by_their_addresses,
    probes_of_an_isolated_pod_pass,
};
pub use peers::{
    from_missing_empty_and_empty_peer_differ, namespaces_and_pods_are_both_asked_for,
    not_in_selects_those_without_the_label,
};
pub use ports::{
    a_named_port_of_egress_is_the_servers, a_named_port_of_ingress_is_each_pods_own,
    ports_overlap_repeat_and_have_ranges,
};
pub use services::{
    a_node_port_with_policy_local_shows_its_client, an_isolated_pod_reaches_itself_by_its_service,
    egress_to_a_service_is_judged_by_the_pods_port, replies_of_isolated_pods_pass,
    with_dns_allowed_names_resolve_and_nothing_else,
};
pub use tiers::{tiers_of_egress_go_by_networks_and_pods, tiers_stand_around_network_policies};
pub use without_api::an_api_server_that_is_away_opens_and_shuts_nothing;

use std::time::Duration;

use crate::process::Result;
use crate::space::Space;

/// How long the pods of a case may take to start.
const STARTS: Duration = Duration::from_secs(120);

/// A namespace beside that of a case. It goes with its value.
struct Beside<'c>(Space<'c>);

impl<'c> Beside<'c> {
    /// Makes `<namespace of the case>-beside`, with these labels.
    fn make(space: &'c Space<'_>, labels: &[&str]) -> Result<Self> {
        let name = format!("{}-beside", space.name());
        let beside = Self(Space::make(space, &name, space.length, space.over)?);
        for label in labels {
            beside.label(label)?;
        }
        Ok(beside)
    }

    /// Gives the namespace a label `key=value`, or with `key-` takes one from it.
    fn label(&self, label: &str) -> Result {
        self.0.kubectl(&["label", "namespace", self.0.name(), label, "--overwrite"]).map(|_| ())
    }
}

impl Drop for Beside<'_> {
    fn drop(&mut self) {
        self.0.remove(false);
    }
}
