//! `/v1/x/…`, lbagent's own, and `/v1/healthz`.

use std::collections::BTreeMap;

use axum::extract::State;
use lbagent_api::Envelope;
use lbagent_api::request::parse_body;
use lbagent_api::state::{ImportData, Imported, StateData, StateDocument, StatePath};
use lbagent_api::status::{AgentInfo, CountersData, StatusData, TableData};
use serde_json::json;
use time::OffsetDateTime;

use super::Shared;
use super::auth::Operator;
use super::error::ApiError;
use super::request::Body;
use super::respond::{Answer, answer, change};
use crate::desired::{DesiredState, document};
use crate::reconcile::{Observation, ObserveError};
use crate::{observe, plan, status};

pub(super) async fn status(State(context): State<Shared>, _: Operator) -> Answer {
    // A data plane that cannot be read must not hide the rest.
    let desired = context.desired.current();
    let observation = observe(&context, &desired).await;
    let interfaces = context.interfaces.borrow().clone();
    let status = status::agent_status(&status::Inputs {
        agent: AgentInfo {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            abi_version: lbagent_common::ABI_VERSION,
            pid: std::process::id(),
            started_at: context.started_at,
            refused_requests: context.refusals.count(),
        },
        gateway: &context.gateway,
        desired: &desired,
        result: &context.reconciler.latest(),
        interfaces: &interfaces,
        object: context.object.as_ref(),
        observation: observation.as_ref(),
    });
    answer(Envelope::success(StatusData { status }))
}

pub(super) async fn observe(
    context: &Shared,
    desired: &DesiredState,
) -> Result<Observation, ObserveError> {
    context
        .reconciler
        .observe(plan::backend_addresses(desired))
        .await
}

pub(super) async fn table(State(context): State<Shared>, _: Operator) -> Answer {
    let desired = context.desired.current();
    let observation = observe(&context, &desired)
        .await
        .map_err(ApiError::Observe)?;
    let generation = context.reconciler.latest().generation;
    let table = observe::table(
        &desired,
        &observation,
        generation,
        OffsetDateTime::now_utc(),
    );
    answer(Envelope::success(TableData { table }))
}

pub(super) async fn counters(State(context): State<Shared>, _: Operator) -> Answer {
    let counters = context.reconciler.counters(Vec::new(), Vec::new()).await;
    let counters = counters.map_err(ApiError::Observe)?;
    let counters = observe::counters(&counters, &context.fragments, OffsetDateTime::now_utc());
    answer(Envelope::success(CountersData { counters }))
}

pub(super) async fn export(State(context): State<Shared>, _: Operator) -> Answer {
    let desired = context.desired.current();
    let observation = observe(&context, &desired)
        .await
        .map_err(ApiError::Observe)?;
    let paths: BTreeMap<_, _> = observation
        .actual
        .paths
        .into_iter()
        .map(|(address, path)| {
            let crate::dataplane::Path {
                ifindex,
                source,
                onlink_prefix,
                // Of this host's interfaces; a replay has its own.
                takes_xdp: _,
                mtu: _,
                next_hop: _,
            } = path;
            (
                address,
                StatePath {
                    ifindex,
                    source,
                    onlink_prefix,
                },
            )
        })
        .collect();
    let state = document::export(&desired, &context.gateway, Some(paths));
    answer(Envelope::success(StateData { state }))
}

pub(super) async fn import(State(context): State<Shared>, _: Operator, body: Body) -> Answer {
    let wanted: StateDocument = parse_body(&body.0)?;
    let wanted = document::import(&wanted, &context.gateway.vips)?;
    let (service_groups, instances) = (wanted.service_groups.len(), wanted.instances.len());
    let (written, warnings) = change(&context, move |desired| desired.replace(&wanted)).await?;
    written.outcome?;
    let imported = Imported {
        generation: written.generation,
        service_groups,
        instances,
    };
    answer(Envelope {
        warnings,
        ..Envelope::success(ImportData { imported })
    })
}

pub(super) async fn healthz(State(context): State<Shared>) -> Answer {
    let result = context.reconciler.latest();
    let word = |healthy: bool| if healthy { "healthy" } else { "degraded" };
    let attached = context
        .interfaces
        .borrow()
        .iter()
        .all(|interface| interface.mode.is_some());
    let reconciled = match result.pass {
        0 => "unknown",
        _ => word(result.error.is_none()),
    };
    let node = json!({
        "checks": { "dataplane": reconciled, "interfaces": word(attached) },
        "versions": { "lbagent": env!("CARGO_PKG_VERSION") },
    });
    answer(Envelope::success(node))
}
