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
    /// Which were not answered: from whom, to whom, and how many.
    pub lost: Vec<(String, String, usize)>,
}

impl Losses {
    /// How many packets were not answered.
    pub fn count(&self) -> usize {
        self.lost.iter().map(|(_, _, count)| count).sum()
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
                if lost > 0 {
                    losses.lost.push((pod.clone(), to.to_owned(), lost));
                }
            }
        }
        Ok(losses)
    }
}

/// How many packets a ping has sent, and how many of them were not answered; one more may have been on its way when
/// the ping was ended.
fn count(text: &str) -> Result<(usize, usize)> {
    let numbers: BTreeSet<usize> =
        text.lines().filter(|line| line.contains("bytes from")).filter_map(sequence_number).collect();
    let sent: usize = text
        .lines()
        .find_map(|line| line.split_once(" packets transmitted")?.0.trim().parse().ok())
        .ok_or_else(|| format!("no summary of a ping in {text:?}"))?;
    let first = numbers.first().copied().unwrap_or_default();
    let last = numbers.last().copied().unwrap_or_default();
    // iputils counts from 1, busybox from 0.
    let on_its_way = usize::from(last + 1 == first.min(1) + sent.saturating_sub(1));
    Ok((sent, sent.saturating_sub(numbers.len() + on_its_way)))
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
    fn what_is_missing_between_is_lost() {
        assert_eq!(count(&ping(&[1, 2, 4, 5], 5)).unwrap(), (5, 1));
        assert_eq!(count(&ping(&[3, 4, 5], 5)).unwrap(), (5, 2));
    }

    #[test]
    fn the_last_one_may_have_been_on_its_way() {
        assert_eq!(count(&ping(&[1, 2, 3], 4)).unwrap(), (4, 0));
        assert_eq!(count(&ping(&[1, 2, 3], 5)).unwrap(), (5, 2));
        assert_eq!(count(&ping(&[0, 1, 2], 4)).unwrap(), (4, 0));
        assert_eq!(count(&ping(&[0, 1, 2], 3)).unwrap(), (3, 0));
    }

    #[test]
    fn no_answer_at_all_is_all_lost() {
        assert_eq!(count(&ping(&[], 5)).unwrap(), (5, 5));
    }

    #[test]
    fn a_ping_that_did_not_run_is_an_error() {
        assert!(count("ping: not found").is_err());
    }
}
