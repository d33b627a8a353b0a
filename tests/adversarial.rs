//! What takes minutes: scripts skip this tier by the prefix `adversarial::`.

mod faults;
mod model;
mod rot;
