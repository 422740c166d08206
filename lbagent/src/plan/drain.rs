//! What an instance's state means for its traffic at one moment.

use std::collections::BTreeSet;
use std::ops::Bound;

use time::OffsetDateTime;
use uuid::Uuid;

use crate::desired::{Instance, InstanceState, ServiceGroup, SharedMap};

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
            InstanceState::Draining { .. } | InstanceState::Stopped | InstanceState::Standby => {
                Self::Off
            }
        }
    }

    /// Whether packets may be sent to the instance.
    pub const fn is_alive(self) -> bool {
        matches!(self, Self::Active | Self::Draining)
    }
}

/// What ends by itself.
pub trait Ends: Clone + PartialEq {
    /// When.
    fn end(&self) -> Option<OffsetDateTime>;
}

impl Ends for Instance {
    /// The end of its drain.
    fn end(&self) -> Option<OffsetDateTime> {
        match self.state {
            InstanceState::Draining { deadline, .. } => Some(deadline),
            InstanceState::Running | InstanceState::Stopped | InstanceState::Standby => None,
        }
    }
}

impl Ends for ServiceGroup {
    /// Its deletion, for want of instances.
    fn end(&self) -> Option<OffsetDateTime> {
        self.ends_at()
    }
}

/// When objects end: kept up with the desired state, from one to the next.
#[derive(Clone, Debug)]
pub struct Deadlines<T> {
    objects: SharedMap<Uuid, T>,
    ends: BTreeSet<(OffsetDateTime, Uuid)>,
}

impl<T> Default for Deadlines<T> {
    fn default() -> Self {
        Self {
            objects: SharedMap::new(),
            ends: BTreeSet::new(),
        }
    }
}

impl<T: Ends> Deadlines<T> {
    /// Takes up the objects of another desired state, at the cost of what differs.
    pub fn follow(&mut self, objects: &SharedMap<Uuid, T>) {
        for uuid in self.objects.changed_keys(objects) {
            let end = |objects: &SharedMap<Uuid, T>| objects.get(&uuid).and_then(T::end);
            if let Some(former) = end(&self.objects) {
                self.ends.remove(&(former, uuid));
            }
            self.ends.extend(end(objects).map(|end| (end, uuid)));
        }
        self.objects = objects.clone();
    }

    /// The earliest deadline, past ones included.
    pub fn first(&self) -> Option<OffsetDateTime> {
        self.ends.first().map(|(deadline, _)| *deadline)
    }

    /// The objects whose deadline came by now.
    pub fn due(&self, now: OffsetDateTime) -> impl Iterator<Item = Uuid> {
        let due = self.ends.iter().take_while(move |(end, _)| *end <= now);
        due.map(|(_, object)| *object)
    }

    /// The next moment at which a plan for the same desired state differs.
    pub fn after(&self, now: OffsetDateTime) -> Option<OffsetDateTime> {
        let later = (Bound::Excluded((now, Uuid::max())), Bound::Unbounded);
        self.ends.range(later).next().map(|(deadline, _)| *deadline)
    }

    /// The objects whose deadline came after one moment and not after another.
    pub fn between(&self, from: OffsetDateTime, to: OffsetDateTime) -> impl Iterator<Item = Uuid> {
        let later = (Bound::Excluded((from, Uuid::max())), Bound::Unbounded);
        let ends = self.ends.range(later);
        ends.take_while(move |(deadline, _)| *deadline <= to)
            .map(|(_, object)| *object)
    }
}
