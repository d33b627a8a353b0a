//! What the agents say of what is done to their nodes: their logs, which are read on the nodes, so that neither an API
//! server nor a living agent is needed for it, and their metrics.

use std::time::Duration;

use crate::cluster::{Cluster, Node};
use crate::ensure;
use crate::process::{Result, eventually};

/// The logs of this agent and, where it was killed, of the one before.
const LOGS: &str = "cat /var/log/pods/kube-system_ferrule-*/ferruled/*.log";

/// Where an agent tells its metrics.
const METRICS: &str = "http://localhost:9690/metrics";

/// What their pods are found by.
const SELECTOR: &str = "app.kubernetes.io/name=ferrule";

/// Shell: kills the agent, if there is one, and counts it. Kept free of other programs, as it is done again and again.
pub const KILL: &str = "
    killed=0
    kill_agent() {
        for process in /proc/[0-9]*; do
            { read -r name <$process/comm; } 2>/dev/null || continue
            [ \"$name\" != ferruled ] || { kill -9 ${process#/proc/} && killed=$((killed + 1)); }
        done
    }";

/// How long an agent may take to say something. Some things it looks at once a minute.
const SAYS: Duration = Duration::from_secs(90);

/// The time on a node, as its agent writes it. Such times compare as text, and with those of Kubernetes.
pub fn time_on(node: &Node) -> Result<String> {
    Ok(node.run(&["date", "-u", "+%Y-%m-%dT%H:%M:%S.%3NZ"])?.trim().to_owned())
}

/// What the agent of a node said with these words in it, the first time since `since`; without time and level. Waits for
/// it.
pub fn said(node: &Node, since: &str, words: &str) -> Result<String> {
    said_one_of(node, since, &[words])
}

/// The same where it may say one of several things.
pub fn said_one_of(node: &Node, since: &str, any: &[&str]) -> Result<String> {
    eventually(&format!("the agent of {} says one of {any:?}", node.name), SAYS, || {
        let lines = lines(node, since)?;
        let found = lines.iter().find(|line| any.iter().any(|words| line.contains(words))).cloned();
        found.ok_or_else(|| format!("it said {lines:?}").into())
    })
}

/// All that it said since then, in this order.
fn lines(node: &Node, since: &str) -> Result<Vec<String>> {
    let text = node.shell(LOGS)?;
    let mut lines: Vec<(&str, &str)> = text.lines().filter_map(time_and_words).collect();
    lines.retain(|(time, _)| *time >= since);
    lines.sort_unstable_by_key(|(time, _)| *time);
    Ok(lines.into_iter().map(|(_, words)| words.to_owned()).collect())
}

/// Of `(what the runtime adds) time=T level=L msg=... ` the time and what was said.
fn time_and_words(line: &str) -> Option<(&str, &str)> {
    let (_, said) = line.split_once(" time=")?;
    let (time, said) = said.split_once(" level=")?;
    let (_, words) = said.split_once(' ')?;
    Some((time, words))
}

/// Deletes the agents' pods and waits until others are at work: kubelet starts the new ones at once, and those that ended
/// often the later the oftener.
pub fn replaced(cluster: &Cluster) -> Result {
    let of_agents = ["--namespace", "kube-system", "pods", "--selector", SELECTOR];
    cluster.kubectl(&[&["delete", "--timeout=90s"], &of_agents[..]].concat())?;
    eventually("every node has an agent again", SAYS, || {
        let answer = cluster.get(&of_agents)?;
        let pods = answer["items"].as_array().cloned().unwrap_or_default();
        ensure!(pods.len() == cluster.nodes.len(), "{} pods", pods.len());
        for pod in pods {
            let status = &pod["status"]["containerStatuses"][0];
            let is_well = status["ready"] == true && pod["metadata"]["deletionTimestamp"].is_null();
            ensure!(is_well, "{}: {}", pod["metadata"]["name"], status["state"]);
        }
        Ok(())
    })
}

/// A counter of the node's agent. `name` may have the first labels; what differs in the others is added up.
pub fn counted(node: &Node, name: &str) -> Result<u64> {
    let text = node.run(&["curl", "--silent", "--show-error", "--fail", METRICS])?;
    let has_name =
        |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{', ',']));
    let values: Vec<u64> =
        text.lines().filter(has_name).filter_map(|line| line.rsplit(' ').next()?.parse().ok()).collect();
    ensure!(!values.is_empty() || name.contains('{'), "the agent of {} does not count {name}", node.name);
    Ok(values.iter().sum())
}

#[cfg(test)]
mod tests {
    use super::time_and_words;

    #[test]
    fn a_line_of_the_runtimes_log_has_the_agents_in_it() {
        let line = "2026-11-28T18:00:00.123456789Z stderr F time=2026-11-28T18:00:00.123Z level=info \
                    msg=\"peer routes updated\" set=2";
        let expected = ("2026-11-28T18:00:00.123Z", "msg=\"peer routes updated\" set=2");
        assert_eq!(time_and_words(line), Some(expected));
        assert_eq!(time_and_words("2026-11-28T18:00:00Z stderr F thread main panicked"), None);
    }
}
