//! `/v1/x/instances/{uuid|name}/service-group`.

use std::time::Duration;

use axum::extract::State;
use lbagent_api::envelope::{Reference, Warning};
use lbagent_api::membership::{Leaving, Membership, MembershipData, MembershipSpec};
use lbagent_api::request::parse_body;
use lbagent_api::{Envelope, Selector};
use time::OffsetDateTime;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::Shared;
use super::auth::As;
use super::instances::unreachable_now;
use super::lifecycle::state_word;
use super::openapi::{Refusal, bodies};
use super::request::{Body, Word};
use super::respond::{Answer, answer, change};
use crate::desired::{
    AfterDrain, DesiredState, Instance, InstanceState, MembershipError, instance_remarks,
};

pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(read, put))
}

/// Show which service group an instance serves
#[utoipa::path(
    get, path = "/v1/x/instances/{uuid}/service-group", operation_id = "get_membership",
    responses((status = 200, description = "What it serves.", body = bodies::Membership))
)]
async fn read(
    State(context): State<Shared>,
    As(caller): As,
    Word(selector): Word,
    body: Body,
) -> Answer {
    body.empty()?;
    let state = context.desired.current();
    let instance = state.instance(caller, &selector);
    let instance = instance.ok_or(MembershipError::NoInstance(selector))?;
    let membership = membership(&state, instance);
    answer(Envelope::success(MembershipData { membership }))
}

/// Attach a running instance to a service group, or detach it
#[utoipa::path(
    put, path = "/v1/x/instances/{uuid}/service-group", operation_id = "put_membership",
    request_body = MembershipSpec,
    responses(
        (status = 200, description = "What it serves now.", body = bodies::Membership),
        (status = 409, description = "What else there is does not allow this.", body = Refusal)
    )
)]
async fn put(
    State(context): State<Shared>,
    As(caller): As,
    Word(selector): Word,
    body: Body,
) -> Answer {
    let spec: MembershipSpec = parse_body(&body.0)?;
    let group: Option<Selector> = spec.service_group()?;
    let drain = Duration::from_millis(spec.drain_ms()?);
    let now = OffsetDateTime::now_utc();
    let (written, mut warnings) = change(&context, move |desired| {
        desired.set_service_group(caller, &selector, group.as_ref(), drain, now)
    })
    .await?;
    let moved = written.outcome?;
    let state = context.desired.current();
    if let Some(group) = moved.deleted {
        warnings.push(Warning {
            message: format!(
                "Service group '{}' was made for its instances and is deleted, as the last one left",
                group.name
            ),
        });
    }
    if moved.instance.service_group.is_some() {
        warnings.extend(unreachable_now(&context, &moved.instance));
        let remarks = instance_remarks(&state, &moved.instance);
        warnings.extend(remarks.into_iter().map(|message| Warning { message }));
    }
    let membership = membership(&state, &moved.instance);
    answer(Envelope {
        warnings,
        ..Envelope::success(MembershipData { membership })
    })
}

fn membership(state: &DesiredState, instance: &Instance) -> Membership {
    let reference = |uuid: Option<Uuid>| {
        let group = state.service_groups.get(&uuid?)?;
        Some(Reference {
            uuid: group.uuid,
            name: group.name.clone(),
        })
    };
    Membership {
        service_group: reference(instance.service_group),
        state: state_word(&instance.state),
        leaving: match instance.state {
            InstanceState::Draining {
                deadline: at,
                then: AfterDrain::Leaves { to },
                ..
            } => Some(Leaving {
                at,
                to: reference(to),
            }),
            _ => None,
        },
    }
}
