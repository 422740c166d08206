//! The recent changes of a store, for watches. Older ones are compacted away.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::watch;

use super::{Commit, Event, Watch, WatchError};

/// Transactions that a watch may be behind before it has to read the range anew.
const KEPT: usize = 1024;
/// Changes of keys that are kept at most, of all transactions together: a state that is imported may
/// change half a million, each of which takes as much memory as the object.
pub(super) const KEPT_EVENTS: usize = 1 << 15;

/// Changes by revision, and a signal when there is another.
#[derive(Debug)]
pub(super) struct History {
    recent: Mutex<Recent>,
    revision: watch::Sender<u64>,
    /// Held from a commit to its `push`, so that commits are pushed in their order.
    writer: Mutex<()>,
}

#[derive(Debug)]
struct Recent {
    /// Revision of the first element; the next revision when there is none.
    first: u64,
    commits: VecDeque<Commit>,
    /// Events of all commits.
    events: usize,
}

impl History {
    /// History begins after `revision`.
    pub(super) fn new(revision: u64) -> Self {
        let recent = Recent {
            first: revision + 1,
            commits: VecDeque::new(),
            events: 0,
        };
        let revision = watch::Sender::new(revision);
        Self {
            recent: Mutex::new(recent),
            revision,
            writer: Mutex::new(()),
        }
    }

    /// To be held from a commit to its [`push`](Self::push).
    pub(super) fn writing(&self) -> MutexGuard<'_, ()> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds the changes of the next revision; `None`: they are too many to be kept.
    pub(super) fn push(&self, revision: u64, commit: Option<Commit>) {
        let mut recent = self.lock();
        assert_eq!(
            revision,
            recent.first + recent.commits.len() as u64,
            "revisions have no gaps"
        );
        match commit {
            Some(commit) => {
                recent.events += commit.events.len();
                recent.commits.push_back(commit);
            }
            None => {
                recent.commits.clear();
                (recent.first, recent.events) = (revision + 1, 0);
            }
        }
        while recent.commits.len() > KEPT || recent.events > KEPT_EVENTS {
            let oldest = recent.commits.pop_front();
            recent.events -= oldest.map_or(0, |commit| commit.events.len());
            recent.first += 1;
        }
        drop(recent);
        self.revision.send_replace(revision);
    }

    /// The revision of the last push.
    pub(super) fn latest(&self) -> u64 {
        *self.revision.borrow()
    }

    pub(super) fn watch(self: &Arc<Self>, prefix: &str, revision: u64) -> HistoryWatch {
        HistoryWatch {
            changed: self.revision.subscribe(),
            history: Arc::downgrade(self),
            prefix: prefix.to_owned(),
            // Revision 0 is the empty store: nothing changed at it.
            next: revision.max(1),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Recent> {
        // Every change of `Recent` is complete before anything can panic.
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The changes from a revision on, and the revision after them.
    fn since(&self, revision: u64, prefix: &str) -> Result<(Vec<Commit>, u64), WatchError> {
        let recent = self.lock();
        let skipped = revision
            .checked_sub(recent.first)
            .ok_or(WatchError::Compacted {
                asked: revision,
                oldest: recent.first,
            })?;
        let skipped = usize::try_from(skipped).unwrap_or(usize::MAX);
        let commits = recent.commits.iter().skip(skipped);
        let is_wanted = |event: &&Event| event.key().starts_with(prefix);
        let commits = commits.map(|commit| Commit {
            at: commit.at,
            by: Arc::clone(&commit.by),
            events: commit.events.iter().filter(is_wanted).cloned().collect(),
        });
        let commits = commits.filter(|commit| !commit.events.is_empty()).collect();
        let next = revision.max(recent.first + recent.commits.len() as u64);
        Ok((commits, next))
    }
}

/// A watch of a [`History`].
pub(super) struct HistoryWatch {
    history: std::sync::Weak<History>,
    changed: watch::Receiver<u64>,
    prefix: String,
    next: u64,
}

impl Watch for HistoryWatch {
    fn next(&mut self) -> BoxFuture<'_, Result<Vec<Commit>, WatchError>> {
        async move {
            loop {
                // Before looking: a change after this line wakes `changed` below.
                self.changed.borrow_and_update();
                let history = self.history.upgrade().ok_or(WatchError::Closed)?;
                let (commits, next) = history.since(self.next, &self.prefix)?;
                drop(history);
                self.next = next;
                if !commits.is_empty() {
                    return Ok(commits);
                }
                self.changed
                    .changed()
                    .await
                    .map_err(|_| WatchError::Closed)?;
            }
        }
        .boxed()
    }
}
