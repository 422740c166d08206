//! What all checks together did.

use std::collections::BTreeMap;

use lbagent_api::health_report::HealthCounters;

use super::probe::{FailureKind, Outcome};

/// Counted since the agent's start.
#[derive(Clone, Debug, Default)]
pub(super) struct Counters {
    checks: u64,
    failures: [u64; FailureKind::ALL.len()],
    pub(super) became_healthy: u64,
    pub(super) became_unhealthy: u64,
    pub(super) late: u64,
}

impl Counters {
    pub(super) fn count(&mut self, outcome: &Outcome) {
        self.checks += 1;
        if let Err(failure) = outcome {
            self.failures[failure.kind as usize] += 1;
        }
    }

    /// In the API's words.
    pub(super) fn told(&self, configured: usize, running: usize) -> HealthCounters {
        let failures = FailureKind::ALL.into_iter().zip(self.failures);
        let failures = failures.map(|(kind, count)| (kind.name().to_owned(), count));
        HealthCounters {
            configured: configured as u64,
            running: running as u64,
            checks: self.checks,
            failures: failures.collect::<BTreeMap<_, _>>(),
            became_healthy: self.became_healthy,
            became_unhealthy: self.became_unhealthy,
            late: self.late,
        }
    }
}
