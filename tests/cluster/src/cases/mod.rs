//! The cases, a file for each thing that a user does.

mod agent;
mod annotations;
mod attack;
mod conformance;
mod containers;
mod documents;
mod first;
mod helm;
mod host_ports;
mod kubectl;
mod leaving;
mod masquerade;
mod neighbours;
mod nodes;
mod pods;
mod policies;
mod probes;
mod services;
mod workloads;

use crate::process::Result;
use crate::space::Space;

/// Whose network a case may be asked of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// Any plugin's.
    Any,
    /// What ferrule promises and not everyone does.
    Ferrule,
}

/// What may run at the same time.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Company {
    /// Anything else that says so.
    Any,
    /// All that say [`Company::Any`]: it begins with the first of them and ends after the last.
    All,
    /// Nothing: it disturbs others, or measures what others would disturb.
    None,
}

impl Case {
    /// Why it cannot be asked of a cluster of this network.
    pub fn cannot_run(&self, any_plugin: bool) -> Option<&'static str> {
        if any_plugin && self.network == Network::Ferrule {
            return Some("asked of ferrule only");
        }
        if self.name == "conformance::cluster_network_policies_pass" {
            let reason = "CNP_DIR names no directory with conformance.test of network-policy-api";
            return conformance::cluster_program().is_none().then_some(reason);
        }
        if self.name.starts_with("conformance::") && conformance::directory().is_none() {
            return Some("E2E_DIR names no directory with Kubernetes' e2e.test and ginkgo");
        }
        (self.name.starts_with("helm::") && helm::program().is_none()).then_some("HELM names no helm")
    }
}

