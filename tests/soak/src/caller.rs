//! One of the callers: a runtime's worker that attaches pods, looks at them, loses them, and detaches them.
//!
//! What may go wrong is what was done to the call: one that was killed may have done all, nothing or a part; an ADD
//! whose namespace went away may fail, and a CHECK may find what a vandal did. All else has to succeed.

use crate::Failure;
use crate::call::{Blow, Call, Ended, Outcome, Verb, attachment};
use crate::random::Random;
use crate::runtime::Pod;
use crate::soak::Soak;
use crate::system::remove_namespace;
use serde_json::{Value, json};
use std::time::Duration;

/// Pods of one caller. Of 32 callers, with those that died and are not collected yet, they nearly fill the range.
const PODS: usize = 6;

/// hostPorts of one caller, used in turns: when the first comes again, the pod that had it is long gone.
const PORTS: u64 = 100;
const FIRST_PORT: u64 = 10_000;

/// Codes of the protocol.
const TAKEN: u64 = 101;
const NETNS_UNUSABLE: u64 = 102;
const REFUSED: u64 = 103;
const DIFFERENCES: u64 = 105;

/// A caller and its pods.
pub struct Caller<'a> {
    soak: &'a Soak,
    number: u64,
    random: Random,
    pods: Vec<Pod>,
    made: u64,
}

impl<'a> Caller<'a> {
    /// The one of that number.
    pub fn new(soak: &'a Soak, number: u64) -> Self {
        Self { soak, number, random: Random::new(soak.seed, number), pods: Vec::new(), made: 0 }
    }

    /// Does one thing after another until the end is near.
    pub fn work(&mut self) {
        while !self.soak.end.is_near() {
            let _turn = self.soak.take_turn();
            let done = self.do_something();
            self.soak.expect(done);
        }
    }

    fn do_something(&mut self) -> Result<(), Failure> {
        if self.pods.is_empty() {
            return self.add();
        }
        let place = self.random.place(self.pods.len());
        match self.random.below(20) {
            0..9 if self.pods.len() < PODS => self.add(),
            0..14 => {
                let pod = self.pods.swap_remove(place);
                self.del(pod)
            }
            14..17 => self.check(place),
            17 => self.status(),
            18 => self.add_again(place),
            _ => self.lose_namespace(place),
        }
    }

    fn add(&mut self) -> Result<(), Failure> {
        let netns = self.soak.namespaces.take()?;
        let id = self.soak.runtime.begin();
        let mut pod = Pod { id, netns, has_namespace: true, wishes: self.wishes(), result: Value::Null };
        let blow = match self.blow() {
            None if self.random.one_in(50) => Some(Blow::Bereave(self.moment(), pod.netns.clone())),
            other => other,
        };
        let ended = self.call(Verb::Add, &pod, blow.clone())?;
        if let Some(Blow::Bereave(..)) = blow {
            pod.has_namespace = false;
            self.soak.tally.count_bereaved();
        }
        match ended.outcome {
            Outcome::Success(result) => self.keep(Pod { result, ..pod }),
            Outcome::Killed => self.after_killed_add(pod),
            Outcome::Error(NETNS_UNUSABLE | REFUSED, _) if !pod.has_namespace => self.del(pod),
            Outcome::Error(_, said) => Err(format!("ADD of {}: {said}", pod.id).into()),
        }
    }

    /// Remembers a pod that stands. One that a GC may have overlooked, and removed, has to go.
    fn keep(&mut self, pod: Pod) -> Result<(), Failure> {
        if self.soak.runtime.stands(&pod) {
            return self.del(pod);
        }
        self.pods.push(pod);
        Ok(())
    }

    /// The runtime tries again, or takes it back, or has died as well and knows of nothing.
    fn after_killed_add(&mut self, pod: Pod) -> Result<(), Failure> {
        match self.random.below(3) {
            0 => match self.call(Verb::Add, &pod, None)?.outcome {
                Outcome::Success(result) => self.keep(Pod { result, ..pod }),
                // Killed between its last step and its exit code: it stands.
                Outcome::Error(TAKEN, said) if said.contains("attached already") => self.del(pod),
                other => Err(format!("second ADD of {} after a killed one: {other}", pod.id).into()),
            },
            1 => self.del(pod),
            _ => self.abandon(&pod),
        }
    }

