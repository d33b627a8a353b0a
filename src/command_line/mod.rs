//! What the command lines of `ferrulectl` and `kubectl ferrule` have in common. Both are people's, and read and answer
//! alike.
//!
//! | file       | what it is                                             |
//! |------------|--------------------------------------------------------|
//! | [`values`] | what stands behind an option or in an operand's place  |

pub mod values;
