//! Creating, starting, stopping and deleting instances.

use std::net::IpAddr;
use std::time::Duration;

use lbagent_api::Selector;
use lbagent_api::envelope::Reference;
use time::OffsetDateTime;
use uuid::Uuid;

use super::draft::Draft;
use super::membership::{self, JoinError};
use super::service_group::{self, CreateServiceGroupError};
use super::usage::{self, QuotaError};
use super::validate::{Gateway, NewInstance, NewInstanceGroup};
use super::{
    AfterDrain, Caller, Desired, DesiredError, Instance, InstancePolicy, InstanceState,
    ServiceGroup, Written, keys, names,
};

/// Why an instance was not created.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CreateInstanceError {
    /// Another instance has the name.
    #[error("An instance with name '{name}' already exists")]
    NameTaken {
        /// The name.
        name: String,
    },
    /// It cannot serve the group.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// An instance of another account has the address.
    #[error("Address {address} is in use; choose another one")]
    AddressInUse {
        /// The address.
        address: IpAddr,
    },
    /// The account may not have more.
    #[error(transparent)]
    Quota(#[from] QuotaError),
    /// The group that was to be made with it cannot be made.
    #[error(transparent)]
    ServiceGroup(#[from] CreateServiceGroupError),
}

/// Why an instance was not started, stopped or deleted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeInstanceError {
    /// There is no such instance.
    #[error("No instance with {0}")]
    NotFound(Selector),
    /// It is not in the state that the request asked for.
    #[error("Instance '{name}' is {}, not {expected}", state.name())]
    OtherState {
        /// Its name.
        name: String,
        /// The state it is in.
        state: InstanceState,
        /// The state asked for.
        expected: String,
    },
}

/// How to stop one instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StopRequest {
    /// Which.
    pub selector: Selector,
    /// So long established connections stay; zero stops at once.
    pub drain: Duration,
    /// Only if it is in the state of this name.
    pub only_if: Option<String>,
}

/// What a start or a stop did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateChange {
    /// The instance as it is now.
    pub instance: Instance,
    /// What it was.
    pub previous: InstanceState,
}

type Changes<T> = Result<Written<Vec<Result<T, ChangeInstanceError>>>, DesiredError>;

impl Desired {
    /// Creates instances, each on its own terms.
    pub fn create_instances(
        &self,
        caller: Caller,
        instances: &[NewInstance],
        gateway: &Gateway,
        now: OffsetDateTime,
    ) -> Result<Written<Vec<Result<Instance, CreateInstanceError>>>, DesiredError> {
        self.transact(|draft| {
            instances
                .iter()
                .map(|new| create(draft, caller, new, gateway, now))
                .collect()
        })
    }

    /// Deletes instances at once; a group that is not persistent goes with its last one.
    pub fn delete_instances(
        &self,
        caller: Caller,
        selectors: &[Selector],
        now: OffsetDateTime,
    ) -> Changes<Reference> {
        self.transact(|draft| {
            selectors
                .iter()
                .map(|selector| delete(draft, caller, selector, now))
                .collect()
        })
    }

    /// Takes instances out of traffic at once, as somebody who suspends machines wants it.
    pub fn suspend_instances(
        &self,
        caller: Caller,
        selectors: &[Selector],
    ) -> Changes<StateChange> {
        self.set_states(caller, selectors, &InstanceState::Standby)
    }

    fn set_states(
        &self,
        caller: Caller,
        selectors: &[Selector],
        state: &InstanceState,
    ) -> Changes<StateChange> {
        self.transact(|draft| {
            let set = |selector| {
                let instance = find(draft, caller, selector)?;
                Ok(set_state(draft, instance, state.clone()))
            };
            selectors.iter().map(set).collect()
        })
    }

    /// Lets instances take new connections.
    pub fn start_instances(&self, caller: Caller, selectors: &[Selector]) -> Changes<StateChange> {
        self.set_states(caller, selectors, &InstanceState::Running)
    }

    /// Stops instances, after draining them if asked to.
    pub fn stop_instances(
        &self,
        caller: Caller,
        requests: &[StopRequest],
        now: OffsetDateTime,
    ) -> Changes<StateChange> {
        self.transact(|draft| {
            requests
                .iter()
                .map(|request| stop(draft, caller, request, now))
                .collect()
        })
    }
}

