//! Traffic that goes on while something else happens: every pod pings every other, twenty times a second, and each
//! packet that was not answered is counted.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::process::Result;
use crate::space::Space;

/// Ends the pings and shows what each wrote, its summary last. Not `pidof`: in a container whose first process is not
/// init, one that has ended stays as a zombie.
const STOP: &str = "
    killall -INT ping
    for file in /tmp/probe-*; do
        tries=0
        until grep -q 'packets transmitted' $file || [ $((tries += 1)) -gt 100 ]; do sleep 0.1; done
        echo \"TO ${file#/tmp/probe-}\"
        cat $file
    done";

/// Pings at work.
pub struct Probe<'s> {
    space: &'s Space<'s>,
    pods: Vec<String>,
}

/// What came of them.
#[derive(Debug, Default)]
pub struct Losses {
    /// How many packets were sent.
    pub sent: usize,
    /// Which were not answered: from whom, to whom, and after how many of these twentieths of a second.
    pub lost: Vec<(String, String, Vec<usize>)>,
}

impl Losses {
    /// How many packets were not answered.
    pub fn count(&self) -> usize {
        self.lost.iter().map(|(_, _, numbers)| numbers.len()).sum()
    }

    /// Fails if any packet was lost.
    pub fn none(&self) -> Result {
        match self.count() {
            0 => Ok(()),
            count => Err(format!("{count} of {} packets lost: {:?}", self.sent, self.lost).into()),
        }
    }
}

impl<'s> Probe<'s> {
    /// Starts pings from each of these pods to each other of them, at all their addresses.
    pub fn start(space: &'s Space<'s>, pods: &[&str]) -> Result<Self> {
        let addresses = pods.iter().map(|pod| space.addresses(pod)).collect::<Result<Vec<_>>>()?;
        for (position, pod) in pods.iter().enumerate() {
            let others = addresses.iter().enumerate().filter(|(other, _)| *other != position);
            let targets: Vec<String> = others.flat_map(|(_, all)| all).map(IpAddr::to_string).collect();
            // Each in a session of its own: they go on when the shell that started them has ended.
            let script = format!(
                "for to in {}; do setsid ping -i 0.05 $to </dev/null >/tmp/probe-$to 2>&1 & done",
                targets.join(" ")
            );
            space.exec(pod, &["sh", "-c", &script])?;
        }
        Ok(Self { space, pods: pods.iter().map(|pod| (*pod).to_owned()).collect() })
    }

    /// Ends them and counts.
    pub fn stop(self) -> Result<Losses> {
        let mut losses = Losses::default();
        for pod in &self.pods {
            let output = self.space.exec(pod, &["sh", "-c", STOP])?;
            for report in output.split("TO ").skip(1) {
                let (to, text) = report.split_once('\n').unwrap_or((report, ""));
                let (sent, lost) = count(text)?;
                losses.sent += sent;
                if !lost.is_empty() {
                    losses.lost.push((pod.clone(), to.to_owned(), lost));
                }
            }
        }
        Ok(losses)
    }
}

/// How many packets a ping has sent, and the numbers of those that were not answered; the last one may have been on its
/// way when the ping was ended.
fn count(text: &str) -> Result<(usize, Vec<usize>)> {
    let answered: BTreeSet<usize> =
        text.lines().filter(|line| line.contains("bytes from")).filter_map(sequence_number).collect();
    let sent: usize = text
        .lines()
        .find_map(|line| line.split_once(" packets transmitted")?.0.trim().parse().ok())
        .ok_or_else(|| format!("no summary of a ping in {text:?}"))?;
    // busybox counts from 0, iputils from 1.
    let first = usize::from(!answered.contains(&0));
    let lost = (first..first + sent.saturating_sub(1)).filter(|number| !answered.contains(number));
    Ok((sent, lost.collect()))
}

fn sequence_number(line: &str) -> Option<usize> {
    line.split_once("seq=")?.1.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::count;

    fn ping(numbers: &[usize], sent: usize) -> String {
        let reply = |number| format!("64 bytes from 10.0.0.1: icmp_seq={number} ttl=62 time=0.1 ms\n");
        let mut text: String = numbers.iter().map(reply).collect();
        text.push_str(&format!(
            "\n--- 10.0.0.1 ping statistics ---\n{sent} packets transmitted, x received\n"
        ));
        text
    }

    #[test]
    fn what_is_missing_is_lost() {
        assert_eq!(count(&ping(&[1, 2, 4, 5], 5)).unwrap(), (5, vec![3]));
        assert_eq!(count(&ping(&[3, 4, 5], 5)).unwrap(), (5, vec![1, 2]));
        assert_eq!(count(&ping(&[0, 1, 3], 4)).unwrap(), (4, vec![2]));
    }

    #[test]
    fn the_last_one_may_have_been_on_its_way() {
        assert_eq!(count(&ping(&[1, 2, 3], 4)).unwrap(), (4, vec![]));
        assert_eq!(count(&ping(&[1, 2, 3], 5)).unwrap(), (5, vec![4]));
        assert_eq!(count(&ping(&[0, 1, 2], 4)).unwrap(), (4, vec![]));
        assert_eq!(count(&ping(&[0, 1, 2], 3)).unwrap(), (3, vec![]));
    }

    #[test]
    fn no_answer_at_all_is_all_lost_but_the_last() {
        assert_eq!(count(&ping(&[], 5)).unwrap(), (5, vec![1, 2, 3, 4]));
    }

    #[test]
    fn a_ping_that_did_not_run_is_an_error() {
        assert!(count("ping: not found").is_err());
    }
}
