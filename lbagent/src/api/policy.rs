//! `/v1/x/service-groups/{uuid|name}/policy` and `/v1/x/instances/{uuid|name}/policy`.

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use lbagent_api::envelope::Warning;
use lbagent_api::policy::PolicyData;
use lbagent_api::request::parse_body;
use lbagent_api::{Envelope, Selector, paths};
use serde::Serialize;

use super::Shared;
use super::auth::As;
use super::error::ApiError;
use super::request::{Body, Word};
use super::respond::{Answer, answer, change};
use crate::desired::{self, GroupPolicy, InstancePolicy, SetPolicyError};

pub(super) fn routes() -> Router<Shared> {
    let path = |objects: &str| format!("{objects}/{{uuid}}/policy");
    Router::new()
        .route(
            &path(paths::X_SERVICE_GROUPS),
            get(get_group).put(put_group),
        )
        .route(
            &path(paths::X_INSTANCES),
            get(get_instance).put(put_instance),
        )
}

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

async fn put_group(
    State(context): State<Shared>,
    As(caller): As,
    Word(selector): Word,
    body: Body,
) -> Answer {
    let PolicyData::<GroupPolicy> { policy } = parse_body(&body.0)?;
    let (written, mut warnings) = change(&context, move |desired| {
        desired.set_group_policy(caller, &selector, &policy)
    })
    .await?;
    let group = written.outcome?;
    let remarks = desired::group_remarks(&context.desired.current(), &group);
    warnings.extend(remarks.into_iter().map(|message| Warning { message }));
    answer(enveloped(group.policy, warnings))
}

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
