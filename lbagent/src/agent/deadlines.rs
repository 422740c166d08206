//! Does in the desired state what is due at a time: ends drains, and deletes groups that were empty
//! for as long as they may be.
//!
//! The planner ends drains in the data plane by itself; this makes the instance's state say so.

use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;
use tracing::{info, warn};
use uuid::Uuid;

use crate::desired::{
    Desired, DesiredError, DesiredState, Instance, ServiceGroup, SharedMap, Written,
};
use crate::plan::drain::{Deadlines, Ends};

/// Longest sleep: an `Instant` may not reach a far deadline, and the wall clock may jump.
const LONGEST: Duration = Duration::from_secs(30);
/// Rest after an attempt that changed nothing.
const REST: Duration = Duration::from_secs(1);

/// Does what is due for these objects; returns for how many.
type Expire = fn(&Desired, &[Uuid], OffsetDateTime) -> Result<Written<usize>, DesiredError>;

/// What has deadlines, and what is done then.
struct Duty<T> {
    objects: fn(&DesiredState) -> &SharedMap<Uuid, T>,
    expire: Expire,
    done: &'static str,
}

/// Ends drains until the agent stops.
pub(super) async fn end_drains(desired: Arc<Desired>) {
    let duty = Duty::<Instance> {
        objects: |state| &state.instances,
        expire: |desired, _, now| desired.expire_drains(now),
        done: "stopped instances that had drained to their deadline",
    };
    run(desired, duty).await;
}

/// Deletes empty groups until the agent stops.
pub(super) async fn delete_empty_groups(desired: Arc<Desired>) {
    let duty = Duty::<ServiceGroup> {
        objects: |state| &state.service_groups,
        expire: Desired::expire_groups,
        done: "deleted service groups that had been empty for their autokill time",
    };
    run(desired, duty).await;
}

async fn run<T: Ends>(desired: Arc<Desired>, duty: Duty<T>) {
    let mut changes = desired.subscribe();
    let mut deadlines = Deadlines::default();
    loop {
        let state = changes.borrow_and_update().clone();
        deadlines.follow((duty.objects)(&state));
        let now = OffsetDateTime::now_utc();
        let wait = match deadlines.first() {
            None => LONGEST,
            Some(deadline) => match Duration::try_from(deadline - now) {
                Ok(wait) if !wait.is_zero() => wait.min(LONGEST),
                _ => {
                    let due = deadlines.due(now).collect();
                    if expire(&desired, &duty, due, now).await {
                        continue;
                    }
                    // Keeps a failing disk from turning this into a busy loop.
                    REST
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

/// Returns whether something was done.
async fn expire<T>(
    desired: &Arc<Desired>,
    duty: &Duty<T>,
    due: Vec<Uuid>,
    now: OffsetDateTime,
) -> bool {
    let (store, expire, done) = (Arc::clone(desired), duty.expire, duty.done);
    match tokio::task::spawn_blocking(move || expire(&store, &due, now)).await {
        Ok(Ok(written)) if written.outcome > 0 => {
            info!(number = written.outcome, "{done}");
            true
        }
        Ok(Ok(_)) => false,
        Ok(Err(error)) => {
            warn!(%error, "cannot note that a deadline has passed; trying again");
            false
        }
        Err(error) => {
            warn!(%error, "cannot note that a deadline has passed");
            false
        }
    }
}
