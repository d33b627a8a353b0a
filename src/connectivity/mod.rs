//! Why a connection works, or does not: what is asked, what each node says of it, and the answer made of both. Pure.
//!
//! ```text
//! Question -> node of the source      -> Half \
//!                                              join -> Answer
//! Question -> node of the destination -> Half /
//! ```
//!
//! | file         | what it is                                                                        |
//! |--------------|-----------------------------------------------------------------------------------|
//! | [`question`] | who wants to reach whom, with all that the API server knows of both                |
//! | [`half`]     | what one node says, step by step                                                   |
//! | [`join`]     | halves joined to an answer                                                         |
//! | [`answer`]   | the answer, and the document that `ferrulectl why --output json` prints            |
//! | [`probe`]    | what became of packets that were sent to see                                      |
//! | `text`       | the answer as people read it; only where there is somebody to read it             |
//!
//! `ferrulectl why` looks and makes halves, on the node where it runs. Whoever reaches several nodes gives each of them the
//! same [`Question`](question::Question) and joins what they print. Fields are added in time; what a reader does not know
//! it passes over.

pub mod answer;
pub mod half;
pub mod join;
pub mod probe;
pub mod question;
#[cfg(any(feature = "cli", feature = "kubectl"))]
pub mod text;
