//! What the command lines of `ferrulectl` and `kubectl ferrule` have in common. Both are for people: they read the same
//! words, and answer in the same form.
//!
//! | file         | what it is                                            |
//! |--------------|-------------------------------------------------------|
//! | [`values`]   | what stands behind an option or in an operand's place |
//! | [`outcome`]  | what a verb prints, and how it ends                   |
//! | [`generate`] | completions and man pages                             |

pub mod generate;
pub mod outcome;
pub mod values;
