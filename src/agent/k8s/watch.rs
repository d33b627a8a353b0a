//! Follows the objects of one kind and sends what matters of them.
//!
//! The objects are read into types with the few fields that are needed ([`Watched`]). The first list is streamed where the
//! server can do that, object by object; else it is read in pages. Either way it is never in memory as a whole.

use std::fmt::Debug;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use kube::api::{ListParams, WatchParams};
use kube::{Api, Client};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tracing::debug;

use crate::agent::cluster::index::NodeEvent;
use crate::agent::k8s::source::{Failure, Said, Source};
use crate::agent::k8s::watched_node::WatchedNode;
use crate::agent::surroundings::ApiServer;
use crate::policy::object::Feed;

/// Objects per page of a list. A page is in memory as a whole.
const PAGE: u32 = 50;

/// Bounds of a watch's duration: at its end it is started again, with another server if there is one. Whether the peer
/// lives is asked meanwhile (`client`).
const WATCH: Range<u32> = 300..600;

/// By how much the first list is delayed at most, per node that is known from disk, and in all: a rollout starts the
/// agents of many nodes at once.
const DELAY_PER_NODE: Duration = Duration::from_millis(2);
const LONGEST_DELAY: Duration = Duration::from_secs(30);

/// After so many streamed lists that did not end, lists are read in pages.
const UNFINISHED: u32 = 2;

/// First pause after a failure; each further one is twice as long.
const FIRST: Duration = Duration::from_millis(250);

/// Longest pause until the first list is complete: this node waits for it.
const LONGEST_AT_FIRST: Duration = Duration::from_secs(4);

/// Longest pause from then on, per node of the cluster: all agents together ask the same API server at most some hundred
/// times a second.
const LONGEST_PER_NODE: Duration = Duration::from_millis(10);

/// Bounds of the longest pause.
const LONGEST: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Longest pause where the server knows no such objects. Each agent of a cluster asks that often, and is told so at once.
const LONGEST_ABSENT: Duration = Duration::from_secs(60);

/// What the watch of Nodes sends, and what is known of the API server.
#[derive(Debug)]
pub enum WatchMessage {
    /// A Node changed.
    Node(NodeEvent),
    /// The API server does not answer as it should; the watch retries.
    Error(String),
    /// The watch goes on, after it failed.
    Resumed,
    /// Where the API server is, as far as that is known.
    ApiServer(ApiServer),
    /// The API server was asked, and did not answer.
    NoAnswer,
}

/// An object as the API server writes it.
pub trait Watched:
    kube::Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static
{
    /// What matters of it.
    type Read: Send;

    /// Reads that.
    fn read(self) -> Self::Read;
}

/// What is heard of one kind of object.
#[derive(Debug)]
pub enum Heard<T> {
    /// What the API server says.
    Object(Feed<T>),
    /// It knows no such objects; the watch asks again now and then.
    Absent,
    /// The watch goes on, after it failed.
    Resumed,
    /// It does not answer as it should; the watch retries.
    Error {
        /// Its words.
        reason: String,
        /// Whether it refuses what is asked for: the agent's role lacks it.
        is_refusal: bool,
    },
}

/// How many Nodes the cluster has, as far as it is known: the more there are, the longer each agent waits after a failure.
#[derive(Debug, Clone, Default)]
pub struct ClusterSize(Arc<AtomicU32>);

/// Which objects of a kind, and how their list is read.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// A field selector.
    pub fields: Option<String>,
    /// Whether the first list is streamed, where the server can.
    pub is_streamed: bool,
}

