//! What goes on beside the callers: a GC every second, and a vandal.

use crate::Failure;
use crate::call::{Blow, Call, Outcome, Verb};
use crate::random::Random;
use crate::soak::Soak;
use kit::process::output;
use serde_json::Value;
use std::time::Duration;

/// What a vandal does to the node, one of them at a time. The next ADD has to repair it; a rule that is removed elsewhere
/// in the table than in `antispoof` is for the agent and `ferrulectl sync` to find.
const VANDALISM: [&str; 9] = [
    "nft flush ruleset",
    "nft delete table inet ferrule",
    "nft flush table inet ferrule",
    "nft flush chain inet ferrule antispoof",
    "ip -4 route del 10.244.1.0/24 proto 102",
    "ip -6 route del fd00:244:0:2::/64 proto 102",
    "ip route del unreachable 10.244.0.0/24 proto 102",
    "ip -4 route flush proto 102 via 192.168.0.4",
    "sysctl --quiet --write net.ipv4.ip_forward=0",
];

/// Collects garbage every second, one time in four with a list that leaves out what is being attached.
pub fn collect(soak: &Soak) {
    let mut random = Random::new(soak.seed, 1 << 32);
    while !soak.end.wait(Duration::from_secs(1)) {
        let _turn = soak.take_turn();
        let is_careful = !random.one_in(4);
        let blow = random.one_in(20).then(|| Blow::Kill(Duration::from_micros(random.below(50_000))));
        soak.expect(collect_once(soak, is_careful, blow));
    }
}

/// One GC.
pub fn collect_once(soak: &Soak, is_careful: bool, blow: Option<Blow>) -> Result<(), Failure> {
    let mut conf = soak.node.conf.clone();
    conf["cni.dev/valid-attachments"] = soak.runtime.begin_collection(is_careful);
    let call = Call { verb: Verb::Gc, attachment: None, conf, blow, is_weighed: false };
    let ended = soak.run(&call);
    soak.runtime.end_collection();
    match ended?.outcome {
        Outcome::Success(Value::Null) | Outcome::Killed => Ok(()),
        other => Err(format!("GC: {other}").into()),
    }
}

/// Breaks something now and then.
pub fn vandalise(soak: &Soak) {
    let mut random = Random::new(soak.seed, 2 << 32);
    while !soak.end.wait(Duration::from_millis(500 + random.below(2_000))) {
        let _turn = soak.take_turn();
        let deed = VANDALISM[random.place(VANDALISM.len())];
        let mut words = deed.split(' ');
        let program = words.next().unwrap_or_default();
        // What is broken already cannot be broken once more.
        if output(program, &words.collect::<Vec<_>>()).is_ok() {
            soak.tally.count_broken();
            soak.note(deed);
        }
    }
}
