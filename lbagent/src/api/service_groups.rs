//! `/v1/services`.

use axum::extract::State;
use axum::response::IntoResponse;
use lbagent_api::envelope::{Item, Reference, ServiceGroups, Warning};
use lbagent_api::listing::{Filters, GroupFilterSpec, ListQuery};
use lbagent_api::request::{parse_one_or_many, qualify_domain};
use lbagent_api::service_group::{
    Autokill, Domain, DomainCertificate, Service, ServiceGroup, ServiceGroupSpec,
};
use lbagent_api::{ContractError, Envelope, ItemError, Selector, dialect_2024};
use serde::Serialize;
use serde_json::json;
use time::OffsetDateTime;

use super::auth::As;
use super::batch::Batch;
use super::openapi::{bodies, params};
use super::request::{Body, Listing, Named, Pairs, bounds, page};
use super::respond::{Answer, answer, change, dialect};
use super::{Dialect, Shared, error};
use crate::desired::{self, Caller, DesiredState, validate};

/// A service group in an answer: whole, or by its names.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Shown {
    Whole(Box<ServiceGroup>),
    Names(Reference),
    Whole2024(dialect_2024::Group),
    Created2024(dialect_2024::Created),
}

/// Create service groups
#[utoipa::path(
    post, path = "/v1/services", operation_id = "create_service_groups",
    request_body = bodies::NewGroups,
    responses((status = 200, description = "What became of each object.", body = bodies::Groups))
)]
pub(super) async fn create(State(context): State<Shared>, As(caller): As, body: Body) -> Answer {
    let specs: Vec<ServiceGroupSpec> = parse_one_or_many(&body.0)?;
    if specs.is_empty() {
        return Err(ContractError::invalid("At least one service is required").into());
    }
    let checks = context.checks();
    let batch = Batch::check(
        &specs,
        |spec| spec.name.as_deref(),
        |spec| validate::service_group(spec, &checks),
    )?;
    let valid = batch.valid;
    let now = OffsetDateTime::now_utc();
    let (written, mut warnings) = change(&context, move |desired| {
        desired.create_service_groups(caller, &valid, &checks, now)
    })
    .await?;
    let made = written.outcome.iter().flatten();
    warnings.extend(made.filter_map(|group| unserved_ports(&context, group)));
    let state = context.desired.current();
    let failed =
        |place: usize, error: &_| error::create_service_group(specs[place].name.as_deref(), error);
    let done = |group: desired::ServiceGroup| created(&state, &group);
    let items = batch.refused.merge(written.outcome, done, failed);
    let envelope = Envelope::of_items(items, |service_groups| ServiceGroups { service_groups });
    if specs.iter().any(|spec| spec.dns_name.is_some()) {
        let message = "'dns_name' is the form of 2024; use 'domains'".to_owned();
        warnings.push(Warning { message });
    }
    answer(Envelope {
        warnings,
        ..envelope
    })
}

/// List service groups
#[utoipa::path(
    get, path = "/v1/services", operation_id = "list_service_groups", params(params::List),
    responses(
        (status = 200, description = "The groups asked for, or all.", body = bodies::GroupList)
    )
)]
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

/// Show a service group
#[utoipa::path(
    get, path = "/v1/services/{uuid}", operation_id = "get_service_group", params(params::Details),
    responses((status = 200, description = "The group.", body = bodies::GroupList))
)]
pub(super) async fn get_one(
    State(context): State<Shared>,
    As(caller): As,
    Named(selector): Named,
    query: Listing,
    body: Body,
) -> Answer {
    let query = query.of_one(selector, &body)?;
    answer(found(&context.desired.current(), caller, &query)?)
}

/// List the names of service groups
///
/// The listing of 2024: names only, of the groups that all filters hold for.
#[utoipa::path(
    get, path = "/v1/services/list", operation_id = "list_service_group_names",
    params(params::List, params::GroupFilter),
    responses(
        (
            status = 200, description = "The groups that all filters hold for.",
            body = bodies::GroupNames
        )
    )
)]
pub(super) async fn names(
    State(context): State<Shared>,
    As(caller): As,
    pairs: Pairs,
    body: Body,
) -> Answer {
    let mut query = pairs.listing(&["persistent", "fqdn"])?;
    query.details = false;
    for spec in parse_one_or_many::<GroupFilterSpec>(&body.0)? {
        query.selectors.extend(query.filters.add(&spec)?);
    }
    if let Some(fqdn) = &query.filters.fqdn {
        // A lookup takes the name as it was answered: without the trailing dot, and whole.
        let whole = format!("{}.", fqdn.trim_end_matches('.'));
        query.filters.fqdn = Some(qualify_domain(&whole, "")?);
    }
    let state = context.desired.current();
    let found = found(&state, caller, &query)?;
    match dialect() {
        Dialect::Current => answer(found),
        Dialect::Of2024 => answer(without_item_status(found)),
    }
}

