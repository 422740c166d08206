//! The loop that makes checks when they are due.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};

use super::HealthHandle;
use super::board::Moment;
use super::probe::Prober;
use crate::desired::DesiredState;
use crate::plan::Health;

/// Checks that are due within this time begin together: fewer wake-ups.
const TICK: Duration = Duration::from_millis(5);
/// A verdict waits so long for others: a host that dies takes many instances along.
const COMPANY: Duration = Duration::from_millis(10);
/// Time between two publications; each is a pass of the reconciler.
const REST: Duration = Duration::from_millis(100);

/// Makes checks.
pub(super) struct Runner<P> {
    handle: HealthHandle,
    prober: P,
    verdicts: watch::Sender<Health>,
    /// Most checks under way at once.
    room: usize,
    /// A check that has ended changed a verdict, or made room.
    ended: Arc<Notify>,
}

impl<P: Prober> Runner<P> {
    pub(super) fn new(
        handle: HealthHandle,
        prober: P,
        verdicts: watch::Sender<Health>,
        room: usize,
    ) -> Self {
        Self {
            handle,
            prober,
            verdicts,
            room,
            ended: Arc::new(Notify::new()),
        }
    }

    /// Runs until the agent stops.
    pub(super) async fn run(
        self,
        mut desired: watch::Receiver<Arc<DesiredState>>,
        mut stopped: watch::Receiver<bool>,
    ) {
        let mut publish_at = None;
        let mut published = Instant::now();
        loop {
            let now = Instant::now();
            let due = self.work(now);
            if self.handle.board().take_news() && publish_at.is_none() {
                publish_at = Some((now + COMPANY).max(published + REST));
            }
            if publish_at.is_some_and(|at| at <= now) {
                (publish_at, published) = (None, now);
                let health = self.handle.board().health();
                self.verdicts.send_replace(health);
            }
            let next = due.map(|due| due.max(now + TICK)).into_iter();
            let next = next.chain(publish_at).min();
            self.handle.board().sleep_until(next);
            let timer = async {
                match next {
                    Some(next) => sleep_until(next).await,
                    None => std::future::pending().await,
                }
            };
            // Every branch is cancel-safe, and each turn looks at everything.
            tokio::select! {
                () = timer => {}
                () = self.ended.notified() => {}
                changed = desired.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let state = desired.borrow_and_update().clone();
                    self.handle.board().follow(&state, Moment::now());
                }
                // An error means that the sender is gone, which is an end too.
                _ = stopped.wait_for(|stop| *stop) => return,
            }
        }
    }

    /// Does what is due; tells when there is more to do.
    fn work(&self, now: Instant) -> Option<Instant> {
        let mut board = self.handle.board();
        board.advance(now);
        while board.running() < self.room {
            let Some(job) = board.next_job(now) else {
                break;
            };
            let (handle, prober) = (self.handle.clone(), self.prober.clone());
            let (ended, room) = (Arc::clone(&self.ended), self.room);
            tokio::spawn(async move {
                let outcome = prober.probe(&job).await;
                let mut board = handle.board();
                let was_full = board.running() >= room;
                board.finish(job.id, &outcome, Moment::now());
                if was_full || board.must_wake() {
                    ended.notify_one();
                }
            });
        }
        board.next_due(board.running() < self.room)
    }
}
