//! Traffic that goes on while something else happens: every pod pings every other, fifty times a second, and each
//! packet that was not answered is counted.
//!
//! The kernel of each pod counts. A ping that gets no processor for a tenth of a second loses answers that its pod has
//! received (its socket holds about twenty, and every other ping's come by as well); what it wrote only tells which of
//! the packets were lost, where some were.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use crate::cluster::Family;
use crate::process::{Result, pause};
use crate::space::Space;

/// From one packet of a ping to its next.
const INTERVAL: Duration = Duration::from_millis(20);

/// What a pod's kernel has counted of the packets of both families.
const COUNTERS: &str = "cat /proc/net/snmp /proc/net/snmp6 2>/dev/null; true";

/// Traffic before and after what is done, so that a loss at its edges is seen.
const MARGIN: Duration = Duration::from_secs(2);

/// Ends the pings, and shows what each wrote, its summary last. The last answers have their time to arrive. Not `pidof`: in
/// a container whose first process is not init, one that has ended stays as a zombie.
const STOP: &str = "
    killall -INT ping
    for file in /tmp/probe-*; do
        tries=0
        until grep -q 'packets transmitted' $file || [ $((tries += 1)) -gt 100 ]; do sleep 0.1; done
        echo \"TO ${file#/tmp/probe-}\"
        cat $file
    done
    sleep 1";

/// Pings at work.
pub struct Probe<'s> {
    space: &'s Space<'s>,
    /// The pods, and what was counted before.
    pods: Vec<(String, Echoes)>,
}

/// What the kernel of a pod counted since the pod began, of each family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Echoes {
    sent: [usize; 2],
    answered: [usize; 2],
}

/// What came of them.
#[derive(Debug, Default)]
pub struct Losses {
    /// How many packets were sent.
    pub sent: usize,
    /// How many of them were not answered.
    pub count: usize,
    /// Which: from whom, to whom, and their numbers, of which there are fifty in a second. Answers that a ping had no time
    /// for may be among them.
    which: Vec<(String, String, Vec<usize>)>,
}

impl Losses {
    /// For how long one ping of a family had no answer, at most.
    pub fn longest(&self, family: Family) -> Duration {
        let of_family = self.which.iter().filter(|(_, to, _)| family_of(to) == family);
        let most = of_family.map(|(_, _, numbers)| longest_run(numbers)).max().unwrap_or(0);
        INTERVAL.saturating_mul(most.try_into().unwrap_or(u32::MAX))
    }

    /// Fails if any packet was lost.
    pub fn none(&self) -> Result {
        match self.count {
            0 => Ok(()),
            count => Err(format!("{count} of {} packets lost: {:?}", self.sent, self.which).into()),
        }
    }

    /// Takes in a pod: what its kernel counted before and after, and what its pings wrote.
    fn add(&mut self, pod: &str, before: Echoes, after: Echoes, reports: &str) -> Result {
        for (index, family) in [Family::V4, Family::V6].into_iter().enumerate() {
            let sent = after.sent[index] - before.sent[index];
            let lost = sent.saturating_sub(after.answered[index] - before.answered[index]);
            self.sent += sent;
            self.count += lost;
            if lost == 0 {
                continue;
            }
            for report in reports.split("TO ").skip(1) {
                let (to, text) = report.split_once('\n').unwrap_or((report, ""));
                let numbers = unanswered(text)?;
                if family_of(to) == family && !numbers.is_empty() {
                    self.which.push((pod.to_owned(), to.to_owned(), numbers));
                }
            }
        }
        Ok(())
    }
}

impl fmt::Display for Losses {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} of {} packets lost", self.count, self.sent)?;
        for (family, name) in [(Family::V4, "IPv4"), (Family::V6, "IPv6")] {
            match self.longest(family).as_millis() {
                0 => {}
                longest => write!(formatter, ", {longest} ms in a row of {name}")?,
            }
        }
        Ok(())
    }
}

