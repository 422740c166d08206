//! `/v1/x/…`, lbagent's own, and `/v1/healthz`.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use lbagent_api::Envelope;
use lbagent_api::envelope::Warning;
use lbagent_api::healthz::{CheckResult, Checks, NodeHealth};
use lbagent_api::request::parse_body;
use lbagent_api::state::{ExportQuery, ImportData, Imported, StateData, StateDocument, StatePath};
use lbagent_api::status::{AgentInfo, CountersData, StatusData, TableData};
use time::OffsetDateTime;

use super::Shared;
use super::auth::Operator;
use super::error::ApiError;
use super::openapi::{bodies, params};
use super::request::{Body, Pairs};
use super::respond::{Answer, answer, change};
use crate::desired::document::Secrets;
use crate::desired::{DesiredState, document};
use crate::reconcile::{Observation, ObserveError};
use crate::{observe, plan, status};

/// Show how the agent and every object are
#[utoipa::path(
    get, path = "/v1/x/status", operation_id = "get_status",
    responses((status = 200, description = "Desired against applied.", body = bodies::Status))
)]
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
        terminators: context.terminator.rows(),
        now: OffsetDateTime::now_utc(),
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

/// Show VIPs and backends as the data plane has them
#[utoipa::path(
    get, path = "/v1/x/table", operation_id = "get_table",
    responses((status = 200, description = "The table.", body = bodies::Table))
)]
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

/// Count packets by reason
#[utoipa::path(
    get, path = "/v1/x/counters", operation_id = "get_counters",
    responses((status = 200, description = "All outcomes.", body = bodies::Counters))
)]
pub(super) async fn counters(State(context): State<Shared>, _: Operator) -> Answer {
    let counters = context.reconciler.counters(Vec::new(), Vec::new()).await;
    let counters = counters.map_err(ApiError::Observe)?;
    let counters = observe::counters(&counters, &context.fragments, OffsetDateTime::now_utc());
    answer(Envelope::success(CountersData { counters }))
}

/// Export the desired state
#[utoipa::path(
    get, path = "/v1/x/state", operation_id = "export_state", params(params::Export),
    responses((status = 200, description = "The state as one document.", body = bodies::State))
)]
pub(super) async fn export(State(context): State<Shared>, _: Operator, pairs: Pairs) -> Answer {
    let query = ExportQuery::parse(pairs.iter())?;
    let (desired, secrets) = match query.private_keys {
        true => with_private_keys(&context).await?,
        false => (context.desired.current(), Secrets::default()),
    };
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
    let state = document::export(&desired, &context.gateway, Some(paths), &secrets);
    answer(Envelope::success(StateData { state }))
}

async fn with_private_keys(context: &Shared) -> Result<(Arc<DesiredState>, Secrets), ApiError> {
    let desired = Arc::clone(&context.desired);
    let reading = tokio::task::spawn_blocking(move || desired.with_private_keys());
    let read = reading.await.map_err(|_| ApiError::Internal)?;
    read.map_err(ApiError::Desired)
}

/// Replace the desired state
///
/// All or nothing. What comes from the agent's configuration is not changed.
#[utoipa::path(
    put, path = "/v1/x/state", operation_id = "import_state", request_body = StateDocument,
    responses((status = 200, description = "What was done.", body = bodies::Import))
)]
pub(super) async fn import(State(context): State<Shared>, _: Operator, body: Body) -> Answer {
    let vips = context.gateway.vips.clone();
    // Work for a thread that may be busy for a while, and that ends after it: memory that one thread
    // takes and others free stays with that thread.
    let reading = tokio::task::spawn_blocking(move || {
        let document: StateDocument = parse_body(&body.0)?;
        document::import(&document, &vips)
    });
    let wanted = reading.await.map_err(|_| ApiError::Internal)??;
    let wanted = wanted.for_running_agent();
    let (written, mut warnings) = change(&context, move |desired| desired.replace(&wanted)).await?;
    if written.outcome?.tokens_left_out {
        let message = "Tokens of the document were left out, because this agent has tokens of its \
                       own: they stay as they are"
            .to_owned();
        warnings.push(Warning { message });
    }
    let now = context.desired.current();
    let imported = Imported {
        generation: written.generation,
        service_groups: now.service_groups.len(),
        instances: now.instances.len(),
        certificates: now.certificates.len(),
    };
    answer(Envelope {
        warnings,
        ..Envelope::success(ImportData { imported })
    })
}

/// Tell whether the agent is healthy
#[utoipa::path(
    get, path = "/v1/healthz", operation_id = "get_healthz",
    responses(
        (
            status = 200, description = "Whether what is desired is applied.",
            body = bodies::NodeHealth
        )
    )
)]
pub(super) async fn healthz(State(context): State<Shared>) -> Answer {
    let result = context.reconciler.latest();
    let word = |is_healthy: bool| match is_healthy {
        true => CheckResult::Healthy,
        false => CheckResult::Degraded,
    };
    let attached = context
        .interfaces
        .borrow()
        .iter()
        .all(|interface| interface.mode.is_some());
    let dataplane = match result.pass {
        0 => CheckResult::Unknown,
        _ => word(result.error.is_none()),
    };
    let version = env!("CARGO_PKG_VERSION").to_owned();
    answer(Envelope::success(NodeHealth {
        checks: Checks {
            dataplane,
            interfaces: word(attached),
        },
        versions: [("lbagent".to_owned(), version)].into(),
    }))
}
