//! A new pod's first second. The documentation of Kubernetes demands that a pod is isolated before it is started; many
//! networks come later than that.

use std::time::{Duration, Instant};

use serde_json::json;

use super::STARTS;
use super::manifest::{Policy, pods};
use super::ways::Ways;
use crate::cluster::Node;
use crate::ensure;
use crate::fetch::url;
use crate::pod::{HTTP, Pod};
use crate::process::{Result, eventually, seconds};
use crate::space::Space;

/// How many at once.
const PODS: usize = 40;

/// Where on its node a new pod leaves its addresses and what came of its tries, and the stranger what came of its own.
const WORD: &str = "/run/first-second";

/// Shell: the program of a new pod, from its first instruction on. `FORBIDDEN` and `ALLOWED` are URLs. What is forbidden
/// is tried for two seconds, all of it at the same time, ten tries a second; a line of the result for each try. Its server
/// starts beside it. Each curl has a file of its own: it writes its lines letter by letter, and those of two would be mixed.
const NEWCOMER: &str = r#"
    ip -o address show dev eth0 scope global >/word/.$HOSTNAME && mv /word/.$HOSTNAME /word/$HOSTNAME.addresses
    /agnhost netexec --http-port=8080 --udp-port=-1 >/dev/null 2>&1 &
    ask() {
        curl --silent --output /dev/null --rate 10/s --connect-timeout 0.3 --header 'Connection: close' \
            --write-out "%{stderr}$1 %{http_code}\n" "$2?[1-20]" 2>/tmp/result.$3
    }
    number=0
    try() {
        number=$((number + 1))
        ask $1 $2 $number & tries="$tries $!"
    }
    for url in $FORBIDDEN; do try forbidden $url; done
    for url in $ALLOWED; do try allowed $url; done
    wait $tries
    cat /tmp/result.* >/word/.$HOSTNAME.result && mv /word/.$HOSTNAME.result /word/$HOSTNAME.result
    exec /agnhost pause"#;