/// What came of something that was done while these pods pinged each other, and what was lost meanwhile, which is noted.
pub fn during<T>(space: &Space<'_>, pods: &[String], act: impl FnOnce() -> Result<T>) -> Result<(T, Losses)> {
    let probe = Probe::start(space, pods)?;
    pause(MARGIN);
    let done = act();
    pause(MARGIN);
    let losses = probe.stop();
    let (done, losses) = (done?, losses?);
    space.note(losses.to_string());
    Ok((done, losses))
}

impl<'s> Probe<'s> {
    /// Starts pings from each of these pods to each other of them, at all their addresses.
    pub fn start(space: &'s Space<'s>, pods: &[String]) -> Result<Self> {
        let addresses = pods.iter().map(|pod| space.addresses(pod)).collect::<Result<Vec<_>>>()?;
        let mut begun = Vec::new();
        for (position, pod) in pods.iter().enumerate() {
            begun.push((pod.clone(), Echoes::read(&space.exec(pod, &["sh", "-c", COUNTERS])?)?));
            let others = addresses.iter().enumerate().filter(|(other, _)| *other != position);
            let targets: Vec<String> = others.flat_map(|(_, all)| all).map(IpAddr::to_string).collect();
            // Each in a session of its own: they go on when the shell that started them has ended.
            let script = format!(
                "for to in {}; do setsid ping -i {} $to </dev/null >/tmp/probe-$to 2>&1 & done",
                targets.join(" "),
                INTERVAL.as_secs_f64(),
            );
            space.exec(pod, &["sh", "-c", &script])?;
        }
        Ok(Self { space, pods: begun })
    }

    /// Ends them and counts.
    pub fn stop(self) -> Result<Losses> {
        let mut losses = Losses::default();
        for (pod, before) in &self.pods {
            let reports = self.space.exec(pod, &["sh", "-c", STOP])?;
            let after = Echoes::read(&self.space.exec(pod, &["sh", "-c", COUNTERS])?)?;
            losses.add(pod, *before, after, &reports)?;
        }
        Ok(losses)
    }
}

impl Echoes {
    /// Reads /proc/net/snmp, with a line of names and one of values for each protocol, and /proc/net/snmp6, with a name
    /// and a value in each line; a node may be without IPv6.
    fn read(text: &str) -> Result<Self> {
        let lines = || text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let mut icmp = lines().filter(|words| words.first() == Some(&"Icmp:"));
        let (names, values) = icmp.next().zip(icmp.next()).ok_or_else(|| format!("no ICMP in {text:?}"))?;
        let of_v4 = |name: &str| {
            let place = names.iter().position(|it| *it == name)?;
            values.get(place)?.parse().ok()
        };
        let of_v6 = |name: &str| {
            let line = lines().find(|words| words.first() == Some(&name));
            line.and_then(|words| words.get(1)?.parse().ok()).unwrap_or(0)
        };
        let (sent, answered) =
            of_v4("OutEchos").zip(of_v4("InEchoReps")).ok_or("the kernel counts no echoes")?;
        Ok(Self { sent: [sent, of_v6("Icmp6OutEchos")], answered: [answered, of_v6("Icmp6InEchoReplies")] })
    }
}

fn family_of(address: &str) -> Family {
    if address.contains(':') { Family::V6 } else { Family::V4 }
}

/// The numbers of a ping's packets that were not answered.
fn unanswered(text: &str) -> Result<Vec<usize>> {
    let answered: BTreeSet<usize> =
        text.lines().filter(|line| line.contains("bytes from")).filter_map(sequence_number).collect();
    let sent: usize = text
        .lines()
        .find_map(|line| line.split_once(" packets transmitted")?.0.trim().parse().ok())
        .ok_or_else(|| format!("no summary of a ping in {text:?}"))?;
    // busybox counts from 0, iputils from 1.
    let first = usize::from(!answered.contains(&0));
    Ok((first..first + sent).filter(|number| !answered.contains(number)).collect())
}