/// Sends every Node and every change, until nobody receives, and keeps `size` true. The first list is asked for after a
/// random time that grows with the nodes `known` from disk: with those the node has its routes already.
pub async fn follow_nodes(
    client: Client,
    known: usize,
    size: ClusterSize,
    messages: mpsc::Sender<WatchMessage>,
) {
    let delay = delay(known);
    debug!(?delay, known, "node list");
    tokio::time::sleep(delay).await;
    let mut listed = 0_u32;
    let counted = size.clone();
    let tell = move |heard: Heard<_>| {
        let feed = match heard {
            Heard::Error { reason, .. } => return WatchMessage::Error(reason),
            Heard::Absent => return WatchMessage::Error("the API server knows no Nodes".to_owned()),
            Heard::Resumed => return WatchMessage::Resumed,
            Heard::Object(feed) => feed,
        };
        WatchMessage::Node(match feed {
            Feed::ListBegins => {
                listed = 0;
                NodeEvent::ListBegins
            }
            Feed::Listed(info) => {
                listed = listed.saturating_add(1);
                NodeEvent::Listed(info)
            }
            Feed::ListEnds => {
                counted.0.store(listed, Ordering::Relaxed);
                NodeEvent::ListEnds
            }
            Feed::Changed(info) => NodeEvent::Changed(info),
            Feed::Gone(name) => NodeEvent::Gone(name.name),
        })
    };
    follow::<WatchedNode, _>(Api::all(client), Selection::default(), size, tell, messages).await;
}

/// Sends what `tell` makes of every object and of every change, until nobody receives. What goes wrong is sent as well,
/// and tried again, after a time that grows.
pub async fn follow<K: Watched, M>(
    api: Api<K>,
    selection: Selection,
    size: ClusterSize,
    mut tell: impl FnMut(Heard<K::Read>) -> M,
    messages: mpsc::Sender<M>,
) {
    let Selection { fields, mut is_streamed } = selection;
    let begin = |is_streamed: bool| {
        let pages = ListParams { limit: Some(PAGE), field_selector: fields.clone(), ..ListParams::default() };
        let watch = WatchParams {
            timeout: Some(watch_seconds()),
            field_selector: fields.clone(),
            send_initial_events: is_streamed,
            ..WatchParams::default()
        };
        Source::new(api.clone(), pages, watch)
    };
    let mut source = begin(is_streamed);
    let (mut failures, mut is_listed) = (0_u32, false);
    let (mut is_list_asked_for, mut is_listing, mut unfinished) = (false, false, 0_u32);
    let (mut absences, mut is_failing) = (0_u32, false);
    loop {
        let heard = match source.next().await {
            // Of a list in pages it comes before the server is asked: it has not answered yet, and may be down.
            Ok(Said::Object(Feed::ListBegins)) => {
                // Streams without an end: the server knows watches from the beginning, and no ends of lists.
                unfinished += u32::from(is_listing);
                if is_streamed && unfinished >= UNFINISHED {
                    is_streamed = false;
                    source = begin(is_streamed);
                }
                is_list_asked_for = true;
                continue;
            }
            // Not the end of failures: what accepts watches and cuts each of them is asked ever less often.
            Ok(Said::Resumed) if std::mem::take(&mut is_failing) => {
                if messages.send(tell(Heard::Resumed)).await.is_err() {
                    return;
                }
                continue;
            }
            Ok(Said::Resumed) => continue,
            Ok(Said::Object(feed)) => {
                (failures, absences, is_failing) = (0, 0, false);
                if std::mem::take(&mut is_list_asked_for) {
                    is_listing = true;
                    if messages.send(tell(Heard::Object(Feed::ListBegins))).await.is_err() {
                        return;
                    }
                }
                let ends_list = matches!(feed, Feed::ListEnds);
                is_listing &= !ends_list;
                if ends_list {
                    (is_listed, unfinished) = (true, 0);
                }
                Heard::Object(feed)
            }
            Err(error) => {
                if is_streamed && is_no_stream(&error) {
                    debug!(kind = %K::kind(&()), "API server streams no lists, reading pages");
                    is_streamed = false;
                    source = begin(is_streamed);
                    continue;
                }
                is_failing = true;
                if is_absent(&error) {
                    absences += 1;
                    if messages.send(tell(Heard::Absent)).await.is_err() {
                        return;
                    }
                    tokio::time::sleep(pause(absences, LONGEST_ABSENT)).await;
                    source = begin(is_streamed);
                    continue;
                }
                failures += 1;
                // The history of where the watch was is gone. Servers say so within the watch, which leads to a new
                // list; one that refuses the watch for it would be asked for the same for ever.
                if is_expired(&error) {
                    source = begin(is_streamed);
                }
                Heard::Error { is_refusal: is_refusal(&error), reason: error.to_string() }
            }
        };
        if messages.send(tell(heard)).await.is_err() {
            return;
        }
        if failures > 0 {
            let longest =
                if is_listed { longest_among(size.0.load(Ordering::Relaxed)) } else { LONGEST_AT_FIRST };
            tokio::time::sleep(pause(failures, longest)).await;
        }
    }
}