    fn del(&mut self, pod: Pod) -> Result<(), Failure> {
        self.soak.runtime.forget(&pod.id);
        loop {
            let blow = self.blow();
            match self.call(Verb::Del, &pod, blow)?.outcome {
                Outcome::Success(Value::Null) if self.random.one_in(20) => {}
                Outcome::Success(Value::Null) => break,
                Outcome::Killed if self.random.one_in(2) => break,
                Outcome::Killed => {}
                other => return Err(format!("DEL of {}: {other}", pod.id).into()),
            }
        }
        self.abandon(&pod)
    }

    /// Nobody tells of the pod any more: what is left of it is for GC.
    fn abandon(&self, pod: &Pod) -> Result<(), Failure> {
        self.soak.runtime.forget(&pod.id);
        if pod.has_namespace { remove_namespace(&pod.netns) } else { Ok(()) }
    }

    fn check(&mut self, place: usize) -> Result<(), Failure> {
        let Some(pod) = self.pods.get(place).cloned() else { return Ok(()) };
        let blow = self.blow();
        match self.call(Verb::Check, &pod, blow)?.outcome {
            Outcome::Success(Value::Null) if pod.has_namespace => Ok(()),
            Outcome::Error(DIFFERENCES | NETNS_UNUSABLE, _) if !pod.has_namespace => Ok(()),
            Outcome::Killed | Outcome::Error(DIFFERENCES, _) => Ok(()),
            other => Err(format!("CHECK of {}: {other}", pod.id).into()),
        }
    }

    fn status(&mut self) -> Result<(), Failure> {
        let blow = self.blow();
        let conf = self.soak.node.conf.clone();
        let call = Call { verb: Verb::Status, attachment: None, conf, blow, is_weighed: false };
        match self.soak.run(&call)?.outcome {
            Outcome::Success(Value::Null) | Outcome::Killed => Ok(()),
            other => Err(format!("STATUS: {other}").into()),
        }
    }

    /// A runtime that has lost its memory. A pod that stands is none of a second ADD's.
    fn add_again(&mut self, place: usize) -> Result<(), Failure> {
        let Some(pod) = self.pods.get(place).filter(|pod| pod.has_namespace).cloned() else { return Ok(()) };
        match self.call(Verb::Add, &pod, None)?.outcome {
            Outcome::Error(TAKEN, _) => Ok(()),
            other => Err(format!("second ADD of {}, which stands: {other}", pod.id).into()),
        }
    }

    /// The pod's namespace is removed while a CHECK looks at it, and nobody tells.
    fn lose_namespace(&mut self, place: usize) -> Result<(), Failure> {
        let moment = self.moment();
        let Some(pod) = self.pods.get_mut(place).filter(|pod| pod.has_namespace) else { return Ok(()) };
        pod.has_namespace = false;
        let pod = pod.clone();
        self.call(Verb::Check, &pod, Some(Blow::Bereave(moment, pod.netns.clone())))?;
        self.soak.runtime.lost_namespace(&pod.id);
        self.soak.tally.count_bereaved();
        Ok(())
    }

    fn call(&mut self, verb: Verb, pod: &Pod, blow: Option<Blow>) -> Result<Ended, Failure> {
        let conf = self.soak.node.conf_for(pod);
        let is_weighed = blow.is_none() && self.random.one_in(16);
        let call = Call { verb, attachment: attachment(&pod.id, &pod.netns), conf, blow, is_weighed };
        self.soak.run(&call)
    }

    /// One call in a hundred is killed.
    fn blow(&mut self) -> Option<Blow> {
        self.random.one_in(100).then(|| Blow::Kill(self.moment()))
    }

    /// Most steps of a call lie in its first 8 ms if it is alone, and much later among 32.
    fn moment(&mut self) -> Duration {
        let span = if self.random.one_in(2) { 8_000 } else { 120_000 };
        Duration::from_micros(self.random.below(span))
    }

    /// A third of the pods with a hostPort, a fifth with limits of bandwidth.
    fn wishes(&mut self) -> Value {
        self.made += 1;
        let mut wishes = json!({});
        if self.random.one_in(3) {
            let port = FIRST_PORT + self.number * PORTS + self.made % PORTS;
            let protocol = if self.random.one_in(2) { "tcp" } else { "udp" };
            wishes["portMappings"] = json!([{ "hostPort": port, "containerPort": 80, "protocol": protocol }]);
        }
        if self.random.one_in(5) {
            wishes["bandwidth"] = json!({
                "ingressRate": 8_000_000, "ingressBurst": 80_000, "egressRate": 8_000_000, "egressBurst": 80_000
            });
        }
        wishes
    }
}
