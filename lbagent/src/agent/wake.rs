//! Changes of the host's network wake the reconciler.

use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::dataplane::Changes;
use crate::reconcile::{ReconcilerHandle, WakeReason};

/// Changes come in groups: a link that goes down takes addresses, routes and neighbours along. So
/// the first of them is given company, and those of a storm lead to few passes.
pub(super) async fn on_changes(
    changes: Option<watch::Receiver<Changes>>,
    handle: ReconcilerHandle,
) {
    const COMPANY: Duration = Duration::from_millis(5);
    const STORM: Duration = Duration::from_millis(100);
    let Some(mut changes) = changes else { return };
    let mut last = None::<Instant>;
    while changes.changed().await.is_ok() {
        let is_storm = last.is_some_and(|last| last.elapsed() < STORM);
        tokio::time::sleep(if is_storm { STORM } else { COMPANY }).await;
        changes.borrow_and_update();
        handle.notify(WakeReason::NetworkChanged);
        last = Some(Instant::now());
    }
}
