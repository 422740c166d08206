//! `/v1/x/service-groups/{uuid|name}/policy` and `/v1/x/instances/{uuid|name}/policy`.

use axum::extract::State;
use lbagent_api::envelope::Warning;
use lbagent_api::policy::PolicyData;
use lbagent_api::request::parse_body;
use lbagent_api::{Envelope, Selector};
use serde::Serialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Shared;
use super::auth::As;
use super::error::ApiError;
use super::openapi::{Refusal, bodies};
use super::request::{Body, Word};
use super::respond::{Answer, answer, change};
use crate::desired::{self, GroupPolicy, InstancePolicy, SetPolicyError};

pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(get_group, put_group))
        .routes(routes!(get_instance, put_instance))
}

/// Show the policy of a service group
#[utoipa::path(
    get, path = "/v1/x/service-groups/{uuid}/policy", operation_id = "get_group_policy",
    responses((status = 200, description = "The policy.", body = bodies::GroupPolicyAnswer))
)]
async fn get_group(
    State(context): State<Shared>,
    As(caller): As,
    Word(selector): Word,
    body: Body,
) -> Answer {
    body.empty()?;
    let state = context.desired.current();
    let group = state.service_group(caller, &selector);
    let group = group.ok_or_else(|| missing(SetPolicyError::NoServiceGroup, &selector))?;
    answer(enveloped(group.policy.clone(), Vec::new()))
}

/// Replace the policy of a service group
#[utoipa::path(
    put, path = "/v1/x/service-groups/{uuid}/policy", operation_id = "put_group_policy",
    request_body = bodies::GroupPolicyBody,
    responses(
        (status = 200, description = "The policy.", body = bodies::GroupPolicyAnswer),
        (status = 409, description = "What else there is does not allow this.", body = Refusal)
    )
)]
async fn put_group(
    State(context): State<Shared>,
    As(caller): As,
    Word(selector): Word,
    body: Body,
) -> Answer {
    let PolicyData::<GroupPolicy> { policy } = parse_body(&body.0)?;
    let vips = context.gateway.vips.clone();
    let (written, mut warnings) = change(&context, move |desired| {
        desired.set_group_policy(caller, &selector, &policy, &vips)
    })
    .await?;
    let group = written.outcome?;
    let remarks = desired::group_remarks(&context.desired.current(), &group);
    warnings.extend(remarks.into_iter().map(|message| Warning { message }));
    answer(enveloped(group.policy, warnings))
}

/// Show the policy of an instance
#[utoipa::path(
    get, path = "/v1/x/instances/{uuid}/policy", operation_id = "get_instance_policy",
    responses((status = 200, description = "The policy.", body = bodies::InstancePolicyAnswer))
)]
async fn get_instance(
    State(context): State<Shared>,
    As(caller): As,
    Word(selector): Word,
    body: Body,
) -> Answer {
    body.empty()?;
    let state = context.desired.current();
    let instance = state.instance(caller, &selector);
    let instance = instance.ok_or_else(|| missing(SetPolicyError::NoInstance, &selector))?;
    answer(enveloped(instance.policy.clone(), Vec::new()))
}

/// Replace the policy of an instance
#[utoipa::path(
    put, path = "/v1/x/instances/{uuid}/policy", operation_id = "put_instance_policy",
    request_body = bodies::InstancePolicyBody,
    responses(
        (status = 200, description = "The policy.", body = bodies::InstancePolicyAnswer),
        (status = 409, description = "What else there is does not allow this.", body = Refusal)
    )
)]
async fn put_instance(
    State(context): State<Shared>,
    As(caller): As,
    Word(selector): Word,
    body: Body,
) -> Answer {
    let PolicyData::<InstancePolicy> { policy } = parse_body(&body.0)?;
    let (written, mut warnings) = change(&context, move |desired| {
        desired.set_instance_policy(caller, &selector, &policy)
    })
    .await?;
    let instance = written.outcome?;
    let remarks = desired::instance_remarks(&context.desired.current(), &instance);
    warnings.extend(remarks.into_iter().map(|message| Warning { message }));
    answer(enveloped(instance.policy, warnings))
}

fn missing(error: fn(Selector) -> SetPolicyError, selector: &Selector) -> ApiError {
    error(selector.clone()).into()
}

fn enveloped<P: Serialize>(policy: P, warnings: Vec<Warning>) -> Envelope<PolicyData<P>> {
    Envelope {
        warnings,
        ..Envelope::success(PolicyData { policy })
    }
}
