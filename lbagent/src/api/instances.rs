//! `/v1/instances`.

use std::time::Duration;

use axum::extract::State;
use lbagent_api::envelope::{Instances, Item, Reference, Warning};
use lbagent_api::instance::{
    self as contract, InstanceServiceGroup, InstanceSpec, NetworkInterface,
};
use lbagent_api::lifecycle::{self, DeleteInstanceSpec, StartSpec, StopSpec};
use lbagent_api::request::{ListQuery, parse_one_or_many};
use lbagent_api::{ContractError, Envelope, ErrorCode, ItemError, Selector};
use serde::Serialize;
use time::OffsetDateTime;

use super::auth::As;
use super::request::{Body, Listing, Named, page};
use super::respond::{Answer, answer, change};
use super::service_groups::{domains, missing_selector};
use super::{Shared, error};
use crate::desired::{
    self, Caller, ChangeInstanceError, DesiredState, InstanceState, StateChange, StopRequest,
    validate,
};
use crate::plan::Object;

/// An instance in an answer: whole, or by its names.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Shown {
    Whole(Box<contract::Instance>),
    Names(Reference),
}

pub(super) async fn create(State(context): State<Shared>, As(caller): As, body: Body) -> Answer {
    let specs: Vec<InstanceSpec> = parse_one_or_many(&body.0)?;
    if specs.is_empty() {
        let text = "The request body must be a JSON object or an array of objects";
        return Err(ContractError::new(ErrorCode::MalformedRequest, text).into());
    }
    let checks = context.checks();
    // What breaks a rule refuses the request as a whole, before anything is written.
    let mut refused = Vec::with_capacity(specs.len());
    let mut valid = Vec::new();
    for spec in &specs {
        match validate::instance(spec, &checks) {
            Ok(new) => {
                valid.push(new);
                refused.push(None);
            }
            Err(error) => refused.push(Some(error::refused(spec.name.as_deref(), error)?)),
        }
    }
    let now = OffsetDateTime::now_utc();
    let (written, mut warnings) = change(&context, move |desired| {
        desired.create_instances(caller, &valid, &checks, now)
    })
    .await?;
    warnings.extend(specs.iter().filter_map(without_effect));
    let created = written.outcome.iter().flatten();
    warnings.extend(created.flat_map(|instance| unreachable_now(&context, instance)));
    let mut outcomes = written.outcome.into_iter();
    let state = context.desired.current();
    let items = specs
        .iter()
        .zip(refused)
        .map(|(spec, refused)| match refused {
            Some(error) => Item::Failed(error),
            None => match outcomes.next() {
                Some(Ok(instance)) => Item::Done(whole(&state, &instance)),
                Some(Err(error)) => {
                    Item::Failed(error::create_instance(spec.name.as_deref(), &error))
                }
                None => unreachable!("every valid request has an outcome"),
            },
        });
    let envelope = Envelope::of_items(items.collect(), |instances| Instances { instances });
    answer(Envelope {
        warnings,
        ..envelope
    })
}

fn without_effect(spec: &InstanceSpec) -> Option<Warning> {
    let members = spec.members_without_effect();
    (!members.is_empty()).then(|| Warning {
        message: format!(
            "lbagent starts no machines: {} recorded by nobody and without effect",
            members.join(", ")
        ),
    })
}

/// What keeps a new instance from getting traffic, so that a mistyped address is seen at once.
fn unreachable_now(context: &Shared, instance: &desired::Instance) -> Vec<Warning> {
    let result = context.reconciler.latest();
    let about = result
        .conditions
        .iter()
        .filter(|condition| condition.object == Object::Instance(instance.uuid));
    about
        .map(|condition| Warning {
            message: format!("Instance '{}': {}", instance.name, condition.reason),
        })
        .collect()
}

pub(super) async fn list(
    State(context): State<Shared>,
    As(caller): As,
    query: Listing,
    body: Body,
) -> Answer {
    let query = query.with_body(&body)?;
    let state = context.desired.current();
    answer(found(&state, caller, &query)?)
}

