//! What instances got and gave: `/v1/instances/metrics` and `/v1/instances/{uuid}/metrics`.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::IntoResponse;
use lbagent_api::envelope::{Instances, Item, ItemError};
use lbagent_api::metrics::{InstanceMetrics, prometheus_text};
use lbagent_api::request::parse_selectors;
use lbagent_api::{Envelope, Selector};
use lbagent_common::TrafficCounter;
use uuid::Uuid;

use super::Shared;
use super::auth::As;
use super::error::ApiError;
use super::extensions::observe;
use super::lifecycle::state_word;
use super::openapi::{Refusal, bodies, params};
use super::request::{Body, Listing, Named};
use super::respond::{Answer, answer};
use crate::desired::{Caller, Instance};

/// Prometheus' text format.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Show what instances got and gave
#[utoipa::path(
    get, path = "/v1/instances/metrics", operation_id = "get_instances_metrics",
    params(params::Which),
    responses(
        (
            status = 200, description = "Prometheus text, or JSON if `Accept` names it.",
            content((bodies::Metrics = "application/json"), (String = "text/plain"))
        ),
        (status = 404, description = "No such instance, where text is asked for.", body = Refusal)
    )
)]
pub(super) async fn several(
    State(context): State<Shared>,
    As(caller): As,
    Listing(mut query): Listing,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    query.selectors.extend(parse_selectors(&body.0)?);
    metrics(context, caller, &headers, query.selectors).await
}

/// Show what an instance got and gave
#[utoipa::path(
    get, path = "/v1/instances/{uuid}/metrics", operation_id = "get_instance_metrics",
    responses(
        (
            status = 200, description = "Prometheus text, or JSON if `Accept` names it.",
            content((bodies::Metrics = "application/json"), (String = "text/plain"))
        ),
        (status = 404, description = "No such instance, where text is asked for.", body = Refusal)
    )
)]
pub(super) async fn one(
    State(context): State<Shared>,
    As(caller): As,
    Named(selector): Named,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    body.empty()?;
    metrics(context, caller, &headers, vec![selector]).await
}

/// Of the instances named, or of all.
async fn metrics(
    context: Shared,
    caller: Caller,
    headers: &HeaderMap,
    selectors: Vec<Selector>,
) -> Answer {
    let desired = context.desired.current();
    let observation = observe(&context, &desired).await;
    let observation = observation.map_err(ApiError::Observe)?;
    let mut counters: BTreeMap<Uuid, TrafficCounter> = BTreeMap::new();
    for (id, backend) in &observation.actual.backends {
        if let Some(counter) = observation.counters.backends.get(id) {
            let sum = counters
                .entry(Uuid::from_bytes(backend.instance))
                .or_default();
            sum.flows += counter.flows;
            sum.in_packets += counter.in_packets;
            sum.in_bytes += counter.in_bytes;
            sum.out_packets += counter.out_packets;
            sum.out_bytes += counter.out_bytes;
        }
    }
    let in_flight = context.terminator.in_flight();
    let show = |instance: &Instance| InstanceMetrics {
        nreqs: in_flight.get(&instance.uuid).copied(),
        ..row(instance, counters.get(&instance.uuid))
    };
    let items: Vec<Item<InstanceMetrics>> = if selectors.is_empty() {
        let instances = desired.instances_of(caller);
        instances.map(show).map(Item::Done).collect()
    } else {
        let find = |selector| match desired.instance(caller, selector) {
            Some(instance) => Item::Done(show(instance)),
            None => Item::Failed(ItemError::not_found("instance", selector)),
        };
        selectors.iter().map(find).collect()
    };
    if wants_json(headers) {
        return answer(Envelope::of_items(items, |instances| Instances {
            instances,
        }));
    }
    let mut found = Vec::with_capacity(items.len());
    for item in items {
        found.push(
            item.into_result()
                .map_err(|error| ApiError::NoSuchObject(error.message))?,
        );
    }
    Ok(([(header::CONTENT_TYPE, TEXT)], prometheus_text(&found)).into_response())
}

fn row(instance: &Instance, counter: Option<&TrafficCounter>) -> InstanceMetrics {
    let counter = counter.copied().unwrap_or_default();
    InstanceMetrics {
        uuid: instance.uuid,
        name: instance.name.clone(),
        state: state_word(&instance.state),
        rx_bytes: counter.in_bytes,
        rx_packets: counter.in_packets,
        tx_bytes: counter.out_bytes,
        tx_packets: counter.out_packets,
        ntotal: counter.flows,
        nreqs: None,
    }
}

/// JSON goes to whoever names it; the text is the default, as collectors expect.
fn wants_json(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter();
    accepted
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.to_ascii_lowercase().contains("application/json"))
}
