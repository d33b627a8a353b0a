//! ADD: what a pod has afterwards, line by line of DESIGN, section 4; read back with `ip -j`.

mod burst;
mod failure;
mod killed;
mod reach;
mod settings;
mod wire;
