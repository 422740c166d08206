//! Starting, stopping and suspending instances: `PUT /v1/instances/…`.

use std::time::Duration;

use axum::extract::State;
use lbagent_api::envelope::{Instances, Item, Warning};
use lbagent_api::instance as contract;
use lbagent_api::lifecycle::{self, StartSpec, StopSpec, SuspendSpec};
use lbagent_api::request::parse_one_or_many;
use lbagent_api::{ContractError, Envelope, ErrorCode, Selector};
use time::OffsetDateTime;

use super::auth::As;
use super::openapi::bodies;
use super::request::{Body, Named};
use super::respond::{Answer, answer, change};
use super::service_groups::missing_selector;
use super::{Shared, error};
use crate::desired::{Caller, ChangeInstanceError, InstanceState, StateChange, StopRequest};

/// Stop instances
#[utoipa::path(
    put, path = "/v1/instances/stop", operation_id = "stop_instances", request_body = bodies::Stops,
    responses(
        (status = 200, description = "What became of each object.", body = bodies::StateChanges)
    )
)]
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

/// Stop an instance
#[utoipa::path(
    put, path = "/v1/instances/{uuid}/stop", operation_id = "stop_instance",
    request_body = Option<StopSpec>,
    responses(
        (status = 200, description = "What became of each object.", body = bodies::StateChanges)
    )
)]
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

/// Start instances
#[utoipa::path(
    put, path = "/v1/instances/start", operation_id = "start_instances",
    request_body = bodies::Starts,
    responses(
        (status = 200, description = "What became of each object.", body = bodies::StateChanges)
    )
)]
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

/// Start an instance
#[utoipa::path(
    put, path = "/v1/instances/{uuid}/start", operation_id = "start_instance",
    request_body = Option<StartSpec>,
    responses(
        (status = 200, description = "What became of each object.", body = bodies::StateChanges)
    )
)]
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

/// Suspend instances
#[utoipa::path(
    put, path = "/v1/instances/suspend", operation_id = "suspend_instances",
    request_body = bodies::Suspends,
    responses(
        (status = 200, description = "What became of each object.", body = bodies::StateChanges)
    )
)]
pub(super) async fn suspend(State(context): State<Shared>, As(caller): As, body: Body) -> Answer {
    let mut selectors = Vec::new();
    for spec in parse_one_or_many::<SuspendSpec>(&body.0)? {
        let spec = suspended(spec)?;
        selectors.push(spec.selector()?.ok_or_else(missing_selector)?);
    }
    if selectors.is_empty() {
        return Err(missing_selector().into());
    }
    suspend_these(context, caller, selectors).await
}

/// Suspend an instance
#[utoipa::path(
    put, path = "/v1/instances/{uuid}/suspend", operation_id = "suspend_instance",
    request_body = Option<SuspendSpec>,
    responses(
        (status = 200, description = "What became of each object.", body = bodies::StateChanges)
    )
)]
pub(super) async fn suspend_one(
    State(context): State<Shared>,
    As(caller): As,
    Named(selector): Named,
    body: Body,
) -> Answer {
    let spec = suspended(only_one(parse_one_or_many::<SuspendSpec>(&body.0)?)?)?;
    Body::without_selector(spec.selector()?)?;
    suspend_these(context, caller, vec![selector]).await
}

/// A machine is suspended at once or not at all; one that drains is stopped.
fn suspended(spec: SuspendSpec) -> Result<StopSpec, ContractError> {
    let spec = StopSpec::from(spec);
    match spec.drain_ms()? {
        0 => Ok(spec),
        _ => Err(ContractError::new(
            ErrorCode::NotSupported,
            "'drain_timeout_ms' of a suspend is not supported: stop the instance with it, then \
             suspend it",
        )),
    }
}

async fn suspend_these(context: Shared, caller: Caller, selectors: Vec<Selector>) -> Answer {
    let named = selectors.clone();
    let (written, mut warnings) = change(&context, move |desired| {
        desired.suspend_instances(caller, &named)
    })
    .await?;
    if written.outcome.iter().any(Result::is_ok) {
        warnings.push(Warning {
            message: "lbagent suspends no machines, and wakes none: a suspended instance gets no \
                      traffic until it is started"
                .to_owned(),
        });
    }
    answer(Envelope {
        warnings,
        ..changed(&selectors, written.outcome, state_change)
    })
}

/// The body of a request whose path names the object.
pub(super) fn only_one<T: Default>(mut specs: Vec<T>) -> Result<T, ContractError> {
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
pub(super) fn changed<T, U>(
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

pub(super) const fn state_word(state: &InstanceState) -> contract::InstanceState {
    match state {
        InstanceState::Running => contract::InstanceState::Running,
        InstanceState::Draining { .. } => contract::InstanceState::Draining,
        InstanceState::Stopped => contract::InstanceState::Stopped,
        InstanceState::Standby => contract::InstanceState::Standby,
    }
}
