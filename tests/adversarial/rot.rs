//! Stores on disks that fail, in hands that meddle, under clocks that jump: what a command makes of it, seen from
//! outside. Bit by bit it is done in src/store/tests/rot.rs.

mod blocked;
mod disk;
mod outside;
mod overlay;
mod records;
