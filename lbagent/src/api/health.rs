//! `/v1/x/health` and `/v1/x/service-groups/{uuid|name}/health`: what the health checks have found.

use std::collections::BTreeSet;

use axum::extract::State;
use lbagent_api::Envelope;
use lbagent_api::health_report::{GroupHealth, HealthData, HealthReport};
use time::OffsetDateTime;
use uuid::Uuid;

use super::Shared;
use super::auth::As;
use super::openapi::bodies;
use super::request::{Body, Word};
use super::respond::{Answer, answer};
use crate::desired::{Role, SetPolicyError};

/// Show what the health checks have found
///
/// Of all groups that the caller may see; an operator, those of all accounts.
#[utoipa::path(
    get, path = "/v1/x/health", operation_id = "get_health",
    responses((status = 200, description = "Groups with checks.", body = bodies::Health))
)]
pub(super) async fn list(State(context): State<Shared>, As(caller): As, body: Body) -> Answer {
    body.empty()?;
    if caller.role == Role::Operator {
        return answer(enveloped(HealthReport {
            taken_at: OffsetDateTime::now_utc(),
            counters: Some(context.health.counters()),
            groups: context.health.report(|_| true),
        }));
    }
    let state = context.desired.current();
    let visible: BTreeSet<Uuid> = state
        .service_groups_of(caller)
        .map(|group| group.uuid)
        .collect();
    part(context.health.report(|group| visible.contains(&group)))
}

/// Show what the health checks of a service group have found
#[utoipa::path(
    get, path = "/v1/x/service-groups/{uuid}/health", operation_id = "get_group_health",
    responses((status = 200, description = "The group, if it has checks.", body = bodies::Health))
)]
pub(super) async fn get_one(
    State(context): State<Shared>,
    As(caller): As,
    Word(selector): Word,
    body: Body,
) -> Answer {
    body.empty()?;
    let state = context.desired.current();
    let group = state.service_group(caller, &selector);
    let uuid = group.ok_or(SetPolicyError::NoServiceGroup(selector))?.uuid;
    part(context.health.report(|group| group == uuid))
}

fn part(groups: Vec<GroupHealth>) -> Answer {
    answer(enveloped(HealthReport {
        taken_at: OffsetDateTime::now_utc(),
        counters: None,
        groups,
    }))
}

fn enveloped(health: HealthReport) -> Envelope<HealthData> {
    Envelope::success(HealthData { health })
}
