//! `GET /v1/x/monitor`: what becomes of packets, as a stream of lines.

use std::convert::Infallible;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequestParts, Query, State};
use axum::http::header;
use axum::http::request::Parts;
use axum::response::IntoResponse;
use futures_util::stream;
use lbagent_api::ContractError;
use lbagent_api::monitor::MonitorQuery;

use super::Shared;
use super::auth::Operator;
use super::error::ApiError;
use super::openapi::{Refusal, params};
use super::respond::Answer;

/// The packets that the query string asks for.
pub(super) struct Asked(MonitorQuery);

impl<S: Send + Sync> FromRequestParts<S> for Asked {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Query(pairs) = Query::<Vec<(String, String)>>::from_request_parts(parts, state)
            .await
            .map_err(|error| ContractError::invalid(error.body_text()))?;
        let pairs = pairs
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()));
        Ok(Self(MonitorQuery::parse(pairs)?))
    }
}

/// Watch what becomes of packets
///
/// A stream of lines, each a `MonitorLine`, until the client closes it.
#[utoipa::path(
    get, path = "/v1/x/monitor", operation_id = "monitor", params(params::Monitor),
    responses(
        (
            status = 200, description = "Lines of JSON.", body = String,
            content_type = "application/x-ndjson"
        ),
        (status = 404, description = "No such object.", body = Refusal)
    )
)]
pub(super) async fn monitor(
    State(context): State<Shared>,
    _: Operator,
    Asked(query): Asked,
) -> Answer {
    let desired = context.desired.current();
    let watching = context.monitor.watch(&query, &desired).await;
    let lines = watching.map_err(ApiError::Watch)?;
    // The client that closes the connection drops the stream, and with it the receiver.
    let stream = stream::unfold(lines, |mut lines| async {
        let line = lines.recv().await?;
        let mut text = serde_json::to_vec(&line).ok()?;
        text.push(b'\n');
        Some((Ok::<_, Infallible>(Bytes::from(text)), lines))
    });
    let headers = [
        (header::CONTENT_TYPE, "application/x-ndjson"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    Ok((headers, Body::from_stream(stream)).into_response())
}
