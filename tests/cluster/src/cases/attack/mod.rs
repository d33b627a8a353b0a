//! What breaks in a cluster, broken on purpose, while pods of all nodes ping each other fifty times a second. Each case
//! tells how many packets that cost, how long it took until it was repaired, and what the agent said of it.
//!
//! Pods that nobody touches lose no packet while agents or the API server are away. What is taken from a node costs
//! packets until it is back; how many, and how long that took, is told and not judged: other things run on the machine
//! as well.
//!
//! One attacker is a pod, which breaks nothing: it is at work while the cases run that leave others alone.

pub mod agents;
pub mod api_server;
mod crowd;
pub mod node;
mod pod;

pub use agents::agents_killed_again_and_again_cost_no_packet;
pub use api_server::an_api_server_that_is_away_costs_no_packet;
pub use crowd::crowds_of_pods_that_come_and_go_leave_nothing;
pub use node::{
    a_link_that_went_down_and_up_has_its_routes_back, a_table_that_was_flushed_is_back,
    forwarding_that_was_switched_off_is_on_again, routes_that_were_flushed_are_back,
};
pub use pod::a_pod_that_attacks_all_the_while_gets_nothing_through;
