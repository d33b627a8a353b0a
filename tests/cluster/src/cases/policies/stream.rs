//! New connections that go on while something else happens, some that a policy allows and some that it forbids. Both ways
//! to be wrong are counted: refused though allowed, let through though forbidden.
//!
//! What is forbidden is tried by TCP, and by a ping a hundred times a second: none of its packets belongs to a flow as long as
//! none is let through, so each is judged.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use crate::fetch::url;
use crate::pod::HTTP;
use crate::process::{Result, pause};
use crate::space::Space;

/// Before and after what is done, so that what goes wrong at its edges is seen.
const MARGIN: Duration = Duration::from_secs(1);

/// Shell: the last tries end, then each file's lines are counted by what they say. curl writes without delay to standard
/// error only; 000 stands for no answer.
const STOP: &str = "
    killall -INT ping; sleep 0.5; killall curl
    cat /tmp/stream-open-* 2>/dev/null | sort | uniq -c | sed 's/^/OPEN/'
    cat /tmp/stream-shut-* 2>/dev/null | sort | uniq -c | sed 's/^/SHUT/'
    echo \"PASSED $(cat /tmp/stream-ping-* 2>/dev/null | grep -c 'bytes from')\"
    cat /tmp/stream-ping-* 2>/dev/null | sed -n 's/ packets transmitted.*//p' | sed 's/^/PINGS /'
    rm -f /tmp/stream-*";

/// Where connections come from and go to.
pub struct Lane<'s> {
    /// Whose namespace the client is in.
    pub space: &'s Space<'s>,
    /// The pod that connects.
    pub client: String,
    /// Where it may, over HTTP.
    pub open: Vec<IpAddr>,
    /// Where it may not.
    pub shut: Vec<IpAddr>,
}

/// What came of them.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Wrongs {
    /// How many allowed connections were tried.
    pub allowed: usize,
    /// How many of them were not made.
    pub refused: usize,
    /// How many forbidden connections and pings were tried.
    pub forbidden: usize,
    /// How many of them were let through.
    pub passed: usize,
}

impl fmt::Display for Wrongs {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { allowed, refused, forbidden, passed } = self;
        write!(
            formatter,
            "{refused} of {allowed} allowed were refused, {passed} of {forbidden} forbidden passed"
        )
    }
}

impl Wrongs {
    /// Fails if anything went wrong, or if nothing was tried.
    pub fn none(&self) -> Result {
        match self {
            Self { refused: 0, passed: 0, allowed: 1.., forbidden: 1.. } => Ok(()),
            wrongs => Err(wrongs.to_string().into()),
        }
    }

    /// Takes in what one client counted.
    fn add(&mut self, report: &str) {
        for line in report.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let number =
                |place: usize| words.get(place).and_then(|word| word.parse::<usize>().ok()).unwrap_or(0);
            match words.first().copied() {
                Some("OPEN") => {
                    self.allowed += number(1);
                    self.refused += if number(2) == 200 { 0 } else { number(1) };
                }
                Some("SHUT") => {
                    self.forbidden += number(1);
                    self.passed += if number(2) == 0 { 0 } else { number(1) };
                }
                Some("PASSED") => self.passed += number(1),
                Some("PINGS") => self.forbidden += number(1),
                _ => {}
            }
        }
    }
}

/// What came of something that was done while these connected, and what went wrong meanwhile, which is noted.
pub fn during<T>(
    space: &Space<'_>,
    lanes: &[Lane<'_>],
    act: impl FnOnce() -> Result<T>,
) -> Result<(T, Wrongs)> {
    lanes.iter().try_for_each(Lane::start)?;
    pause(MARGIN);
    let done = act();
    pause(MARGIN);
    let mut wrongs = Wrongs::default();
    let stopped = lanes.iter().try_for_each(|lane| {
        wrongs.add(&lane.space.exec(&lane.client, &["sh", "-c", STOP])?);
        Result::Ok(())
    });
    let done = done.map_err(|failure| format!("{failure}\n{wrongs}"))?;
    stopped?;
    space.note(wrongs.to_string());
    Ok((done, wrongs))
}

impl Lane<'_> {
    /// Each in a session of its own: they go on when the shell that started them has ended.
    fn start(&self) -> Result {
        let fetch = |address: &IpAddr, kind: &str, options: &str| {
            format!(
                "setsid curl --silent --output /dev/null --header 'Connection: close' {options} \
                 --write-out '%{{stderr}}%{{http_code}}\\n' '{}?[1-1000000]' </dev/null >/dev/null \
                 2>/tmp/stream-{kind}-{address} &",
                url(*address, HTTP, "hostname")
            )
        };
        let open =
            self.open.iter().map(|it| fetch(it, "open", "--rate 20/s --connect-timeout 1 --max-time 3"));
        let shut = self.shut.iter().map(|it| fetch(it, "shut", "--rate 10/s --connect-timeout 0.2"));
        let pings = self
            .shut
            .iter()
            .map(|it| format!("setsid ping -i 0.01 {it} </dev/null >/tmp/stream-ping-{it} 2>/dev/null &"));
        let script: Vec<String> = open.chain(shut).chain(pings).collect();
        self.space.exec(&self.client, &["sh", "-c", &script.join("\n")]).map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::Wrongs;

    #[test]
    fn both_ways_to_be_wrong_are_counted() {
        let mut wrongs = Wrongs::default();
        wrongs.add("OPEN   120 200\nOPEN      2 000\nSHUT     40 000\nPASSED 0\nPINGS 300\nPINGS 200\n");
        assert_eq!(wrongs, Wrongs { allowed: 122, refused: 2, forbidden: 540, passed: 0 });
        assert!(wrongs.none().is_err());
        let mut wrongs = Wrongs::default();
        wrongs.add("OPEN   120 200\nSHUT     40 000\nSHUT      1 200\nPASSED 7\nPINGS 300");
        assert_eq!(wrongs, Wrongs { allowed: 120, refused: 0, forbidden: 341, passed: 8 });
        assert!(wrongs.none().is_err());
    }

    #[test]
    fn all_is_well_only_if_something_was_tried() {
        assert!(Wrongs::default().none().is_err());
        assert!(Wrongs { allowed: 1, refused: 0, forbidden: 1, passed: 0 }.none().is_ok());
    }
}
