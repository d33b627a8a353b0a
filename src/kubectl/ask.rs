//! The same question to many agents at once. One that hangs holds up nobody else.

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::kubectl::agents::{Agent, Asked};
use crate::kubectl::cluster::Cluster;

/// Agents that are asked at the same time. Each is a connection through the API server to a kubelet.
const AT_ONCE: usize = 16;

/// What came of one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Answer<T> {
    /// Its name.
    pub node: String,
    /// Whom was asked; null where there is no agent.
    pub agent: Option<Agent>,
    /// What it answered; null where it could not be asked.
    pub report: Option<T>,
    /// How `ferrulectl` ended there.
    pub status: Option<i32>,
    /// Why it could not be asked, in one line.
    pub problem: Option<String>,
}

impl<T> Answer<T> {
    /// Of a node that could not be asked.
    pub fn none(asked: &Asked, problem: &str) -> Self {
        let why = match &asked.not_ready {
            Some(not_ready) => format!("{not_ready}; {problem}"),
            None => problem.to_owned(),
        };
        // One line, whatever API server or kubelet said.
        let problem = Some(why.split_whitespace().collect::<Vec<_>>().join(" "));
        let agent = asked.agent.as_ref().ok().cloned();
        Self { node: asked.node.clone(), agent, report: None, status: None, problem }
    }
}

impl Cluster {
    /// Asks all of them for the document of a verb, and tells whoever watches how far it is. The answers are in the order
    /// of the nodes.
    pub async fn ask_all<T>(
        self: &Arc<Self>,
        asked: &[Asked],
        verb: &'static str,
        words: &[String],
        deadline: Duration,
    ) -> Vec<Answer<T>>
    where
        T: DeserializeOwned + Send + 'static,
    {
        let mut words = words.to_vec();
        words.extend(["--output".to_owned(), "json".to_owned()]);
        let (words, free) = (Arc::new(words), Arc::new(Semaphore::new(AT_ONCE)));
        let mut tasks = JoinSet::new();
        for (place, it) in asked.iter().enumerate() {
            let (cluster, words, it) = (Arc::clone(self), Arc::clone(&words), it.clone());
            let free = Arc::clone(&free);
            tasks.spawn(async move {
                // The semaphore is never closed.
                let _permit = free.acquire_owned().await;
                (place, cluster.ask_one(&it, verb, &words, deadline).await)
            });
        }
        let mut answers = Vec::new();
        let progress = Progress::new(asked.len());
        while let Some(done) = tasks.join_next().await {
            answers.extend(done);
            progress.show(answers.len());
        }
        progress.end();
        answers.sort_by_key(|(place, _)| *place);
        answers.into_iter().map(|(_, answer)| answer).collect()
    }

    async fn ask_one<T: DeserializeOwned>(
        &self,
        asked: &Asked,
        verb: &str,
        words: &[String],
        deadline: Duration,
    ) -> Answer<T> {
        let agent = match &asked.agent {
            Ok(agent) => agent,
            Err(problem) => return Answer::none(asked, problem),
        };
        let said = match self.ask(agent, words, deadline).await {
            Ok(said) => said,
            Err(problem) => return Answer::none(asked, &problem),
        };
        match said.document(verb) {
            Ok(report) => Answer {
                node: asked.node.clone(),
                agent: Some(agent.clone()),
                report: Some(report),
                status: Some(said.status),
                problem: None,
            },
            Err(problem) => Answer { status: Some(said.status), ..Answer::none(asked, &problem) },
        }
    }
}

/// A line on a terminal that is written again and again; nothing elsewhere.
struct Progress {
    of: usize,
    is_shown: bool,
}

impl Progress {
    fn new(of: usize) -> Self {
        Self { of, is_shown: of > 1 && io::stderr().is_terminal() }
    }

    fn show(&self, done: usize) {
        if self.is_shown {
            let _ = io::stderr().write_all(format!("\r{done} of {} nodes", self.of).as_bytes());
        }
    }

    fn end(&self) {
        if self.is_shown {
            let _ = io::stderr().write_all(b"\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_cannot_be_asked_has_one_line() {
        let agent = Ok(Agent { namespace: "kube-system".into(), pod: "ferrule-a".into() });
        let not_ready = Some("it is NotReady: container runtime is down".to_owned());
        let asked = Asked { node: "a".into(), not_ready, agent };
        let answer = Answer::<()>::none(&asked, "error dialing backend:\n connection refused");
        let line = "it is NotReady: container runtime is down; error dialing backend: connection refused";
        assert_eq!(answer.problem.as_deref(), Some(line));
        assert_eq!((answer.agent.unwrap().pod, answer.report), ("ferrule-a".to_owned(), None));
    }
}
