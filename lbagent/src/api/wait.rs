//! Waiting until instances are in a state: `/v1/instances/wait` and `/v1/instances/{uuid}/wait`.

use std::time::Duration;

use axum::extract::State;
use lbagent_api::envelope::{ALL_FAILED, Instances, Item, ItemError};
use lbagent_api::instance::InstanceState;
use lbagent_api::lifecycle::{WaitSpec, Waited};
use lbagent_api::request::{parse_body, parse_one_or_many, parse_uuid};
use lbagent_api::{ContractError, Envelope, ErrorCode, Selector};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use uuid::Uuid;

use super::Shared;
use super::auth::As;
use super::error::ApiError;
use super::lifecycle::{only_one, state_word};
use super::openapi::{Refusal, bodies, params};
use super::request::{Body, Named, Pairs};
use super::respond::{Answer, answer};
use super::service_groups::missing_selector;
use crate::desired::{Caller, DesiredState};

/// Most requests that wait at the same time.
const MOST: usize = 256;
static WAITERS: Semaphore = Semaphore::const_new(MOST);

/// One instance that somebody waits for.
struct Awaited {
    selector: Selector,
    /// Which one that was when the wait began.
    uuid: Option<Uuid>,
    state: InstanceState,
    until: Instant,
}

/// Wait until instances are in a state
#[utoipa::path(
    method(get, put), path = "/v1/instances/wait", operation_id = "wait_for_instances",
    params(params::Which, params::Wait), request_body = Option<bodies::WaitSpecs>,
    responses(
        (
            status = 200,
            description = "Which instances are in the state, and which are not in time (12).",
            body = bodies::Waits
        ),
        (status = 429, description = "Too many requests wait already.", body = Refusal)
    )
)]
pub(super) async fn several(
    State(context): State<Shared>,
    As(caller): As,
    pairs: Pairs,
    body: Body,
) -> Answer {
    let (query, mut selectors) = read_query(&pairs)?;
    let specs = parse_one_or_many::<WaitSpec>(&body.0)?;
    let mut awaited = Vec::new();
    for spec in &specs {
        let selector = spec.selector()?.ok_or_else(missing_selector)?;
        awaited.push((selector, over(&query, spec)));
    }
    awaited.extend(selectors.drain(..).map(|named| (named, query.clone())));
    if awaited.is_empty() {
        return Err(missing_selector().into());
    }
    wait(context, caller, awaited).await
}

/// Wait until an instance is in a state
#[utoipa::path(
    method(get, put), path = "/v1/instances/{uuid}/wait", operation_id = "wait_for_instance",
    params(params::Wait), request_body = Option<WaitSpec>,
    responses(
        (
            status = 200,
            description = "Which instances are in the state, and which are not in time (12).",
            body = bodies::Waits
        ),
        (status = 429, description = "Too many requests wait already.", body = Refusal)
    )
)]
pub(super) async fn one(
    State(context): State<Shared>,
    As(caller): As,
    Named(selector): Named,
    pairs: Pairs,
    body: Body,
) -> Answer {
    let (query, selectors) = read_query(&pairs)?;
    Body::without_selector(selectors.first().cloned())?;
    let spec = only_one(parse_one_or_many::<WaitSpec>(&body.0)?)?;
    Body::without_selector(spec.selector()?)?;
    wait(context, caller, vec![(selector, over(&query, &spec))]).await
}

/// The query's state and timeouts, and the instances that it names.
fn read_query(pairs: &Pairs) -> Result<(WaitSpec, Vec<Selector>), ContractError> {
    let mut members = serde_json::Map::new();
    let mut selectors = Vec::new();
    for (key, value) in pairs.iter() {
        match key {
            "uuid" => selectors.push(Selector::Uuid(parse_uuid(value)?)),
            "name" => selectors.push(Selector::Name(value.to_owned())),
            "state" => drop(members.insert(key.to_owned(), json!(value))),
            "timeout_s" | "timeout_ms" => {
                let number: i64 = value.parse().map_err(|_| {
                    ContractError::invalid(format!(
                        "Invalid value '{value}' of '{key}': expected a number"
                    ))
                })?;
                members.insert(key.to_owned(), json!(number));
            }
            _ => {
                return Err(ContractError::new(
                    ErrorCode::UnknownMember,
                    format!("Unknown query parameter '{key}'"),
                ));
            }
        }
    }
    let spec = parse_body(Value::Object(members).to_string().as_bytes())?;
    Ok((spec, selectors))
}

