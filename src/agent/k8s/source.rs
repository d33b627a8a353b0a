//! One list and one watch after the other, of the objects of one kind: where the API server's word comes from.
//!
//! kube's own watcher does the same, but it says neither that a watch has begun nor that a bookmark came: after a failure
//! nobody would know that the API server is heard again until an object changes.

use std::time::{Duration, Instant};
use std::vec;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::core::Status;
use kube::{Api, ResourceExt};

use crate::agent::k8s::watch::Watched;
use crate::policy::object::{Feed, ObjectName};

/// Annotation of the bookmark with which a streamed list ends.
const LIST_ENDS: &str = "k8s.io/initial-events-end";

/// A watch lives for minutes. One that ends earlier than this, without a word, was cut by something in between: asked again
/// without a pause, thousands of agents would do nothing else.
const SHORTEST: Duration = Duration::from_secs(1);

type Events<K> = BoxStream<'static, Result<WatchEvent<K>, kube::Error>>;

/// What comes next.
#[derive(Debug)]
pub enum Said<T> {
    /// Of objects. The begin of a list in pages comes before the API server has answered.
    Object(Feed<T>),
    /// A watch goes on from where it was, and the API server has agreed to it.
    Resumed,
}

/// Why nothing came. The next try goes on from where this one was.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A list was refused, or had no answer.
    #[error("cannot list: {0}")]
    List(kube::Error),
    /// The same of a watch.
    #[error("cannot watch: {0}")]
    Start(kube::Error),
    /// A watch broke off.
    #[error("watch broke off: {0}")]
    Watch(kube::Error),
    /// The API server said so within a watch.
    #[error("watch failed: {}", .0.message)]
    Said(Box<Status>),
    /// A watch ended as it began.
    #[error("the watch ended at once, without a word")]
    Short,
    /// A list or an object has no version: no watch can go on from there.
    #[error("the API server names no resourceVersion")]
    NoVersion,
}

/// Where it is.
enum State<K> {
    Nothing,
    Pages {
        page: vec::IntoIter<K>,
        next: Option<String>,
        version: Option<String>,
    },
    /// A streamed list.
    Streamed(Events<K>),
    /// Everything is known up to that version.
    Known(String),
    Watching {
        version: String,
        events: Events<K>,
    },
}

/// Lists and watches.
pub struct Source<K> {
    api: Api<K>,
    pages: ListParams,
    watch: WatchParams,
    state: State<K>,
    /// Since when there is a watch of which nothing has been heard.
    silent_since: Option<Instant>,
}

impl<K: Watched> Source<K> {
    /// Begins with a list, which is streamed where `watch` says so.
    pub fn new(api: Api<K>, pages: ListParams, watch: WatchParams) -> Self {
        Self { api, pages, watch, state: State::Nothing, silent_since: None }
    }

    /// What comes next; waits for it. After a failure the caller pauses.
    pub async fn next(&mut self) -> Result<Said<K::Read>, Failure> {
        loop {
            let state = std::mem::replace(&mut self.state, State::Nothing);
            let (said, state) = self.step(state).await;
            self.state = state;
            if let Some(said) = said.transpose() {
                return said;
            }
        }
    }

