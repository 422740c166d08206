//! `PATCH /v1/services` and `PATCH /v1/services/{uuid}`.

use axum::extract::State;
use lbagent_api::envelope::{Item, ServiceGroups};
use lbagent_api::patch::{PatchSpec, Patched};
use lbagent_api::request::parse_one_or_many;
use lbagent_api::{ContractError, Envelope, ErrorCode, Selector};
use time::OffsetDateTime;

use super::auth::As;
use super::openapi::bodies;
use super::request::{Body, Named};
use super::respond::{Answer, answer, change};
use super::service_groups::{missing_selector, unserved_ports};
use super::{Shared, error};
use crate::desired::{Caller, PatchOperation, validate};

/// Change service groups
#[utoipa::path(
    patch, path = "/v1/services", operation_id = "patch_service_groups",
    request_body = bodies::Patches,
    responses((status = 200, description = "One item for each operation.", body = bodies::Patched))
)]
pub(super) async fn groups(State(context): State<Shared>, As(caller): As, body: Body) -> Answer {
    let specs: Vec<PatchSpec> = parse_one_or_many(&body.0)?;
    let mut named = Vec::with_capacity(specs.len());
    for spec in specs {
        let selector = spec.selector()?.ok_or_else(missing_selector)?;
        named.push((selector, spec));
    }
    patch(context, caller, named).await
}

/// Change a service group
#[utoipa::path(
    patch, path = "/v1/services/{uuid}", operation_id = "patch_service_group",
    request_body = bodies::Patches,
    responses((status = 200, description = "One item for each operation.", body = bodies::Patched))
)]
pub(super) async fn group(
    State(context): State<Shared>,
    As(caller): As,
    Named(selector): Named,
    body: Body,
) -> Answer {
    let specs: Vec<PatchSpec> = parse_one_or_many(&body.0)?;
    for spec in &specs {
        Body::without_selector(spec.selector()?)?;
    }
    let named = specs.into_iter().map(|spec| (selector.clone(), spec));
    patch(context, caller, named.collect()).await
}

async fn patch(context: Shared, caller: Caller, named: Vec<(Selector, PatchSpec)>) -> Answer {
    if named.is_empty() {
        return Err(ContractError::new(
            ErrorCode::MalformedRequest,
            "The request body must hold one operation at least: {\"prop\": …, \"op\": …, \"value\": …}",
        )
        .into());
    }
    let checks = context.checks();
    // What breaks a rule whatever the groups are like refuses the request as a whole.
    let mut operations = Vec::with_capacity(named.len());
    for (selector, spec) in &named {
        operations.push(PatchOperation {
            selector: selector.clone(),
            change: validate::patch_change(&spec.change()?, &checks)?,
        });
    }
    let now = OffsetDateTime::now_utc();
    let (written, mut warnings) = change(&context, move |desired| {
        desired.patch_service_groups(caller, &operations, &checks, now)
    })
    .await?;
    let state = context.desired.current();
    let done = written.outcome.iter().flatten();
    let mut changed: Vec<_> = done.map(|reference| reference.uuid).collect();
    changed.dedup();
    let changed = changed
        .iter()
        .filter_map(|uuid| state.service_groups.get(uuid));
    warnings.extend(changed.filter_map(|group| unserved_ports(&context, group)));
    let items = named.into_iter().zip(written.outcome);
    let items = items.map(|((selector, spec), outcome)| match outcome {
        Ok(reference) => Item::Done(Patched {
            uuid: reference.uuid,
            name: reference.name,
            id: spec.id,
        }),
        Err(error) => Item::Failed(error::patch_service_group(&selector, spec.id, &error)),
    });
    let envelope = Envelope::of_items(items.collect(), |service_groups| ServiceGroups {
        service_groups,
    });
    answer(Envelope {
        warnings,
        ..envelope
    })
}