/// What the body says holds over what the query says.
fn over(query: &WaitSpec, spec: &WaitSpec) -> WaitSpec {
    let gives_time = spec.timeout_s.is_some() || spec.timeout_ms.is_some();
    let time = if gives_time { spec } else { query };
    WaitSpec {
        state: spec.state.or(query.state),
        timeout_s: time.timeout_s,
        timeout_ms: time.timeout_ms,
        ..WaitSpec::default()
    }
}

async fn wait(context: Shared, caller: Caller, asked: Vec<(Selector, WaitSpec)>) -> Answer {
    let mut changes = context.desired.subscribe();
    let now = Instant::now();
    let mut awaited = Vec::with_capacity(asked.len());
    {
        let state = changes.borrow();
        for (selector, spec) in asked {
            let instance = state.instance(caller, &selector);
            awaited.push(Awaited {
                uuid: instance.map(|instance| instance.uuid),
                selector,
                state: spec.state.unwrap_or(InstanceState::Running),
                until: now + Duration::from_secs(spec.seconds()?),
            });
        }
    }
    let _permit = WAITERS.try_acquire().map_err(|_| {
        ApiError::TooMany("Too many requests wait for instances already; try again later")
    })?;
    loop {
        let state = changes.borrow_and_update().clone();
        let now = Instant::now();
        let items: Vec<_> = awaited.iter().map(|one| look(&state, one)).collect();
        let is_open =
            |(one, item): &(&Awaited, &Item<Waited>)| is_timed_out(item) && one.until > now;
        let open = awaited.iter().zip(&items).filter(is_open);
        let Some(next) = open.map(|(one, _)| one.until).min() else {
            return answer(envelope(items));
        };
        // Both are cancel-safe, and every round looks at all instances.
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return answer(envelope(items)) },
            () = tokio::time::sleep_until(next) => {}
        }
    }
}

fn is_timed_out(item: &Item<Waited>) -> bool {
    matches!(item, Item::Failed(error) if error.error == ErrorCode::TimedOut)
}

/// What there is to say of an instance now: that it is as it should be, that it is gone, or that
/// time is over, if it is.
fn look(state: &DesiredState, awaited: &Awaited) -> Item<Waited> {
    let Awaited {
        selector,
        uuid,
        state: wanted,
        until: _,
    } = awaited;
    let Some(uuid) = *uuid else {
        return Item::Failed(ItemError::not_found("instance", selector));
    };
    let Some(instance) = state.instances.get(&uuid) else {
        return match wanted {
            InstanceState::Deleted => Item::Done(Waited {
                uuid,
                name: match selector {
                    Selector::Name(name) => name.clone(),
                    Selector::Uuid(_) => String::new(),
                },
                state: InstanceState::Deleted,
            }),
            _ => Item::Failed(ItemError::not_found("instance", selector)),
        };
    };
    let found = state_word(&instance.state);
    if found == *wanted {
        return Item::Done(Waited {
            uuid,
            name: instance.name.clone(),
            state: found,
        });
    }
    let message = format!(
        "Timed out waiting for instance '{}' to be {}; it is {}",
        instance.name,
        wanted.as_str(),
        found.as_str()
    );
    Item::Failed(ItemError {
        uuid: Some(uuid.to_string()),
        name: Some(instance.name.clone()),
        state: Some(found),
        ..ItemError::new(selector, ErrorCode::TimedOut, message)
    })
}

/// Official clients know by the message that time was over.
fn envelope(items: Vec<Item<Waited>>) -> Envelope<Instances<Waited>> {
    let timed_out = items.iter().any(is_timed_out);
    let mut envelope = Envelope::of_items(items, |instances| Instances { instances });
    if timed_out && envelope.message.is_some() {
        envelope.message = Some(format!("{ALL_FAILED}: timed out"));
    }
    envelope
}