/// How many of these numbers, which are sorted, follow each other without a gap, at most.
fn longest_run(numbers: &[usize]) -> usize {
    numbers.chunk_by(|number, next| number + 1 == *next).map(<[usize]>::len).max().unwrap_or(0)
}

fn sequence_number(line: &str) -> Option<usize> {
    line.split_once("seq=")?.1.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ping(numbers: impl IntoIterator<Item = usize>, sent: usize) -> String {
        let reply = |number| format!("64 bytes from 10.0.0.1: icmp_seq={number} ttl=62 time=0.1 ms\n");
        let mut text: String = numbers.into_iter().map(reply).collect();
        text.push_str(&format!(
            "\n--- 10.0.0.1 ping statistics ---\n{sent} packets transmitted, x received\n"
        ));
        text
    }

    fn counters(v4: (usize, usize), v6: (usize, usize)) -> Echoes {
        Echoes { sent: [v4.0, v6.0], answered: [v4.1, v6.1] }
    }

    #[test]
    fn what_a_ping_has_no_answer_to_is_told_by_number() {
        let but = |lost: &'static [usize]| (1..=50).filter(move |number| !lost.contains(number));
        assert_eq!(unanswered(&ping(but(&[3, 7, 8]), 50)).unwrap(), [3, 7, 8]);
        assert_eq!(unanswered(&ping(but(&[1, 50]), 50)).unwrap(), [1, 50]);
        // busybox counts from 0.
        assert_eq!(unanswered(&ping((0..50).filter(|number| *number != 2), 50)).unwrap(), [2]);
        assert_eq!(unanswered(&ping([], 3)).unwrap(), [1, 2, 3]);
    }

    #[test]
    fn a_ping_that_did_not_run_is_an_error() {
        let report = "TO 10.0.0.1\nping: not found";
        assert!(
            Losses::default().add("a", counters((0, 0), (0, 0)), counters((2, 0), (0, 0)), report).is_err()
        );
    }

    #[test]
    fn the_kernel_says_how_many_were_lost_and_the_ping_which() {
        let reports = format!(
            "TO 10.0.0.1\n{}TO fd00::1\n{}",
            ping([1, 2, 3, 6, 7, 9, 10], 10),
            ping([1, 2, 3, 4, 5, 6, 8, 10], 10)
        );
        let mut losses = Losses::default();
        losses.add("a", counters((5, 5), (8, 7)), counters((15, 12), (18, 17)), &reports).unwrap();
        // That of IPv6 had no time for the answers: its kernel has them all.
        assert_eq!((losses.sent, losses.count), (20, 3));
        assert_eq!(losses.which, [("a".to_owned(), "10.0.0.1".to_owned(), vec![4, 5, 8])]);
        assert_eq!(losses.longest(Family::V4), Duration::from_millis(40));
        assert_eq!(losses.to_string(), "3 of 20 packets lost, 40 ms in a row of IPv4");
        assert!(losses.none().is_err() && Losses::default().none().is_ok());
    }

    #[test]
    fn counters_are_found_by_their_names() {
        let text = "Ip: Forwarding DefaultTTL\nIp: 1 64\n\
                    Icmp: InMsgs InEchos InEchoReps OutMsgs OutEchos OutEchoReps\nIcmp: 9 1 2 9 3 4\n\
                    IcmpMsg: InType0 OutType8\nIcmpMsg: 2 3\n";
        assert_eq!(Echoes::read(text).unwrap(), counters((3, 2), (0, 0)));
        let v6 = "Icmp6InEchoReplies              \t7\nIcmp6OutEchos                   \t8\n";
        assert_eq!(Echoes::read(&format!("{text}{v6}")).unwrap(), counters((3, 2), (8, 7)));
        assert!(Echoes::read(v6).is_err());
    }
}
