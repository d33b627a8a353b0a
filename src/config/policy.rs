//! `policyUnknown`: what a pod starts with whose NetworkPolicies are not known yet.

use crate::cni::json::Node;
use crate::cni::problem::quote;

/// What a pod starts with that the agent does not know yet, in a namespace with policies. Where no policy of its
/// namespace isolates anybody, it starts open in any case.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PolicyUnknown {
    /// What is certain to be allowed, and nothing else.
    #[default]
    Hold,
    /// Everything.
    Open,
}

impl PolicyUnknown {
    /// As the conf has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hold => "hold",
            Self::Open => "open",
        }
    }

    /// Reads `policyUnknown`.
    pub fn read(root: &Node<'_, '_>) -> Self {
        root.parsed("policyUnknown", Self::parse).unwrap_or_default()
    }

    /// Reads it as it is written.
    ///
    /// # Errors
    /// What is wrong; it follows the name of what was read.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "hold" => Ok(Self::Hold),
            "open" => Ok(Self::Open),
            _ => Err(format!("is {}; write \"hold\" or \"open\"", quote(text))),
        }
    }
}
