//! Random sequences of what happens to a network on its node, held against a model.
//!
//! ```text
//! step.rs   what may happen: ADD, DEL, CHECK, GC, several of them at once, a kill in the middle, a namespace
//!           that goes, a link removed by hand, a reboot, another conf, a range that shrank
//! law.rs    the model: who has which addresses after that, and what may be answered
//! play.rs   both side by side; a failure is shrunk to the shortest sequence, told one step a line
//! disk.rs   what the store has on disk, read with the standard library
//! host.rs   the subject: the built binary on a node of its own, with real namespaces
//! kernel.rs what must hold in the kernel, by `ip -j` and `nft -j`
//! ```
//!
//! The first four are the unit tests' as well (src/store/tests/model.rs): there the subject is the store alone, and a
//! step takes microseconds. Each run plays the same sequences. More of them, or others:
//!
//! ```text
//! PROPTEST_CASES=200 PROPTEST_RNG_SEED=7 cargo test --test integration -- model --nocapture
//! ```

mod disk;
mod host;
mod kernel;
mod law;
mod play;
mod step;

#[test]
fn a_node_and_its_pods_are_as_the_model_says() {
    play::play_all(12, 30, 3, step::any_step(host::KILLS), host::Host::new);
}
