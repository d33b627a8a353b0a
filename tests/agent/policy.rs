//! NetworkPolicies that the agent follows, with pods made by real ADDs and with real traffic.

mod beside;
mod downloads;
mod flows;
mod force;
mod gaps;
mod hostile;
mod kept;
mod memory;
mod tiers;
mod told;
mod watches;
pub mod world;