pub(super) async fn get_one(
    State(context): State<Shared>,
    As(caller): As,
    Named(selector): Named,
    Listing(query): Listing,
    body: Body,
) -> Answer {
    body.empty()?;
    Body::without_selector(query.selectors.first().cloned())?;
    let state = context.desired.current();
    let query = ListQuery {
        selectors: vec![selector],
        details: query.details,
        ..ListQuery::default()
    };
    answer(found(&state, caller, &query)?)
}

pub(super) async fn delete(
    State(context): State<Shared>,
    As(caller): As,
    Listing(query): Listing,
    body: Body,
) -> Answer {
    let mut selectors = query.selectors;
    for spec in parse_one_or_many::<DeleteInstanceSpec>(&body.0)? {
        selectors.push(spec.selector()?.ok_or_else(missing_selector)?);
    }
    if selectors.is_empty() {
        return Err(missing_selector().into());
    }
    delete_these(context, caller, selectors).await
}

pub(super) async fn delete_one(
    State(context): State<Shared>,
    As(caller): As,
    Named(selector): Named,
    body: Body,
) -> Answer {
    for spec in parse_one_or_many::<DeleteInstanceSpec>(&body.0)? {
        Body::without_selector(spec.selector()?)?;
    }
    delete_these(context, caller, vec![selector]).await
}

async fn delete_these(context: Shared, caller: Caller, selectors: Vec<Selector>) -> Answer {
    let named = selectors.clone();
    let (written, warnings) = change(&context, move |desired| {
        desired.delete_instances(caller, &named)
    })
    .await?;
    answer(Envelope {
        warnings,
        ..changed(&selectors, written.outcome, |reference| reference)
    })
}

pub(super) async fn stop(State(context): State<Shared>, As(caller): As, body: Body) -> Answer {
    let mut requests = Vec::new();
    for spec in parse_one_or_many::<StopSpec>(&body.0)? {
        let selector = spec.selector()?.ok_or_else(missing_selector)?;
        requests.push(stop_request(selector, &spec)?);
    }
    if requests.is_empty() {
        return Err(missing_selector().into());
    }
    stop_these(context, caller, requests).await
}

pub(super) async fn stop_one(
    State(context): State<Shared>,
    As(caller): As,
    Named(selector): Named,
    body: Body,
) -> Answer {
    let spec = only_one(parse_one_or_many::<StopSpec>(&body.0)?)?;
    Body::without_selector(spec.selector()?)?;
    stop_these(context, caller, vec![stop_request(selector, &spec)?]).await
}

fn stop_request(selector: Selector, spec: &StopSpec) -> Result<StopRequest, ContractError> {
    let drain = Duration::from_millis(spec.drain_ms()?);
    Ok(StopRequest {
        selector,
        drain,
        only_if: spec.ifstate.map(|state| state.as_str().to_owned()),
    })
}

async fn stop_these(context: Shared, caller: Caller, requests: Vec<StopRequest>) -> Answer {
    let selectors: Vec<_> = requests
        .iter()
        .map(|request| request.selector.clone())
        .collect();
    let now = OffsetDateTime::now_utc();
    let (written, warnings) = change(&context, move |desired| {
        desired.stop_instances(caller, &requests, now)
    })
    .await?;
    answer(Envelope {
        warnings,
        ..changed(&selectors, written.outcome, state_change)
    })
}

pub(super) async fn start(State(context): State<Shared>, As(caller): As, body: Body) -> Answer {
    let mut selectors = Vec::new();
    for spec in parse_one_or_many::<StartSpec>(&body.0)? {
        selectors.push(spec.selector()?.ok_or_else(missing_selector)?);
    }
    if selectors.is_empty() {
        return Err(missing_selector().into());
    }
    start_these(context, caller, selectors).await
}

pub(super) async fn start_one(
    State(context): State<Shared>,
    As(caller): As,
    Named(selector): Named,
    body: Body,
) -> Answer {
    let spec = only_one(parse_one_or_many::<StartSpec>(&body.0)?)?;
    Body::without_selector(spec.selector()?)?;
    start_these(context, caller, vec![selector]).await
}