    async fn step(&mut self, state: State<K>) -> (Result<Option<Said<K::Read>>, Failure>, State<K>) {
        match state {
            State::Nothing if self.watch.send_initial_events => {
                match self.api.watch(&self.watch, "0").await {
                    Ok(events) => {
                        self.silent_since = Some(Instant::now());
                        (Ok(Some(Said::Object(Feed::ListBegins))), State::Streamed(events.boxed()))
                    }
                    Err(error) => (Err(Failure::Start(error)), State::Nothing),
                }
            }
            State::Nothing => {
                let none = State::Pages { page: Vec::new().into_iter(), next: None, version: None };
                (Ok(Some(Said::Object(Feed::ListBegins))), none)
            }
            State::Pages { mut page, next, version } => match (page.next(), next, version) {
                (Some(object), next, version) => (
                    Ok(Some(Said::Object(Feed::Listed(object.read())))),
                    State::Pages { page, next, version },
                ),
                (None, None, Some(version)) => {
                    (Ok(Some(Said::Object(Feed::ListEnds))), State::Known(version))
                }
                (None, next, _) => self.page(next).await,
            },
            State::Streamed(mut events) => match self.hear(&mut events).await {
                Some(Ok(WatchEvent::Added(object) | WatchEvent::Modified(object))) => {
                    (Ok(Some(Said::Object(Feed::Listed(object.read())))), State::Streamed(events))
                }
                Some(Ok(WatchEvent::Bookmark(mark))) if mark.metadata.annotations.contains_key(LIST_ENDS) => {
                    let version = mark.metadata.resource_version;
                    (Ok(Some(Said::Object(Feed::ListEnds))), State::Watching { version, events })
                }
                // Nothing is deleted in a list.
                Some(Ok(WatchEvent::Bookmark(_) | WatchEvent::Deleted(_))) => {
                    (Ok(None), State::Streamed(events))
                }
                Some(Ok(WatchEvent::Error(status))) => {
                    let is_gone = status.code == 410;
                    let state = if is_gone { State::Nothing } else { State::Streamed(events) };
                    (Err(Failure::Said(status)), state)
                }
                Some(Err(error)) => (Err(Failure::Watch(error)), State::Streamed(events)),
                None => (self.ended(), State::Nothing),
            },
            State::Known(version) => {
                let watch = WatchParams { send_initial_events: false, ..self.watch.clone() };
                match self.api.watch(&watch, &version).await {
                    Ok(events) => {
                        self.silent_since = Some(Instant::now());
                        (Ok(Some(Said::Resumed)), State::Watching { version, events: events.boxed() })
                    }
                    Err(error) => (Err(Failure::Start(error)), State::Known(version)),
                }
            }
            State::Watching { version, events } => self.event(version, events).await,
        }
    }

    /// What comes by a watch next; none when it has ended.
    async fn hear(&mut self, events: &mut Events<K>) -> Option<Result<WatchEvent<K>, kube::Error>> {
        let heard = events.next().await;
        if heard.is_some() {
            self.silent_since = None;
        }
        heard
    }

    /// That a watch has ended.
    fn ended<T>(&mut self) -> Result<Option<T>, Failure> {
        match self.silent_since.take() {
            Some(since) if since.elapsed() < SHORTEST => Err(Failure::Short),
            _ => Ok(None),
        }
    }

    /// Reads a page of a list.
    async fn page(&mut self, next: Option<String>) -> (Result<Option<Said<K::Read>>, Failure>, State<K>) {
        let params = ListParams { continue_token: next, ..self.pages.clone() };
        match self.api.list(&params).await {
            Ok(list) => {
                let is_there = |text: &String| !text.is_empty();
                let version = list.metadata.resource_version.filter(is_there);
                let next = list.metadata.continue_.filter(is_there);
                if version.is_none() && next.is_none() {
                    return (Err(Failure::NoVersion), State::Nothing);
                }
                (Ok(None), State::Pages { page: list.items.into_iter(), next, version })
            }
            Err(error) => (Err(Failure::List(error)), State::Nothing),
        }
    }

    /// Reads an event of a watch.
    async fn event(
        &mut self,
        version: String,
        mut events: Events<K>,
    ) -> (Result<Option<Said<K::Read>>, Failure>, State<K>) {
        let (object, is_gone) = match self.hear(&mut events).await {
            Some(Ok(WatchEvent::Added(object) | WatchEvent::Modified(object))) => (object, false),
            Some(Ok(WatchEvent::Deleted(object))) => (object, true),
            Some(Ok(WatchEvent::Bookmark(mark))) => {
                return (Ok(None), State::Watching { version: mark.metadata.resource_version, events });
            }
            Some(Ok(WatchEvent::Error(status))) => {
                // The history from there on is gone: only a list helps.
                let is_gone = status.code == 410;
                let state = if is_gone { State::Nothing } else { State::Watching { version, events } };
                return (Err(Failure::Said(status)), state);
            }
            Some(Err(error)) => return (Err(Failure::Watch(error)), State::Watching { version, events }),
            None => return (self.ended(), State::Known(version)),
        };
        let Some(version) = object.resource_version().filter(|version| !version.is_empty()) else {
            return (Err(Failure::NoVersion), State::Nothing);
        };
        let feed = if is_gone {
            let namespace = object.namespace().unwrap_or_default();
            Feed::Gone(ObjectName { namespace, name: object.name_any() })
        } else {
            Feed::Changed(object.read())
        };
        (Ok(Some(Said::Object(feed))), State::Watching { version, events })
    }
}
