//! `/v1/x/terminators`: who takes connections to ports with handlers.

use axum::extract::{Path, State};
use lbagent_api::request::parse_body;
use lbagent_api::terminators::{AuthorityData, RegisterSpec, TerminatorData, TerminatorsData};
use lbagent_api::{ContractError, Envelope};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Shared;
use super::auth::Operator;
use super::openapi::{Refusal, bodies};
use super::request::Body;
use super::respond::{Answer, answer};

/// The paths of terminators.
pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(list, register))
        .routes(routes!(authority))
        .routes(routes!(drain))
        .routes(routes!(upgrade))
}

/// List terminators
#[utoipa::path(
    get, path = "/v1/x/terminators", operation_id = "list_terminators",
    responses((status = 200, description = "All of them.", body = bodies::Terminators))
)]
pub(super) async fn list(State(context): State<Shared>, _: Operator, body: Body) -> Answer {
    body.empty()?;
    let terminators = context.terminator.list().await?;
    answer(Envelope::success(TerminatorsData { terminators }))
}

/// Register another program's listening sockets
///
/// It must run on the gateway's host and listen already.
#[utoipa::path(
    post, path = "/v1/x/terminators", operation_id = "register_terminator",
    request_body = RegisterSpec,
    responses(
        (status = 200, description = "The terminator.", body = bodies::Terminator),
        (status = 409, description = "The process has no such socket, or the socket is registered.", body = Refusal)
    )
)]
pub(super) async fn register(State(context): State<Shared>, _: Operator, body: Body) -> Answer {
    let spec: RegisterSpec = parse_body(&body.0)?;
    spec.validate()?;
    let terminator = context.terminator.register(spec).await?;
    answer(Envelope::success(TerminatorData { terminator }))
}

/// Drain a terminator
///
/// It takes no more connections and finishes those it has.
#[utoipa::path(
    post, path = "/v1/x/terminators/{id}/drain", operation_id = "drain_terminator",
    params(("id" = u32, Path, description = "Its number.")),
    responses(
        (status = 200, description = "The terminator.", body = bodies::Terminator),
        (status = 409, description = "It cannot be drained now.", body = Refusal)
    )
)]
pub(super) async fn drain(
    State(context): State<Shared>,
    _: Operator,
    Path(id): Path<String>,
    body: Body,
) -> Answer {
    nothing(&body)?;
    let terminator = context.terminator.drain(number(&id)?).await?;
    answer(Envelope::success(TerminatorData { terminator }))
}

/// Replace a terminator by its binary on disk
#[utoipa::path(
    post, path = "/v1/x/terminators/{id}/upgrade", operation_id = "upgrade_terminator",
    params(("id" = u32, Path, description = "Its number.")),
    responses(
        (status = 200, description = "The successor.", body = bodies::Terminator),
        (status = 409, description = "It cannot be replaced now.", body = Refusal)
    )
)]
pub(super) async fn upgrade(
    State(context): State<Shared>,
    _: Operator,
    Path(id): Path<String>,
    body: Body,
) -> Answer {
    nothing(&body)?;
    let terminator = context.terminator.upgrade(number(&id)?).await?;
    answer(Envelope::success(TerminatorData { terminator }))
}

/// Show the development gateway's certificate authority
#[utoipa::path(
    get, path = "/v1/x/terminators/ca", operation_id = "get_authority",
    responses((status = 200, description = "Its certificate.", body = bodies::Authority))
)]
pub(super) async fn authority(State(context): State<Shared>, _: Operator, body: Body) -> Answer {
    body.empty()?;
    let authority = context.terminator.authority()?;
    answer(Envelope::success(AuthorityData { authority }))
}

/// A body that says nothing: none, or an object without members.
fn nothing(body: &Body) -> Result<(), ContractError> {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Nothing {}

    if body.0.is_empty() {
        return Ok(());
    }
    parse_body::<Nothing>(&body.0).map(|Nothing {}| ())
}

fn number(id: &str) -> Result<u32, ContractError> {
    id.parse().map_err(|_| {
        ContractError::invalid(format!("Invalid terminator '{id}': expected its number"))
    })
}
