//! Which service group an instance serves: joining, leaving, and moving from one to another.

use std::net::IpAddr;
use std::time::Duration;

use ipnetwork::IpNetwork;
use lbagent_api::Selector;
use lbagent_api::envelope::Reference;
use time::OffsetDateTime;
use uuid::Uuid;

use super::draft::Draft;
use super::{
    AfterDrain, Caller, Desired, DesiredError, DesiredState, Instance, InstanceState,
    PolicyConflict, ServiceGroup, Written, policy, service_group,
};

/// Why an instance cannot serve a group.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// There is no such service group.
    #[error("No service group with {0}")]
    NoServiceGroup(Selector),
    /// Another instance of the group has the address.
    #[error("Address {address} belongs to instance '{by}' of service group '{group}' already")]
    AddressTaken {
        /// The address.
        address: IpAddr,
        /// Name of that instance.
        by: String,
        /// Name of the group.
        group: String,
    },
}

/// Why an instance serves what it served before.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MembershipError {
    /// There is no such instance.
    #[error("No instance with {0}")]
    NoInstance(Selector),
    /// It cannot serve the group.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// Its policy does not go with the group.
    #[error(transparent)]
    Conflict(#[from] PolicyConflict),
    /// Somebody has asked for its stop.
    #[error(
        "Instance '{name}' drains in order to be stopped: start it again first, or stop it at once"
    )]
    Stopping {
        /// Its name.
        name: String,
    },
}

/// What became of an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// As it is now.
    pub instance: Instance,
    /// The group that was deleted because its last instance left.
    pub deleted: Option<Reference>,
}

impl Desired {
    /// Makes an instance serve a group, or none. With a drain it first keeps what is established
    /// in the group that it leaves, and takes nothing new.
    pub fn set_service_group(
        &self,
        caller: Caller,
        instance: &Selector,
        group: Option<&Selector>,
        drain: Duration,
        now: OffsetDateTime,
    ) -> Result<Written<Result<Move, MembershipError>>, DesiredError> {
        self.transact(|draft| set(draft, caller, instance, group, drain, now))
    }
}

/// Checks everything before it writes anything.
fn set(
    draft: &mut Draft,
    caller: Caller,
    selector: &Selector,
    group: Option<&Selector>,
    drain: Duration,
    now: OffsetDateTime,
) -> Result<Move, MembershipError> {
    let instance = draft
        .find_instance(caller, selector)
        .ok_or_else(|| MembershipError::NoInstance(selector.clone()))?;
    let group = group
        .map(|selector| find_group(draft, caller, selector))
        .transpose()?;
    let to = group.as_ref().map(|group| group.uuid);
    let (since, state) = match instance.state {
        // Whatever is asked for takes the place of the former request to leave.
        InstanceState::Draining {
            since,
            then: AfterDrain::Leaves { .. },
            ..
        } => (since, InstanceState::Running),
        InstanceState::Draining { .. } if to != instance.service_group => {
            let name = instance.name;
            return Err(MembershipError::Stopping { name });
        }
        ref state => (now, state.clone()),
    };
    let former = instance.clone();
    let instance = Instance { state, ..instance };
    if to == instance.service_group {
        if instance != former {
            draft.put_instance(instance.clone());
        }
        return Ok(Move::without_end(instance));
    }
    if let Some(group) = &group {
        check(draft, group, &instance)?;
    }
    let has_flows = instance.service_group.is_some() && instance.state == InstanceState::Running;
    if !has_flows || drain.is_zero() {
        return Ok(relocate(draft, caller, instance, group, now));
    }
    let state = InstanceState::Draining {
        since,
        deadline: now + drain,
        then: AfterDrain::Leaves { to },
    };
    let instance = Instance { state, ..instance };
    draft.put_instance(instance.clone());
    Ok(Move::without_end(instance))
}

impl Move {
    const fn without_end(instance: Instance) -> Self {
        Self {
            instance,
            deleted: None,
        }
    }
}