/// What the API server said, if it is why this failed.
fn status_of(failure: &Failure) -> Option<&kube::core::Status> {
    match failure {
        Failure::List(kube::Error::Api(status))
        | Failure::Start(kube::Error::Api(status))
        | Failure::Watch(kube::Error::Api(status))
        | Failure::Said(status) => Some(status),
        _ => None,
    }
}

fn is_expired(error: &Failure) -> bool {
    matches!(error, Failure::Start(kube::Error::Api(status)) if status.code == 410)
}

/// Servers that do not know such lists, or have them switched off, call the request invalid.
fn is_no_stream(error: &Failure) -> bool {
    let is_invalid = |code| [400, 422].contains(&code);
    matches!(error, Failure::Start(kube::Error::Api(status)) if is_invalid(status.code))
}

/// Of a resource that is defined by somebody else, and here is not, or not yet.
fn is_absent(error: &Failure) -> bool {
    status_of(error).is_some_and(|status| status.code == 404)
}

fn is_refusal(error: &Failure) -> bool {
    status_of(error).is_some_and(|status| [401, 403].contains(&status.code))
}

/// Longest pause in a cluster of that many nodes. It is short in a small one: while an agent pauses, it does not hear of
/// a node that came back with another address.
fn longest_among(nodes: u32) -> Duration {
    LONGEST_PER_NODE.saturating_mul(nodes).clamp(LONGEST.0, LONGEST.1)
}

/// Random between half and the whole of what it grew to, so that agents that failed together do not retry together.
fn pause(failures: u32, longest: Duration) -> Duration {
    let grown = FIRST.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(longest);
    grown / 2 + grown.mul_f64(chance() / 2.0)
}

/// Random, so that agents that started together do not start their watches again together.
pub(super) fn watch_seconds() -> u32 {
    let more = f64::from(WATCH.end - WATCH.start) * chance();
    WATCH.start + more as u32
}

/// Random, up to a bound that grows with the cluster.
fn delay(known: usize) -> Duration {
    let longest = DELAY_PER_NODE.saturating_mul(u32::try_from(known).unwrap_or(u32::MAX));
    longest.min(LONGEST_DELAY).mul_f64(chance())
}

/// Random, from 0 to less than 1.
fn chance() -> f64 {
    let number = RandomState::new().build_hasher().finish() % 65_536;
    f64::from(u16::try_from(number).unwrap_or(0)) / 65_536.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_longest_and_are_not_all_the_same() {
        for (failures, grown) in [(1, 250), (2, 500), (5, 4_000), (40, 4_000)] {
            let pause = pause(failures, LONGEST_AT_FIRST).as_millis();
            assert!((grown / 2..=grown).contains(&pause), "{failures}: {pause}");
        }
        let many: std::collections::HashSet<Duration> = (0..50).map(|_| pause(40, LONGEST.1)).collect();
        assert!(many.len() > 10);
    }

    #[test]
    fn the_more_agents_wait_the_longer_each_of_them_does() {
        let seconds = [0, 3, 100, 500, 3_000, 5_000, u32::MAX].map(|nodes| longest_among(nodes).as_secs());
        assert_eq!(seconds, [1, 1, 1, 5, 30, 30, 30]);
    }

    #[test]
    fn agents_of_one_rollout_ask_at_different_times() {
        assert_eq!(delay(0), Duration::ZERO, "nothing is known: the node waits for the list");
        for (known, longest) in [(1, 2), (100, 200), (5_000, 10_000), (usize::MAX, 30_000)] {
            let delays: Vec<u128> = (0..50).map(|_| delay(known).as_micros()).collect();
            assert!(delays.iter().all(|it| *it < longest * 1_000), "{known}: {delays:?}");
            assert!(delays.iter().any(|it| *it > longest * 500), "{known}: {delays:?}");
        }
        let watches: std::collections::HashSet<u32> = (0..50).map(|_| watch_seconds()).collect();
        assert!(watches.len() > 10 && watches.iter().all(|it| WATCH.contains(it)), "{watches:?}");
    }
}
