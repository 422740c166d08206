//! `/v1/instances`.

use axum::extract::State;
use lbagent_api::envelope::{Instances, Item, Reference, Warning};
use lbagent_api::instance::{
    self as contract, InstanceServiceGroup, InstanceSpec, NetworkInterface,
};
use lbagent_api::lifecycle::DeleteInstanceSpec;
use lbagent_api::listing::ListQuery;
use lbagent_api::request::{parse_one_or_many, parse_selectors};
use lbagent_api::{ContractError, Envelope, ErrorCode, ItemError, Selector};
use serde::Serialize;
use time::OffsetDateTime;

use super::auth::As;
use super::batch::Batch;
use super::lifecycle::{changed, state_word};
use super::openapi::{bodies, params};
use super::request::{Body, Listing, Named, Pairs, bounds, page};
use super::respond::{Answer, answer, change};
use super::service_groups::{domains, missing_selector, unserved_ports};
use super::{Shared, error};
use crate::desired::{self, Caller, DesiredState, validate};
use crate::plan::Object;

/// An instance in an answer: whole, or by its names.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Shown {
    Whole(Box<contract::Instance>),
    Names(Reference),
}

/// Create instances
#[utoipa::path(
    post, path = "/v1/instances", operation_id = "create_instances",
    request_body = bodies::NewInstances,
    responses(
        (status = 200, description = "What became of each object.", body = bodies::InstancesMade)
    )
)]
pub(super) async fn create(State(context): State<Shared>, As(caller): As, body: Body) -> Answer {
    let specs: Vec<InstanceSpec> = parse_one_or_many(&body.0)?;
    if specs.is_empty() {
        let text = "The request body must be a JSON object or an array of objects";
        return Err(ContractError::new(ErrorCode::MalformedRequest, text).into());
    }
    let checks = context.checks();
    let batch = Batch::check(
        &specs,
        |spec| spec.name.as_deref(),
        |spec| validate::instance(spec, &checks),
    )?;
    let valid = batch.valid;
    let now = OffsetDateTime::now_utc();
    let (written, mut warnings) = change(&context, move |desired| {
        desired.create_instances(caller, &valid, &checks, now)
    })
    .await?;
    warnings.extend(specs.iter().filter_map(without_effect));
    let created = written.outcome.iter().flatten();
    warnings.extend(created.flat_map(|instance| unreachable_now(&context, instance)));
    let state = context.desired.current();
    let created = written.outcome.iter().flatten();
    let groups = created.filter_map(|one| state.service_groups.get(&one.service_group?));
    warnings.extend(groups.filter_map(|group| unserved_ports(&context, group)));
    let failed =
        |place: usize, error: &_| error::create_instance(specs[place].name.as_deref(), error);
    let done = |instance: desired::Instance| whole(&context, &state, &instance);
    let items = batch.refused.merge(written.outcome, done, failed);
    let envelope = Envelope::of_items(items, |instances| Instances { instances });
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
pub(super) fn unreachable_now(context: &Shared, instance: &desired::Instance) -> Vec<Warning> {
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

/// List instances
#[utoipa::path(
    get, path = "/v1/instances", operation_id = "list_instances",
    params(params::List, params::Tags),
    responses(
        (
            status = 200, description = "The instances asked for, or all.",
            body = bodies::InstanceList
        )
    )
)]
pub(super) async fn list(
    State(context): State<Shared>,
    As(caller): As,
    pairs: Pairs,
    body: Body,
) -> Answer {
    let mut query = pairs.listing(&["tags"])?;
    query.selectors.extend(parse_selectors(&body.0)?);
    answer(found(&context, caller, &query)?)
}

/// Show an instance
#[utoipa::path(
    get, path = "/v1/instances/{uuid}", operation_id = "get_instance", params(params::Details),
    responses((status = 200, description = "The instance.", body = bodies::InstanceList))
)]
pub(super) async fn get_one(
    State(context): State<Shared>,
    As(caller): As,
    Named(selector): Named,
    query: Listing,
    body: Body,
) -> Answer {
    let query = query.of_one(selector, &body)?;
    answer(found(&context, caller, &query)?)
}

/// Delete instances
#[utoipa::path(
    delete, path = "/v1/instances", operation_id = "delete_instances", params(params::Which),
    request_body = Option<bodies::Deletions>,
    responses(
        (status = 200, description = "What became of each object.", body = bodies::InstanceNames)
    )
)]
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

/// Delete an instance
#[utoipa::path(
    delete, path = "/v1/instances/{uuid}", operation_id = "delete_instance",
    request_body = Option<DeleteInstanceSpec>,
    responses(
        (status = 200, description = "What became of each object.", body = bodies::InstanceNames)
    )
)]
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
        desired.delete_instances(caller, &named, OffsetDateTime::now_utc())
    })
    .await?;
    answer(Envelope {
        warnings,
        ..changed(&selectors, written.outcome, |reference| reference)
    })
}

type Found = Envelope<Instances<Shown>>;

fn found(context: &Shared, caller: Caller, query: &ListQuery) -> Result<Found, ContractError> {
    let state = &context.desired.current();
    let show = |instance: &desired::Instance| match query.details {
        true => Shown::Whole(Box::new(whole(context, state, instance))),
        false => Shown::Names(Reference {
            uuid: instance.uuid,
            name: instance.name.clone(),
        }),
    };
    let items = if query.selectors.is_empty() {
        let place = |uuid| state.instances.get(&uuid).map(desired::Instance::place);
        let has_tags = |instance: &desired::Instance| {
            let mut tags = query.filters.tags.iter();
            tags.all(|tag| instance.tags.contains(tag))
        };
        let found = bounds(caller, query, place)?;
        let found = found.map(|places| page(state.instances_between(places), has_tags, query));
        let found = found.into_iter().flatten();
        found.map(|instance| Item::Done(show(instance))).collect()
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
fn whole(
    context: &Shared,
    state: &DesiredState,
    instance: &desired::Instance,
) -> contract::Instance {
    let desired::Instance {
        uuid,
        name,
        created_at,
        state: word,
        service_group,
        addresses,
        image,
        tags,
        annotations,
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
            domains: domains(state, group),
        }),
        network_interfaces: addresses.iter().map(interface).collect(),
        private_ip: addresses.first().map(|address| address.ip().to_string()),
        private_fqdn: context
            .private_domain
            .as_ref()
            .map(|domain| format!("{name}.{domain}")),
        tags: tags.clone(),
        annotations: annotations.clone(),
    }
}
