//! The pass before the first: fills maps that no attached program uses yet.

use std::sync::Arc;

use time::OffsetDateTime;

use super::chain;
use super::pass::{Done, Memory, Pass, Scope};
use super::sweep::PART_WEIGHT;
use crate::dataplane::{Dataplane, DataplaneError};
use crate::desired::DesiredState;
use crate::plan::{GatewaySettings, Health, Reason, Terminator};

/// Why maps could not be filled. Nothing that carries packets has changed.
#[derive(Debug, thiserror::Error)]
pub enum FillError {
    /// They could not be read.
    #[error("the new maps cannot be read")]
    Read(#[source] DataplaneError),
    /// An entry could not be written.
    #[error("the new maps cannot be filled: {0}")]
    Write(String),
    /// Something that is asked for has no room.
    #[error("the new maps cannot hold everything: {0}")]
    Full(Reason),
}

/// Brings maps that no attached program uses to the desired state; returns the number of steps.
///
/// Steps that fail on the host's network are left to the reconciler: the programs that are attached
/// now have the same trouble.
pub fn fill(
    dataplane: &mut dyn Dataplane,
    desired: Arc<DesiredState>,
    gateway: GatewaySettings,
) -> Result<usize, FillError> {
    let pass = Pass {
        desired,
        gateway: Arc::new(gateway),
        // Nothing is checked yet: what the maps that were carried over say counts.
        health: Health::new(),
        terminator: Terminator::default(),
        // No packet reads these maps, so no region has to be left alone.
        memory: Memory::default(),
        scope: Scope::Everything,
        part_weight: PART_WEIGHT,
        now: OffsetDateTime::now_utc(),
    };
    let (_, outcome) = pass.run(dataplane);
    let Done { plan, report, .. } = outcome.map_err(FillError::Read)?;
    let mut reasons = plan.conditions.into_iter().map(|found| found.reason);
    if let Some(full) = reasons.find(|reason| matches!(reason, Reason::MapFull { .. })) {
        return Err(FillError::Full(full));
    }
    match report.map_error() {
        Some((step, error)) => Err(FillError::Write(format!("{step}: {}", chain(error)))),
        None => Ok(report.applied),
    }
}
