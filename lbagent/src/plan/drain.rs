//! What an instance's state means for its traffic at one moment.

use std::collections::BTreeSet;
use std::ops::Bound;

use time::OffsetDateTime;
use uuid::Uuid;

use crate::desired::{DesiredState, Instance, InstanceState, SharedMap};

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

/// When drains end: kept up with the desired state, from one to the next.
#[derive(Clone, Debug, Default)]
pub struct Deadlines {
    instances: SharedMap<Uuid, Instance>,
    ends: BTreeSet<(OffsetDateTime, Uuid)>,
}

impl Deadlines {
    /// Takes up another desired state, at the cost of what differs.
    pub fn follow(&mut self, desired: &DesiredState) {
        let end = |instance: &Instance| match instance.state {
            InstanceState::Draining { deadline, .. } => Some((deadline, instance.uuid)),
            InstanceState::Running | InstanceState::Stopped => None,
        };
        for uuid in self.instances.changed_keys(&desired.instances) {
            if let Some(former) = self.instances.get(&uuid).and_then(end) {
                self.ends.remove(&former);
            }
            self.ends.extend(desired.instances.get(&uuid).and_then(end));
        }
        self.instances = desired.instances.clone();
    }

    /// The earliest deadline, past ones included.
    pub fn first(&self) -> Option<OffsetDateTime> {
        self.ends.first().map(|(deadline, _)| *deadline)
    }

    /// The next moment at which a plan for the same desired state differs.
    pub fn after(&self, now: OffsetDateTime) -> Option<OffsetDateTime> {
        let later = (Bound::Excluded((now, Uuid::max())), Bound::Unbounded);
        self.ends.range(later).next().map(|(deadline, _)| *deadline)
    }

    /// The instances whose deadline came after one moment and not after another.
    pub fn between(&self, from: OffsetDateTime, to: OffsetDateTime) -> impl Iterator<Item = Uuid> {
        let later = (Bound::Excluded((from, Uuid::max())), Bound::Unbounded);
        let ends = self.ends.range(later);
        ends.take_while(move |(deadline, _)| *deadline <= to)
            .map(|(_, instance)| *instance)
    }
}
