//! Ends drains in the desired state when their deadline has passed.
//!
//! The planner ends them in the data plane by itself; this makes the instance's state say so.

use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;
use tracing::{info, warn};

use crate::desired::Desired;
use crate::plan::drain::Deadlines;

/// Longest sleep: an `Instant` may not reach a far deadline, and the wall clock may jump.
const LONGEST: Duration = Duration::from_secs(30);

/// Runs until the agent stops.
pub(super) async fn run(desired: Arc<Desired>) {
    let mut changes = desired.subscribe();
    let mut deadlines = Deadlines::default();
    loop {
        let state = changes.borrow_and_update().clone();
        deadlines.follow(&state);
        let wait = match deadlines.first() {
            None => LONGEST,
            Some(deadline) => match Duration::try_from(deadline - OffsetDateTime::now_utc()) {
                Ok(wait) if !wait.is_zero() => wait.min(LONGEST),
                _ => {
                    expire(&desired).await;
                    continue;
                }
            },
        };
        // Both branches are cancel-safe, and every round looks at the whole state.
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(wait) => {}
        }
    }
}

async fn expire(desired: &Arc<Desired>) {
    let store = Arc::clone(desired);
    let now = OffsetDateTime::now_utc();
    let expired = tokio::task::spawn_blocking(move || store.expire_drains(now)).await;
    match expired {
        Ok(Ok(written)) => info!(
            instances = written.outcome,
            "drained to their deadline, stopped"
        ),
        Ok(Err(error)) => {
            warn!(%error, "cannot note the end of a drain; trying again");
            // Keeps a failing disk from turning this into a busy loop.
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        Err(error) => warn!(%error, "cannot note the end of a drain"),
    }
}
