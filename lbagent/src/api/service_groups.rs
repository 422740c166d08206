//! `/v1/services`.

use axum::extract::State;
use axum::response::IntoResponse;
use lbagent_api::envelope::{Item, Reference, ServiceGroups, Warning};
use lbagent_api::request::{ListQuery, parse_one_or_many};
use lbagent_api::service_group::{Domain, Service, ServiceGroup, ServiceGroupSpec};
use lbagent_api::{ContractError, Envelope, ItemError, Selector};
use serde::Serialize;
use time::OffsetDateTime;

use super::auth::As;
use super::request::{Body, Listing, Named, page};
use super::respond::{Answer, answer, change};
use super::{Shared, error};
use crate::desired::{self, Caller, DesiredState, validate};

/// A service group in an answer: whole, or by its names.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Shown {
    Whole(Box<ServiceGroup>),
    Names(Reference),
}

pub(super) async fn create(State(context): State<Shared>, As(caller): As, body: Body) -> Answer {
    let specs: Vec<ServiceGroupSpec> = parse_one_or_many(&body.0)?;
    if specs.is_empty() {
        return Err(ContractError::invalid("At least one service is required").into());
    }
    let checks = context.checks();
    // What breaks a rule refuses the request as a whole, before anything is written.
    let mut refused = Vec::with_capacity(specs.len());
    let mut valid = Vec::new();
    for spec in &specs {
        match validate::service_group(spec, &checks) {
            Ok(new) => {
                valid.push(new);
                refused.push(None);
            }
            Err(error) => refused.push(Some(error::refused(spec.name.as_deref(), error)?)),
        }
    }
    let now = OffsetDateTime::now_utc();
    let (written, mut warnings) = change(&context, move |desired| {
        desired.create_service_groups(caller, &valid, &checks, now)
    })
    .await?;
    let mut outcomes = written.outcome.into_iter();
    let state = context.desired.current();
    let items = specs
        .iter()
        .zip(refused)
        .map(|(spec, refused)| match refused {
            Some(error) => Item::Failed(error),
            None => match outcomes.next() {
                Some(Ok(group)) => Item::Done(whole(&state, &group)),
                Some(Err(error)) => {
                    Item::Failed(error::create_service_group(spec.name.as_deref(), &error))
                }
                None => unreachable!("every valid request has an outcome"),
            },
        });
    let envelope = Envelope::of_items(items.collect(), |service_groups| ServiceGroups {
        service_groups,
    });
    if specs.iter().any(|spec| spec.dns_name.is_some()) {
        let message = "'dns_name' is the form of 2024; use 'domains'".to_owned();
        warnings.push(Warning { message });
    }
    answer(Envelope {
        warnings,
        ..envelope
    })
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

/// The listing of 2024: names only.
pub(super) async fn names(
    State(context): State<Shared>,
    As(caller): As,
    query: Listing,
    body: Body,
) -> Answer {
    let query = ListQuery {
        details: false,
        ..query.with_body(&body)?
    };
    let state = context.desired.current();
    answer(found(&state, caller, &query)?)
}

pub(super) async fn delete(
    State(context): State<Shared>,
    As(caller): As,
    Listing(query): Listing,
    body: Body,
) -> Answer {
    let query = Listing(query).with_body(&body)?;
    if query.selectors.is_empty() {
        return Err(missing_selector().into());
    }
    delete_these(context, caller, query.selectors).await
}

pub(super) async fn delete_one(
    State(context): State<Shared>,
    As(caller): As,
    Named(selector): Named,
    body: Body,
) -> Answer {
    body.empty()?;
    delete_these(context, caller, vec![selector]).await
}

/// A request that acts on objects must name them.
pub(super) fn missing_selector() -> ContractError {
    ContractError::new(
        lbagent_api::ErrorCode::MissingId,
        "Missing member 'uuid' or 'name': name the objects in the body",
    )
}

async fn delete_these(context: Shared, caller: Caller, selectors: Vec<Selector>) -> Answer {
    let named = selectors.clone();
    let (written, warnings) = change(&context, move |desired| {
        desired.delete_service_groups(caller, &named)
    })
    .await?;
    let items = selectors
        .iter()
        .zip(written.outcome)
        .map(|(selector, outcome)| match outcome {
            Ok(reference) => Item::Done(reference),
            Err(error) => Item::Failed(error::delete_service_group(selector, &error)),
        });
    let envelope = Envelope::of_items(items.collect(), |service_groups| ServiceGroups {
        service_groups,
    });
    answer(Envelope {
        warnings,
        ..envelope
    })
    .map(IntoResponse::into_response)
}

type Found = Envelope<ServiceGroups<Shown>>;

fn found(state: &DesiredState, caller: Caller, query: &ListQuery) -> Result<Found, ContractError> {
    let show = |group: &desired::ServiceGroup| match query.details {
        true => Shown::Whole(Box::new(whole(state, group))),
        false => Shown::Names(Reference {
            uuid: group.uuid,
            name: group.name.clone(),
        }),
    };
    let items = if query.selectors.is_empty() {
        let identity = |group: &desired::ServiceGroup| (group.created_at, group.uuid);
        let page = page(state.service_groups_of(caller), identity, query)?;
        page.into_iter()
            .map(|group| Item::Done(show(group)))
            .collect()
    } else {
        let find = |selector| match state.service_group(caller, selector) {
            Some(group) => Item::Done(show(group)),
            None => Item::Failed(ItemError::not_found("service group", selector)),
        };
        query.selectors.iter().map(find).collect()
    };
    Ok(Envelope::of_items(items, |service_groups| ServiceGroups {
        service_groups,
    }))
}

/// The contract's form of a group.
fn whole(state: &DesiredState, group: &desired::ServiceGroup) -> ServiceGroup {
    let desired::ServiceGroup {
        uuid,
        name,
        created_at,
        persistent,
        soft_limit,
        hard_limit,
        services,
        domains,
        account: _,
        // Not part of the contract, which is upstream's: `/v1/x/service-groups` has it.
        policy: _,
    } = group;
    let member = |instance: &desired::Instance| Reference {
        uuid: instance.uuid,
        name: instance.name.clone(),
    };
    ServiceGroup {
        uuid: *uuid,
        name: name.clone(),
        created_at: *created_at,
        persistent: *persistent,
        autoscale: false,
        soft_limit: *soft_limit,
        hard_limit: *hard_limit,
        services: services.iter().map(Service::from).collect(),
        domains: self::domains(domains),
        instances: state.members(*uuid).map(member).collect(),
        autokill: None,
        fqdn: domains.first().cloned(),
    }
}

pub(super) fn domains(fqdns: &[String]) -> Vec<Domain> {
    fqdns
        .iter()
        .map(|fqdn| Domain { fqdn: fqdn.clone() })
        .collect()
}