/// Ends the drain of an instance that leaves its group. Where it was to go may be gone or may have
/// changed meanwhile: then it serves no group, as it was to leave this one.
pub(super) fn leave_drained(
    draft: &mut Draft,
    instance: Instance,
    to: Option<Uuid>,
    now: OffsetDateTime,
) {
    let caller = Caller::operator(instance.account);
    let group = to.and_then(|uuid| draft.find_group(caller, &Selector::Uuid(uuid)));
    let group = group.filter(|group| check(draft, group, &instance).is_ok());
    let state = InstanceState::Running;
    relocate(draft, caller, Instance { state, ..instance }, group, now);
}

/// Makes a new instance's group ready for it.
pub(super) fn join(
    draft: &mut Draft,
    caller: Caller,
    selector: &Selector,
    addresses: &[IpNetwork],
) -> Result<Uuid, JoinError> {
    let group = find_group(draft, caller, selector)?;
    check_addresses(draft.state(), &group, addresses)?;
    Ok(admit(draft, group))
}

/// Sees to a group that an instance has left: one that was made for its instances goes with the
/// last, any other one is empty from then on.
pub(super) fn leave(
    draft: &mut Draft,
    caller: Caller,
    group: Option<Uuid>,
    now: OffsetDateTime,
) -> Option<Reference> {
    let group = draft.find_group(caller, &Selector::Uuid(group?))?;
    if draft.state().members(group.uuid).next().is_some() {
        return None;
    }
    if group.persistent {
        draft.put_group(ServiceGroup {
            empty_since: Some(now),
            ..group
        });
        return None;
    }
    service_group::remove(draft, group.uuid);
    Some(Reference {
        uuid: group.uuid,
        name: group.name,
    })
}

fn find_group(
    draft: &mut Draft,
    caller: Caller,
    selector: &Selector,
) -> Result<ServiceGroup, JoinError> {
    let not_found = || JoinError::NoServiceGroup(selector.clone());
    draft.find_group(caller, selector).ok_or_else(not_found)
}

/// Whether an instance can serve a group that it does not serve yet.
fn check(draft: &Draft, group: &ServiceGroup, instance: &Instance) -> Result<(), MembershipError> {
    check_addresses(draft.state(), group, &instance.addresses)?;
    policy::check_instance(draft.state(), group, instance)?;
    Ok(())
}

/// Whether an instance with these addresses can serve a group.
pub(super) fn check_addresses(
    state: &DesiredState,
    group: &ServiceGroup,
    addresses: &[IpNetwork],
) -> Result<(), JoinError> {
    for member in state.members(group.uuid) {
        let has = |ours: &&IpNetwork| member.addresses.iter().any(|it| it.ip() == ours.ip());
        if let Some(address) = addresses.iter().find(has) {
            return Err(JoinError::AddressTaken {
                address: address.ip(),
                by: member.name.clone(),
                group: group.name.clone(),
            });
        }
    }
    Ok(())
}

/// The group is written even if nothing of it changes, so that a deletion of the group by another
/// gateway at the same time cannot miss the new member.
fn admit(draft: &mut Draft, group: ServiceGroup) -> Uuid {
    let uuid = group.uuid;
    // A group that was made for one instance outlives it from the second one on.
    let persistent = group.persistent || draft.state().members(uuid).next().is_some();
    draft.put_group(ServiceGroup {
        persistent,
        empty_since: None,
        ..group
    });
    uuid
}

/// Gives an instance another group, or none; every check was made before.
fn relocate(
    draft: &mut Draft,
    caller: Caller,
    instance: Instance,
    group: Option<ServiceGroup>,
    now: OffsetDateTime,
) -> Move {
    let former = instance.service_group;
    let instance = Instance {
        service_group: group.map(|group| admit(draft, group)),
        ..instance
    };
    draft.put_instance(instance.clone());
    let deleted = leave(draft, caller, former, now);
    Move { instance, deleted }
}
