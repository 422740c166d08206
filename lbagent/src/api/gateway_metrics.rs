//! `/v1/x/metrics`: what collectors of metrics read.

use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::header;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use time::OffsetDateTime;

use super::Shared;
use super::auth::As;
use super::error::ApiError;
use super::request::Body;
use super::respond::Answer;
use crate::desired::Role;
use crate::observe::metrics::{self, CONTENT_TYPE, Gateway, Inputs};
use crate::{observe, status};

/// Show metrics
///
/// In the text format of OpenMetrics. Operators read all of them, others what concerns the certificates
/// and service groups of their account.
#[utoipa::path(
    get, path = "/v1/x/metrics", operation_id = "get_metrics",
    responses((
        status = 200, description = "OpenMetrics text.",
        content((String = "application/openmetrics-text"))
    ))
)]
pub(super) async fn metrics(State(context): State<Shared>, As(caller): As, body: Body) -> Answer {
    body.empty()?;
    let desired = context.desired.current();
    let terminators = context.terminator.rows();
    let now = OffsetDateTime::now_utc();
    let is_operator = caller.role == Role::Operator;
    let text = if is_operator {
        let result = context.reconciler.latest();
        let interfaces = context.interfaces.borrow().clone();
        let conditions: Vec<_> = status::conditions(&desired, &result, &interfaces, now).collect();
        // A data plane that cannot be read must not hide the rest.
        let counters = context.reconciler.counters(Vec::new(), Vec::new()).await;
        let counters = counters
            .ok()
            .map(|counters| observe::counters(&counters, &context.fragments, now));
        metrics::text(metrics::families(&Inputs {
            desired: &desired,
            terminators: &terminators,
            gateway: Some(Gateway {
                started_at: context.started_at,
                result: &result,
                interfaces: &interfaces,
                conditions: &conditions,
                counters: counters.as_ref(),
                refused_requests: context.refusals.count(),
                requests: &context.requests,
                snapshot: context.terminator.snapshot(),
            }),
            account: None,
        }))
    } else {
        metrics::text(metrics::families(&Inputs {
            desired: &desired,
            terminators: &terminators,
            gateway: None,
            account: Some(caller),
        }))
    };
    let text = text.map_err(|_| ApiError::Internal)?;
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response())
}

/// Notes how long a request takes until the head of its answer, by the path that it was matched with.
pub(super) async fn time(State(context): State<Shared>, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let method = request.method().clone();
    let response = next.run(request).await;
    let route = route.as_ref().map_or("other", MatchedPath::as_str);
    let status = response.status().as_u16();
    let requests = &context.requests;
    requests.add(method.as_str(), route, status, began.elapsed());
    response
}
