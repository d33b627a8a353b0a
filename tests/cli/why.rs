//! Why a connection works or does not: what is said is what happens. Faults are planted one at a time, traffic proves
//! that they are faults, and `ferrulectl why` must name the kind.

mod broken;
mod healthy;
mod probe;
mod scene;
