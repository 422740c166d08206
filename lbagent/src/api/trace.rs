//! `GET /v1/x/trace`: why a flow goes where it goes.

use axum::extract::{FromRequestParts, Query, State};
use axum::http::request::Parts;
use lbagent_api::trace::{TraceData, TraceQuery};
use lbagent_api::{ContractError, Envelope};
use time::OffsetDateTime;

use super::Shared;
use super::auth::Operator;
use super::error::ApiError;
use super::openapi::{bodies, params};
use super::respond::{Answer, answer};
use crate::dataplane::{Hook, InterfaceStatus};
use crate::observe::{self, Arrival};

/// The flow that the query string names.
pub(super) struct Asked(TraceQuery);

impl<S: Send + Sync> FromRequestParts<S> for Asked {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Query(pairs) = Query::<Vec<(String, String)>>::from_request_parts(parts, state)
            .await
            .map_err(|error| ContractError::invalid(error.body_text()))?;
        let pairs = pairs
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()));
        Ok(Self(TraceQuery::parse(pairs)?))
    }
}

/// Explain why a flow goes where it goes
#[utoipa::path(
    get, path = "/v1/x/trace", operation_id = "trace", params(params::Trace),
    responses(
        (status = 200, description = "Every lookup, and what comes of it.", body = bodies::Trace)
    )
)]
pub(super) async fn trace(
    State(context): State<Shared>,
    _: Operator,
    Asked(query): Asked,
) -> Answer {
    let arrival = arrival(&context.interfaces.borrow(), query.interface.as_deref())?;
    let desired = context.desired.current();
    let now = OffsetDateTime::now_utc();
    let trace = context
        .reconciler
        .look_up(move |maps| observe::explain(maps, &desired, &query, arrival.as_ref(), now))
        .await
        .map_err(ApiError::Observe)?;
    answer(Envelope::success(TraceData { trace }))
}

/// The named client-facing interface, else the first one.
fn arrival(
    interfaces: &[InterfaceStatus],
    wanted: Option<&str>,
) -> Result<Option<Arrival>, ContractError> {
    let mut clients = interfaces.iter().filter_map(|status| {
        let ifindex = status.ifindex.filter(|_| status.hook == Hook::Client)?;
        let interface = status.interface.clone();
        Some(Arrival { interface, ifindex })
    });
    let Some(wanted) = wanted else {
        return Ok(clients.next());
    };
    let known: Vec<String> = clients.clone().map(|client| client.interface).collect();
    match clients.find(|client| client.interface == wanted) {
        Some(found) => Ok(Some(found)),
        None => Err(ContractError::invalid(format!(
            "No client-facing interface '{wanted}'; there is {}",
            if known.is_empty() {
                "none".to_owned()
            } else {
                known.join(", ")
            }
        ))),
    }
}