/// A thing that a user takes for granted.
pub struct Case {
    /// `file::what_is_so`.
    pub name: &'static str,
    /// Finds out whether it is.
    pub run: fn(&Space<'_>) -> Result,
    /// See [`Network`].
    pub network: Network,
    /// See [`Company`].
    pub company: Company,
}

macro_rules! cases {
    ($($network:ident, $company:ident: $file:ident::$case:ident,)*) => {
        vec![$(Case {
            name: concat!(stringify!($file), "::", stringify!($case)),
            run: $file::$case,
            network: Network::$network,
            company: Company::$company,
        },)*]
    };
}

/// All of them, in the order in which they run.
pub fn all() -> Vec<Case> {
    cases![
        Ferrule, All: attack::a_pod_that_attacks_all_the_while_gets_nothing_through,
        Any, Any: first::the_flat_manifest_is_the_kustomization,
        Ferrule, Any: first::every_node_is_ready_by_ferruled_alone,
        Any, Any: first::nginxtest_serves_everybody,
        Any, Any: first::names_are_resolved_on_every_node,
        Any, Any: pods::every_pod_reaches_every_pod_with_its_own_address,
        Any, Any: pods::pods_and_nodes_reach_each_other,
        Ferrule, Any: pods::a_node_is_seen_by_its_internal_address,
        Any, Any: pods::large_packets_and_much_data_arrive,
        Ferrule, Any: pods::an_address_that_no_pod_has_is_unreachable_at_once,
        Any, Any: containers::two_containers_share_localhost_and_one_port_space,
        Any, Any: containers::a_restarted_container_keeps_the_pods_address,
        Any, Any: probes::probes_pass_and_fail_as_they_should,
        Any, Any: probes::readiness_moves_a_pod_out_of_its_service_and_into_it,
        Any, Any: services::a_service_is_reached_from_pods_and_nodes,
        Any, Any: services::a_pod_reaches_itself_behind_its_own_service,
        Any, Any: services::a_headless_service_names_its_pods,
        Any, Any: services::a_node_port_is_reached_from_outside_on_every_node,
        Any, Any: services::external_traffic_policy_local_keeps_the_clients_address,
        Any, Any: services::session_affinity_keeps_a_client_with_its_pod,
        Any, Any: services::endpoints_may_be_on_the_hosts_network,
        Any, Any: host_ports::a_containers_port_is_not_the_nodes,
        Any, Any: host_ports::a_host_port_is_reached_from_everywhere,
        Any, Any: host_ports::one_port_leads_to_three_pods_by_address_and_protocol,
        Any, Any: host_ports::a_host_port_over_udp_follows_the_pod_that_has_it,
        Ferrule, Any: annotations::a_pod_gets_what_its_annotations_ask_for,
        Ferrule, Any: masquerade::beyond_the_cluster_a_pod_has_its_nodes_address,
        Any, Any: workloads::a_stateful_set_is_reached_by_name,
        Any, Any: workloads::a_killed_sandbox_is_replaced,
        Any, Any: policies::blocks_overlap_repeat_and_leave_out,
        Any, Any: policies::policy_types_decide_and_not_the_rules,
        Any, Any: policies::labels_that_change_are_followed,
        Any, Any: policies::a_hundred_policies_on_one_pod_add_up,
        Any, Any: policies::pods_without_an_address_disturb_nobody,
        Any, Any: policies::from_missing_empty_and_empty_peer_differ,
        Any, Any: policies::not_in_selects_those_without_the_label,
        Any, Any: policies::namespaces_and_pods_are_both_asked_for,
        Any, Any: policies::a_named_port_of_ingress_is_each_pods_own,
        Any, Any: policies::a_named_port_of_egress_is_the_servers,
        Any, Any: policies::ports_overlap_repeat_and_have_ranges,
        Any, Any: policies::probes_of_an_isolated_pod_pass,
        Any, Any: policies::other_nodes_are_let_in_by_their_addresses,
        Any, Any: policies::a_pod_on_the_hosts_network_is_a_node,
        Any, Any: policies::egress_to_a_service_is_judged_by_the_pods_port,
        Any, Any: policies::an_isolated_pod_reaches_itself_by_its_service,
        Any, Any: policies::a_node_port_with_policy_local_shows_its_client,
        Any, Any: policies::with_dns_allowed_names_resolve_and_nothing_else,
        Any, Any: policies::replies_of_isolated_pods_pass,
        Ferrule, Any: policies::a_finished_pods_address_is_nobodys_peer,
        Ferrule, Any: policies::a_flow_that_is_forbidden_is_cut,
        Ferrule, Any: policies::a_download_that_is_forbidden_is_cut,
        Ferrule, None: documents::every_command_that_only_reads_succeeds,
        Any, None: conformance::host_ports_do_not_conflict,
        Any, None: conformance::granular_checks_pass,
        Any, None: conformance::conformance_of_services_passes,
        Any, None: conformance::conformance_of_the_rest_passes,
        Any, None: conformance::network_policies_pass,
        Any, None: conformance::cluster_network_policies_pass,
        Ferrule, None: policies::tiers_stand_around_network_policies,
        Ferrule, None: policies::tiers_of_egress_go_by_networks_and_pods,
        Any, None: policies::a_flow_that_stays_allowed_lives_through_changes,
        Any, None: policies::new_pods_are_isolated_from_their_first_packet_on,
        Any, None: workloads::sixty_pods_at_once,
        Any, None: workloads::a_deployment_rolled_ten_times,
        Any, None: workloads::a_job_of_a_hundred_short_pods,
        Ferrule, None: annotations::bandwidth_is_held_in_both_directions,
        Ferrule, None: agent::rolled_out_again_it_costs_no_packet,
        Ferrule, None: agent::without_it_pods_start_all_the_same,
        Ferrule, None: agent::listening_on_the_loopback_it_is_ready,
        Ferrule, None: agent::settings_come_from_a_config_map,
        Ferrule, None: agent::forced_into_tunnels_all_reach_all,
        Ferrule, None: helm::a_release_is_installed_upgraded_rolled_back_and_removed,
        Ferrule, None: neighbours::a_chained_plugin_stays_through_restart_and_upgrade,
        Ferrule, None: neighbours::multus_in_front_stays_there_and_pods_start,
        Ferrule, None: attack::routes_that_were_flushed_are_back,
        Ferrule, None: attack::a_table_that_was_flushed_is_back,
        Ferrule, None: attack::forwarding_that_was_switched_off_is_on_again,
        Ferrule, None: attack::a_link_that_went_down_and_up_has_its_routes_back,
        Ferrule, None: attack::agents_killed_again_and_again_cost_no_packet,
        Ferrule, None: attack::an_api_server_that_is_away_costs_no_packet,
        Ferrule, None: attack::crowds_of_pods_that_come_and_go_leave_nothing,
        Ferrule, None: policies::agents_killed_and_rolled_out_open_and_shut_nothing,
        Ferrule, None: policies::without_agents_new_pods_are_not_open,
        Ferrule, None: policies::an_api_server_that_is_away_opens_and_shuts_nothing,
        Ferrule, None: policies::a_policy_table_that_was_flushed_is_back,
        Ferrule, None: policies::a_worker_that_restarts_has_its_policies_again,
        Ferrule, None: nodes::a_worker_that_restarts_is_as_before,
        Ferrule, None: nodes::a_control_plane_with_another_address_is_as_before,
        Ferrule, None: nodes::a_worker_that_joins_again_leaves_no_stale_route,
        Ferrule, None: nodes::first_packets_on_a_node_that_joins_are_answered,
        Ferrule, None: nodes::the_startup_taint_is_removed_by_the_agent,
        Ferrule, None: kubectl::doctor_tells_once_what_all_nodes_have,
        Ferrule, None: kubectl::a_capture_is_what_tcpdump_reads,
        Ferrule, None: kubectl::a_bundle_has_each_node_and_no_secret,
        Ferrule, None: kubectl::why_names_what_is_in_the_way,
        Ferrule, None: kubectl::a_node_without_an_agent_and_a_silent_one_are_told,
        Ferrule, None: kubectl::uninstall_does_all_steps_and_refuses_while_pods_run,
        Ferrule, None: leaving::uninstalled_nodes_are_as_before,
    ]
}