/// Checks everything before it writes anything.
fn create(
    draft: &mut Draft,
    caller: Caller,
    new: &NewInstance,
    gateway: &Gateway,
    now: OffsetDateTime,
) -> Result<Instance, CreateInstanceError> {
    let name = new.name.clone().unwrap_or_else(names::random_name);
    if draft
        .owner(&keys::instance_name(caller.account, &name))
        .is_some()
    {
        return Err(CreateInstanceError::NameTaken { name });
    }
    draft.check_quota(caller.account, usage::ONE_INSTANCE)?;
    for address in new.addresses.iter().map(ipnetwork::IpNetwork::ip) {
        let account = draft.address_account(address);
        if account.is_some_and(|account| account != caller.account) {
            return Err(CreateInstanceError::AddressInUse { address });
        }
    }
    let service_group = match &new.group {
        NewInstanceGroup::None => None,
        NewInstanceGroup::Join(selector) => {
            Some(membership::join(draft, caller, selector, &new.addresses)?)
        }
        NewInstanceGroup::Create(group) => {
            let group = service_group::create(draft, caller, group, gateway, now, false)?;
            draft.put_group(ServiceGroup {
                empty_since: None,
                ..group.clone()
            });
            Some(group.uuid)
        }
    };
    let instance = Instance {
        uuid: Uuid::new_v4(),
        account: caller.account,
        name,
        created_at: now,
        state: if new.running {
            InstanceState::Running
        } else {
            InstanceState::Stopped
        },
        service_group,
        addresses: new.addresses.clone(),
        image: new.image.clone(),
        tags: new.tags.clone(),
        annotations: new.annotations.clone(),
        policy: InstancePolicy::default(),
    };
    insert(draft, instance.clone());
    Ok(instance)
}

/// Writes an instance with its claims.
pub(super) fn insert(draft: &mut Draft, instance: Instance) {
    draft.claim(name_key(&instance), instance.uuid);
    draft.claim_addresses(&instance);
    draft.put_instance(instance);
}

/// Removes an instance with its claims.
pub(super) fn remove(draft: &mut Draft, uuid: Uuid) {
    if let Some(instance) = draft.remove_instance(uuid) {
        draft.release(name_key(&instance));
        draft.release_addresses(&instance);
    }
}

pub(super) fn name_key(instance: &Instance) -> String {
    keys::instance_name(instance.account, &instance.name)
}

fn find(
    draft: &mut Draft,
    caller: Caller,
    selector: &Selector,
) -> Result<Instance, ChangeInstanceError> {
    draft
        .find_instance(caller, selector)
        .ok_or_else(|| ChangeInstanceError::NotFound(selector.clone()))
}

fn delete(
    draft: &mut Draft,
    caller: Caller,
    selector: &Selector,
    now: OffsetDateTime,
) -> Result<Reference, ChangeInstanceError> {
    let instance = find(draft, caller, selector)?;
    remove(draft, instance.uuid);
    membership::leave(draft, caller, instance.service_group, now);
    Ok(Reference {
        uuid: instance.uuid,
        name: instance.name,
    })
}

fn stop(
    draft: &mut Draft,
    caller: Caller,
    request: &StopRequest,
    now: OffsetDateTime,
) -> Result<StateChange, ChangeInstanceError> {
    let instance = find(draft, caller, &request.selector)?;
    if let Some(expected) = &request.only_if
        && *expected != instance.state.name()
    {
        let (name, state) = (instance.name, instance.state);
        return Err(ChangeInstanceError::OtherState {
            name,
            state,
            expected: expected.clone(),
        });
    }
    let deadline = now + request.drain;
    let state = match instance.state {
        _ if request.drain.is_zero() => InstanceState::Stopped,
        InstanceState::Running => InstanceState::draining(now, deadline),
        InstanceState::Draining { since, .. } => InstanceState::draining(since, deadline),
        InstanceState::Stopped | InstanceState::Standby => InstanceState::Stopped,
    };
    // Without a group there is nothing to drain.
    let state = if instance.service_group.is_some() {
        state
    } else {
        InstanceState::Stopped
    };
    Ok(set_state(draft, instance, state))
}

fn set_state(draft: &mut Draft, instance: Instance, state: InstanceState) -> StateChange {
    let previous = instance.state.clone();
    let instance = Instance { state, ..instance };
    if instance.state != previous {
        draft.put_instance(instance.clone());
    }
    StateChange { instance, previous }
}

/// Ends what has drained; returns how many.
pub(super) fn expire_drains(draft: &mut Draft, now: OffsetDateTime) -> usize {
    let after = |instance: &Instance| match instance.state {
        InstanceState::Draining { deadline, then, .. } if deadline <= now => {
            Some((instance.clone(), then))
        }
        _ => None,
    };
    let over: Vec<_> = draft.state().instances.values().filter_map(after).collect();
    let count = over.len();
    for (instance, then) in over {
        match then {
            AfterDrain::Stopped => drop(set_state(draft, instance, InstanceState::Stopped)),
            AfterDrain::Leaves { to } => membership::leave_drained(draft, instance, to, now),
        }
    }
    count
}
