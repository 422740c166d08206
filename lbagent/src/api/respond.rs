//! What endpoints have in common: blocking work off the async threads, waiting for the data plane,
//! and the envelope.

use std::panic::AssertUnwindSafe;
use std::time::Instant;

use axum::Json;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use lbagent_api::Envelope;
use lbagent_api::envelope::Warning;
use serde::Serialize;

use super::auth::AUTHOR;
use super::error::ApiError;
use super::{APPLY_TIMEOUT, Context, Dialect, Shared};
use crate::desired::{Desired, DesiredError, Expected, Written};

/// Answer of an endpoint.
pub(super) type Answer = Result<Response, ApiError>;

tokio::task_local! {
    /// What the request's `If-Match` asks of every change that is made for it.
    pub(super) static EXPECTED: Option<Expected>;
}

/// The contract answers 200 whenever the request as a whole was understood.
pub(super) fn answer<D: Serialize>(envelope: Envelope<D>) -> Answer {
    Ok(enveloped(envelope))
}

/// The envelope in the form of the listener's dialect.
pub(super) fn enveloped<D: Serialize>(mut envelope: Envelope<D>) -> Response {
    match dialect() {
        Dialect::Current => {
            let took = REQUEST.try_with(|request| request.started.elapsed());
            let micros = took.map(|took| u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
            envelope.op_time_us = micros.ok();
        }
        // The documents of that year know neither of them.
        Dialect::Of2024 => {
            envelope.op_time_us = None;
            envelope.warnings.clear();
        }
    }
    Json(envelope).into_response()
}

/// What holds for everything that is done for a request.
#[derive(Clone, Copy, Debug)]
struct RequestFacts {
    started: Instant,
    dialect: Dialect,
}

tokio::task_local! {
    static REQUEST: RequestFacts;
}

/// The dialect of the listener that the request came through.
pub(super) fn dialect() -> Dialect {
    REQUEST
        .try_with(|request| request.dialect)
        .unwrap_or_default()
}

/// Notes when a request came and through which listener; it is the outermost layer.
pub(super) async fn note(dialect: Dialect, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let facts = RequestFacts { started, dialect };
    REQUEST.scope(facts, next.run(request)).await
}

/// Changes the desired state and waits until the data plane has it. What it does not have in time,
/// or cannot have, becomes a warning: the change itself is stored.
pub(super) async fn change<T: Send + 'static>(
    context: &Shared,
    operation: impl FnOnce(&Desired) -> Result<Written<T>, DesiredError> + Send + 'static,
) -> Result<(Written<T>, Vec<Warning>), ApiError> {
    let mut desired = Desired::clone(&context.desired);
    if let Ok(Some(expected)) = EXPECTED.try_with(Clone::clone) {
        desired = desired.expecting(expected);
    }
    if let Ok(author) = AUTHOR.try_with(|(author, _)| author.clone()) {
        desired = desired.by(author);
    }
    let before = desired.current().generation;
    let written = tokio::task::spawn_blocking(move || operation(&desired))
        .await
        .map_err(|_| ApiError::Internal)?
        .map_err(ApiError::Desired)?;
    // Nothing was written, so there is nothing to wait for.
    if written.generation == before {
        return Ok((written, Vec::new()));
    }
    // A job of many is told of once, whatever it changed.
    let _ = AUTHOR.try_with(|(author, caller)| {
        let account = context.desired.current().access.account(caller.account);
        let account = account.map_or_else(|| caller.account.to_string(), |it| it.name);
        tracing::info!(
            by = %author,
            role = caller.role.name(),
            account,
            generation = written.generation,
            "changed the desired state"
        );
    });
    let warnings = applied(context, written.generation).await;
    Ok((written, warnings))
}

async fn applied(context: &Context, generation: u64) -> Vec<Warning> {
    let message = match context
        .reconciler
        .wait_applied(generation, APPLY_TIMEOUT)
        .await
    {
        Ok(result) => match &result.error {
            None => return Vec::new(),
            Some(error) => format!(
                "Stored, but not yet in the data plane, which is tried again: {error}; see \
                 `lbctl status`"
            ),
        },
        Err(error) => format!("Stored, but not yet in the data plane: {error}; see `lbctl status`"),
    };
    vec![Warning { message }]
}

/// Answers a panic of an endpoint with an envelope, instead of closing the connection.
pub(super) async fn catch_panics(request: Request, next: Next) -> Response {
    // The request's future is dropped after a panic: nobody sees what it left half-done.
    match AssertUnwindSafe(next.run(request)).catch_unwind().await {
        Ok(response) => response,
        Err(_) => ApiError::Internal.into_response(),
    }
}
