//! The room as a whole: random clusters, read in three ways, and by events in any order.

mod cases;
mod cluster;
mod events;
mod flows;
mod measure;
mod naive;
mod tiers;
