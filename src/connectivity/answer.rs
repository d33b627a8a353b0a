//! The answer to a question, and the document in which it is printed.

use serde::{Deserialize, Serialize};

use crate::connectivity::half::{Half, Other, Step};
use crate::connectivity::probe::Probe;
use crate::connectivity::question::Question;
use crate::policy::evaluate::Flow;

/// What `ferrulectl why --output json` prints: what one node knows. `answer` is what follows from its halves alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Document {
    /// 1
    pub version: u32,
    /// What was asked, with what this node knows of both ends.
    pub question: Question,
    /// What this node says; empty if neither end lives on it.
    pub halves: Vec<Half>,
    /// What follows from that.
    pub answer: Answer,
    /// What became of packets that were sent to see, one for each flow; none unless that was asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub probes: Vec<Probe>,
}

/// Whether a connection works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Nothing on the way keeps it, and all of the way was looked at.
    Works,
    /// Something does.
    Broken,
    /// Nothing that was looked at does, and not all was.
    Unknown,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// In one word.
    pub verdict: Verdict,
    /// In one sentence.
    pub sentence: String,
    /// What to do, if it is broken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// One for each family, or for each endpoint of a Service.
    pub flows: Vec<FlowAnswer>,
    /// Nodes that have not been asked, and must be.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ask: Vec<Other>,
}

/// The answer for one flow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FlowAnswer {
    /// Which.
    pub flow: Flow,
    /// In one word.
    pub verdict: Verdict,
    /// In one sentence.
    pub sentence: String,
    /// What to do, if it is broken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// The whole way, answers last.
    pub steps: Vec<PlacedStep>,
}

/// A step, and where it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlacedStep {
    /// The node; empty for what is on none.
    pub node: String,
    /// What is there.
    #[serde(flatten)]
    pub step: Step,
}