/// Shell: the program of a pod that nobody lets in: as soon as a new pod of its node has written down its addresses, it
/// connects there, ten times a second for two seconds.
const STRANGER: &str = r#"
    ask() {
        while read -r number link family address rest; do
            address=${address%/*} result=/word/stranger.$name.$family
            case $address in *:*) address="[$address]" ;; esac
            curl --silent --output /dev/null --rate 10/s --connect-timeout 0.3 --header 'Connection: close' \
                --write-out "%{stderr}$name %{http_code}\n" "http://$address:8080/hostname?[1-20]" 2>$result &
        done <$1
    }
    seen=
    while true; do
        for file in /word/*.addresses; do
            case " $seen " in *" $file "*) continue ;; esac
            [ -e "$file" ] || continue
            seen="$seen $file" name=${file#/word/} name=${name%.addresses}
            ask "$file"
        done
        sleep 0.02
    done"#;

/// Forty at once on two nodes: what they may not reach they never reach, and who may not reach them never does, from their
/// first instruction on. How often they were refused what they may do is told.
pub fn new_pods_are_isolated_from_their_first_packet_on(space: &Space<'_>) -> Result {
    let nodes = [space.worker(0)?, space.worker(1)?];
    let outcome = run(space, nodes);
    for node in nodes {
        node.run(&["rm", "-rf", WORD])?;
    }
    outcome
}

fn run(space: &Space<'_>, nodes: [&Node; 2]) -> Result {
    for node in nodes {
        node.run(&["rm", "-rf", WORD])?;
    }
    let agnhost = &space.agnhost;
    let friend = Pod::running("friend", agnhost, &["pause"]).labelled("role", "friend");
    let strangers = nodes
        .iter()
        .zip(["stranger-0", "stranger-1"])
        .map(|(node, name)| with_word(Pod::running(name, agnhost, &["-c", STRANGER]).on(node)).manifest());
    space.create([
        Pod::server("forbidden", agnhost).on(nodes[0]).manifest(),
        Pod::server("allowed", agnhost).on(nodes[1]).manifest(),
        friend.on(nodes[1]).manifest(),
        Policy::of("new", json!({ "app": "new" }))
            .ingress(json!({ "from": [pods(&json!({ "role": "friend" }))] }))
            .egress(json!({ "to": [pods(&json!({ "app": "allowed" }))] }))
            .manifest(),
    ])?;
    space.create(strangers)?;
    space.all_ready(STARTS)?;
    // What is not there cannot be reached: the server that is forbidden serves.
    Ways::among(&[space])?.open("friend", "forbidden", HTTP).open("friend", "allowed", HTTP).hold()?;

    let urls = |pod: &str| -> Result<String> {
        let all = space.addresses(pod)?.into_iter().map(|address| url(address, HTTP, "hostname"));
        Ok(all.collect::<Vec<_>>().join(" "))
    };
    let environment = json!([
        { "name": "FORBIDDEN", "value": urls("forbidden")? },
        { "name": "ALLOWED", "value": urls("allowed")? },
    ]);
    let start = Instant::now();
    space.create((0..PODS).map(|number| {
        let pod = Pod::running(&format!("new-{number}"), agnhost, &["-c", NEWCOMER]).labelled("app", "new");
        let pod = with_word(pod.on(nodes[number % 2]));
        pod.with("/spec/containers/0/env", environment.clone()).manifest()
    }))?;
    let results = eventually("all have tried", Duration::from_secs(150), || {
        let (mut all, mut ended) = (String::new(), 0);
        for node in nodes {
            let count = node.shell(&format!("ls {WORD}/*.result 2>/dev/null | wc -l"))?;
            ended += count.trim().parse::<usize>().unwrap_or(0);
            all.push_str(&node.shell(&format!("cat {WORD}/*.result 2>/dev/null; true"))?);
        }
        ensure!(ended == PODS, "{ended} of {PODS}");
        Ok(all)
    })?;
    space.all_ready(STARTS)?;
    space.note(format!("{PODS} pods in {}", seconds(start.elapsed())));
    // The pods' servers serve whom they may, so that the stranger's tries were such.
    let names: Vec<String> = (0..PODS).map(|number| format!("new-{number}")).collect();
    let ways = names.iter().fold(Ways::among(&[space])?, |ways, name| ways.open("friend", name, HTTP));
    ways.hold()?;
    let mut strangers = String::new();
    for node in nodes {
        strangers.push_str(&node.shell(&format!("cat {WORD}/stranger.*"))?);
    }
    judge(space, &results, &strangers)
}

/// A pod with a shell and with that directory of its node.
fn with_word(pod: Pod) -> Pod {
    let volume = json!([{ "name": "word", "hostPath": { "path": WORD, "type": "DirectoryOrCreate" } }]);
    pod.with("/spec/containers/0/command", json!(["sh"]))
        .with("/spec/volumes", volume)
        .with("/spec/containers/0/volumeMounts", json!([{ "name": "word", "mountPath": "/word" }]))
}

/// How many of the tries of a kind there were, and how many were answered, where each line is `WHAT CODE`; 000 stands for no
/// answer.
fn count(text: &str, begin: &str) -> Result<(usize, usize)> {
    let (mut tried, mut answered) = (0, 0);
    for line in text.lines().filter(|line| line.starts_with(begin)) {
        match line.split_once(' ') {
            Some((_, "000")) => {}
            Some((_, "200")) => answered += 1,
            _ => return Err(format!("no result of a try: {line:?}").into()),
        }
        tried += 1;
    }
    Ok((tried, answered))
}

fn judge(space: &Space<'_>, results: &str, strangers: &str) -> Result {
    let (tried, passed) = count(results, "forbidden ")?;
    let (asked, answered) = count(results, "allowed ")?;
    let (knocked, entered) = count(strangers, "new-")?;
    space.note(format!(
        "out: {passed} of {tried} forbidden passed, {} of {asked} allowed refused",
        asked - answered
    ));
    space.note(format!("in: {entered} of {knocked} forbidden passed"));
    ensure!(passed == 0 && entered == 0, "forbidden connections were made");
    // Twenty a family each. A stranger's last ones may be to come.
    let all = PODS * 20 * space.families.len();
    ensure!(tried == all && knocked >= all / 2, "too few were tried: nothing was tested");
    ensure!(answered > asked / 2, "most of what is allowed was refused");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{NEWCOMER, STRANGER, count};
    use crate::pod::HTTP;

    #[test]
    fn a_line_that_is_no_result_is_an_error() {
        let text = "forbidden 000\nallowed 200\nforbidden 200\nforbidden 000\n";
        assert_eq!(count(text, "forbidden ").expect("results"), (3, 1));
        assert_eq!(count(text, "allowed ").expect("results"), (1, 1));
        assert!(count("forbidden allowed 200\n 000\n", "forbidden ").is_err(), "two that were mixed");
    }

    #[test]
    fn the_programs_are_shell_and_know_the_port() {
        for script in [NEWCOMER, STRANGER] {
            kit::process::expect("sh", &["-n", "-c", script]);
            assert!(script.contains(&HTTP.to_string()));
        }
    }
}