/// Its items had no status of their own.
fn without_item_status(found: Found) -> Envelope<serde_json::Value> {
    let items = found.data.into_iter().flat_map(|data| data.service_groups);
    let items: Vec<_> = items
        .map(|item| match item {
            Item::Done(group) => json!(group),
            failed @ Item::Failed(_) => json!(failed),
        })
        .collect();
    Envelope {
        status: found.status,
        message: found.message,
        ..Envelope::success(json!({ "service_groups": items }))
    }
}

/// Delete service groups
#[utoipa::path(
    delete, path = "/v1/services", operation_id = "delete_service_groups", params(params::Which),
    request_body = Option<bodies::Selectors>,
    responses(
        (status = 200, description = "What became of each object.", body = bodies::GroupNames)
    )
)]
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

/// Delete a service group
#[utoipa::path(
    delete, path = "/v1/services/{uuid}", operation_id = "delete_service_group",
    responses(
        (status = 200, description = "What became of each object.", body = bodies::GroupNames)
    )
)]
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
    let show = |group: &desired::ServiceGroup| match (query.details, dialect()) {
        (true, Dialect::Current) => Shown::Whole(Box::new(whole(state, group))),
        (true, Dialect::Of2024) => Shown::Whole2024((&whole(state, group)).into()),
        (false, _) => Shown::Names(Reference {
            uuid: group.uuid,
            name: group.name.clone(),
        }),
    };
    let is_meant = |group: &desired::ServiceGroup| {
        let Filters {
            persistent, fqdn, ..
        } = &query.filters;
        let has_domain = |fqdn: &String| group.domains.iter().any(|domain| domain.fqdn == *fqdn);
        persistent.is_none_or(|wanted| wanted == group.persistent)
            && fqdn.as_ref().is_none_or(has_domain)
    };
    let items = match (&query.selectors[..], &query.filters.fqdn) {
        ([], Some(fqdn)) => {
            let owner = state.domain_owner(caller, fqdn);
            let owner = owner.filter(|group| is_meant(group));
            owner.into_iter().map(|one| Item::Done(show(one))).collect()
        }
        ([], None) => {
            let place = |uuid| {
                state
                    .service_groups
                    .get(&uuid)
                    .map(desired::ServiceGroup::place)
            };
            let found = bounds(caller, query, place)?;
            let found = found.map(|places| page(state.groups_between(places), is_meant, query));
            let found = found.into_iter().flatten();
            found.map(|group| Item::Done(show(group))).collect()
        }
        (selectors, _) => {
            let find = |selector| match state.service_group(caller, selector) {
                Some(group) => is_meant(group).then(|| Item::Done(show(group))),
                None => Some(Item::Failed(ItemError::not_found(
                    "service group",
                    selector,
                ))),
            };
            selectors.iter().filter_map(find).collect()
        }
    };
    Ok(Envelope::of_items(items, |service_groups| ServiceGroups {
        service_groups,
    }))
}

fn created(state: &DesiredState, group: &desired::ServiceGroup) -> Shown {
    let group = whole(state, group);
    match dialect() {
        Dialect::Current => Shown::Whole(Box::new(group)),
        Dialect::Of2024 => Shown::Created2024((&group).into()),
    }
}

/// What a group publishes that nothing serves.
pub(super) fn unserved_ports(
    context: &super::Context,
    group: &desired::ServiceGroup,
) -> Option<Warning> {
    if context.terminator.is_active() {
        return None;
    }
    let services = group.services.iter();
    let ports: Vec<String> = services
        .filter(|service| !service.is_raw())
        .map(|service| service.port.to_string())
        .collect();
    (!ports.is_empty()).then(|| Warning {
        message: format!(
            "Service group '{}' publishes with handlers: {}. No terminator runs on this \
             gateway: start lbterm; or, for a raw port, give \"protocol\" and no handlers",
            group.name,
            ports.join(", ")
        ),
    })
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
        autokill_ms,
        empty_since: _,
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
        domains: self::domains(state, group),
        instances: state.members(*uuid).map(member).collect(),
        autokill: (*autokill_ms > 0).then_some(Autokill {
            time_ms: *autokill_ms,
        }),
        fqdn: domains.first().map(|domain| domain.fqdn.clone()),
    }
}

/// A group's domains, each with the certificate that it is served with.
pub(super) fn domains(state: &DesiredState, group: &desired::ServiceGroup) -> Vec<Domain> {
    let now = OffsetDateTime::now_utc();
    let domain = |domain: &desired::Domain| {
        let certificate = state.certificate_for(group.account, domain);
        Domain {
            fqdn: domain.fqdn.clone(),
            certificate: certificate.map(|certificate| DomainCertificate {
                uuid: certificate.uuid,
                name: certificate.name.clone(),
                state: super::certificates::state(certificate, now),
            }),
        }
    };
    group.domains.iter().map(domain).collect()
}