async fn start_these(context: Shared, caller: Caller, selectors: Vec<Selector>) -> Answer {
    let named = selectors.clone();
    let (written, warnings) = change(&context, move |desired| {
        desired.start_instances(caller, &named)
    })
    .await?;
    answer(Envelope {
        warnings,
        ..changed(&selectors, written.outcome, state_change)
    })
}

/// The body of a request whose path names the object.
fn only_one<T: Default>(mut specs: Vec<T>) -> Result<T, ContractError> {
    match specs.len() {
        0 => Ok(T::default()),
        1 => Ok(specs.remove(0)),
        _ => Err(ContractError::new(
            ErrorCode::MalformedRequest,
            "The path names one instance, but the request body holds several objects",
        )),
    }
}

/// An envelope of what became of each instance that was named.
fn changed<T, U>(
    selectors: &[Selector],
    outcomes: Vec<Result<T, ChangeInstanceError>>,
    show: impl Fn(T) -> U,
) -> Envelope<Instances<U>> {
    let items = selectors
        .iter()
        .zip(outcomes)
        .map(|(selector, outcome)| match outcome {
            Ok(done) => Item::Done(show(done)),
            Err(error) => Item::Failed(error::change_instance(selector, &error)),
        });
    Envelope::of_items(items.collect(), |instances| Instances { instances })
}

fn state_change(change: StateChange) -> lifecycle::StateChange {
    let StateChange { instance, previous } = change;
    lifecycle::StateChange {
        uuid: instance.uuid,
        name: instance.name,
        state: state_word(&instance.state),
        previous_state: state_word(&previous),
    }
}

const fn state_word(state: &InstanceState) -> contract::InstanceState {
    match state {
        InstanceState::Running => contract::InstanceState::Running,
        InstanceState::Draining { .. } => contract::InstanceState::Draining,
        InstanceState::Stopped => contract::InstanceState::Stopped,
    }
}

type Found = Envelope<Instances<Shown>>;

fn found(state: &DesiredState, caller: Caller, query: &ListQuery) -> Result<Found, ContractError> {
    let show = |instance: &desired::Instance| match query.details {
        true => Shown::Whole(Box::new(whole(state, instance))),
        false => Shown::Names(Reference {
            uuid: instance.uuid,
            name: instance.name.clone(),
        }),
    };
    let items = if query.selectors.is_empty() {
        let identity = |instance: &desired::Instance| (instance.created_at, instance.uuid);
        let page = page(state.instances_of(caller), identity, query)?;
        page.into_iter()
            .map(|instance| Item::Done(show(instance)))
            .collect()
    } else {
        let find = |selector| match state.instance(caller, selector) {
            Some(instance) => Item::Done(show(instance)),
            None => Item::Failed(ItemError::not_found("instance", selector)),
        };
        query.selectors.iter().map(find).collect()
    };
    Ok(Envelope::of_items(items, |instances| Instances {
        instances,
    }))
}

/// The contract's form of an instance.
fn whole(state: &DesiredState, instance: &desired::Instance) -> contract::Instance {
    let desired::Instance {
        uuid,
        name,
        created_at,
        state: word,
        service_group,
        addresses,
        image,
        account: _,
        // Not part of the contract, which is upstream's: `/v1/x/instances` has it.
        policy: _,
    } = instance;
    let group = service_group.and_then(|uuid| state.service_groups.get(&uuid));
    let interface = |address: &ipnetwork::IpNetwork| NetworkInterface {
        uuid: None,
        private_ip: address.ip().to_string(),
        mac: None,
    };
    contract::Instance {
        uuid: *uuid,
        name: name.clone(),
        created_at: *created_at,
        state: state_word(word),
        image: image.clone(),
        service_group: group.map(|group| InstanceServiceGroup {
            uuid: group.uuid,
            name: group.name.clone(),
            domains: domains(&group.domains),
        }),
        network_interfaces: addresses.iter().map(interface).collect(),
        private_ip: addresses.first().map(|address| address.ip().to_string()),
    }
}
