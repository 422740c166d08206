//! What an instance's state means for its traffic at one moment.

use time::OffsetDateTime;

use crate::desired::{DesiredState, InstanceState};

/// What an instance does for its group now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duty {
    /// Takes new and established flows.
    Active,
    /// Keeps established flows.
    Draining,
    /// Takes nothing: its entry goes.
    Off,
}

impl Duty {
    /// Duty of a state at a moment. Draining past its deadline is over, whether or not the store
    /// has been told yet.
    pub fn of(state: &InstanceState, now: OffsetDateTime) -> Self {
        match state {
            InstanceState::Running => Self::Active,
            InstanceState::Draining { deadline, .. } if *deadline > now => Self::Draining,
            InstanceState::Draining { .. } | InstanceState::Stopped => Self::Off,
        }
    }

    /// Whether packets may be sent to the instance.
    pub const fn is_alive(self) -> bool {
        matches!(self, Self::Active | Self::Draining)
    }
}

/// The next moment at which a plan for the same desired state differs.
pub fn next_deadline(desired: &DesiredState, now: OffsetDateTime) -> Option<OffsetDateTime> {
    desired
        .instances
        .values()
        .filter_map(|instance| match instance.state {
            InstanceState::Draining { deadline, .. } if deadline > now => Some(deadline),
            _ => None,
        })
        .min()
}
