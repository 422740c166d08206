//! `/v1/certificates`. No answer holds a private key.

use std::collections::BTreeMap;

use axum::extract::State;
use lbagent_api::certificate::{self as contract, CertificateSpec, Certificates, RotationSpec};
use lbagent_api::envelope::{Item, Reference, Warning};
use lbagent_api::listing::ListQuery;
use lbagent_api::request::parse_one_or_many;
use lbagent_api::{ContractError, Envelope, ErrorCode, ItemError, Selector};
use serde::Serialize;
use time::OffsetDateTime;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::auth::As;
use super::error::ApiError;
use super::openapi::{bodies, params};
use super::request::{Body, Listing, Named, bounds, page};
use super::respond::{Answer, answer, change};
use super::service_groups::missing_selector;
use super::{Shared, error};
use crate::desired::Place;
use crate::desired::certificate::{self, CertificateError, NewCertificate, Rotation};
use crate::desired::{Caller, Certificate, DesiredState, ServiceGroup};

/// The paths below `/v1/certificates`.
pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(list, create, rotate, delete))
        .routes(routes!(get_one, rotate_one, delete_one))
}

/// A certificate in an answer: whole, or by its names.
#[derive(Serialize)]
#[serde(untagged)]
enum Shown {
    Whole(Box<contract::Certificate>),
    Names(Reference),
}

/// Store certificates
#[utoipa::path(
    post, path = "/v1/certificates", operation_id = "create_certificates",
    request_body = bodies::NewCertificates,
    responses(
        (
            status = 200, description = "What became of each object.",
            body = bodies::CertificatesMade
        )
    )
)]
pub(super) async fn create(State(context): State<Shared>, As(caller): As, body: Body) -> Answer {
    let specs: Vec<CertificateSpec> = parse_one_or_many(&body.0)?;
    if specs.is_empty() {
        return Err(ContractError::new(
            ErrorCode::MalformedRequest,
            "The request body must be a JSON object or an array of objects",
        )
        .into());
    }
    // Reading keys is work for a thread that may be busy for a while.
    let read = |spec: CertificateSpec| {
        let common_name = spec.validate()?;
        NewCertificate::read(spec.name, common_name, &spec.chain, spec.pkey)
            .map_err(|error| ContractError::invalid(error.to_string()))
    };
    let names: Vec<Option<String>> = specs.iter().map(|spec| spec.name.clone()).collect();
    let new = read_all(specs, read).await?;
    let now = OffsetDateTime::now_utc();
    let (written, warnings) = change(&context, move |desired| {
        desired.create_certificates(caller, &new, now)
    })
    .await?;
    let failed = |index: usize, error: &CertificateError| {
        let name = names.get(index).cloned().flatten();
        error::create_certificate(name, error)
    };
    changed(&context, caller, written.outcome, warnings, failed)
}

/// Replace chain and key of certificates
#[utoipa::path(
    put, path = "/v1/certificates", operation_id = "rotate_certificates",
    request_body = bodies::Rotations,
    responses(
        (
            status = 200, description = "What became of each object.",
            body = bodies::CertificatesMade
        )
    )
)]
pub(super) async fn rotate(State(context): State<Shared>, As(caller): As, body: Body) -> Answer {
    let mut specs = Vec::new();
    for spec in parse_one_or_many::<RotationSpec>(&body.0)? {
        specs.push((spec.selector()?.ok_or_else(missing_selector)?, spec));
    }
    if specs.is_empty() {
        return Err(missing_selector().into());
    }
    rotate_these(context, caller, specs).await
}

/// Replace chain and key of a certificate
#[utoipa::path(
    put, path = "/v1/certificates/{uuid}", operation_id = "rotate_certificate",
    request_body = RotationSpec,
    responses(
        (
            status = 200, description = "What became of each object.",
            body = bodies::CertificatesMade
        )
    )
)]
pub(super) async fn rotate_one(
    State(context): State<Shared>,
    As(caller): As,
    Named(selector): Named,
    body: Body,
) -> Answer {
    let spec: RotationSpec = lbagent_api::request::parse_body(&body.0)?;
    Body::without_selector(spec.selector()?)?;
    rotate_these(context, caller, vec![(selector, spec)]).await
}

async fn rotate_these(
    context: Shared,
    caller: Caller,
    specs: Vec<(Selector, RotationSpec)>,
) -> Answer {
    let read = |(selector, spec): (Selector, RotationSpec)| {
        Rotation::read(selector, &spec.chain, spec.pkey)
            .map_err(|error| ContractError::invalid(error.to_string()))
    };
    let rotations = read_all(specs, read).await?;
    let selectors: Vec<_> = rotations.iter().map(|it| it.selector().clone()).collect();
    let (written, warnings) = change(&context, move |desired| {
        desired.rotate_certificates(caller, &rotations)
    })
    .await?;
    let failed = |index: usize, error: &CertificateError| {
        error::change_certificate(&selectors[index], error)
    };
    changed(&context, caller, written.outcome, warnings, failed)
}

/// What breaks a rule refuses the request as a whole, before anything is written.
async fn read_all<S: Send + 'static, T: Send + 'static>(
    specs: Vec<S>,
    read: impl FnMut(S) -> Result<T, ContractError> + Send + 'static,
) -> Result<Vec<T>, ApiError> {
    let reading = move || specs.into_iter().map(read).collect::<Result<Vec<T>, _>>();
    let read = tokio::task::spawn_blocking(reading).await;
    Ok(read.map_err(|_| ApiError::Internal)??)
}

/// The certificates that were written, and why others were not.
fn changed(
    context: &Shared,
    caller: Caller,
    outcomes: Vec<Result<Certificate, CertificateError>>,
    mut warnings: Vec<Warning>,
    failed: impl Fn(usize, &CertificateError) -> ItemError,
) -> Answer {
    let state = context.desired.current();
    let attached = certificate::attached(&state, caller.account);
    let now = OffsetDateTime::now_utc();
    let mut items = Vec::with_capacity(outcomes.len());
    for (index, outcome) in outcomes.into_iter().enumerate() {
        items.push(match outcome {
            Ok(certificate) => {
                warnings.extend(date_warning(&certificate, now));
                Item::Done(whole(&certificate, &attached, now))
            }
            Err(error) => Item::Failed(failed(index, &error)),
        });
    }
    let envelope = Envelope::of_items(items, |certificates| Certificates { certificates });
    answer(Envelope {
        warnings,
        ..envelope
    })
}

fn date_warning(certificate: &Certificate, now: OffsetDateTime) -> Option<Warning> {
    let Certificate {
        name,
        not_before,
        not_after,
        ..
    } = certificate;
    let message = if now < *not_before {
        format!("Certificate '{name}' is not valid before {not_before}: clients will refuse it")
    } else if *not_after < now {
        format!("Certificate '{name}' expired on {not_after}: clients will refuse it")
    } else {
        return None;
    };
    Some(Warning { message })
}

/// List certificates
#[utoipa::path(
    get, path = "/v1/certificates", operation_id = "list_certificates", params(params::List),
    responses(
        (
            status = 200, description = "The certificates asked for, or all.",
            body = bodies::CertificateList
        )
    )
)]
pub(super) async fn list(
    State(context): State<Shared>,
    As(caller): As,
    query: Listing,
    body: Body,
) -> Answer {
    let query = query.with_body(&body)?;
    answer(found(&context.desired.current(), caller, &query)?)
}

/// Show a certificate
#[utoipa::path(
    get, path = "/v1/certificates/{uuid}", operation_id = "get_certificate",
    params(params::Details),
    responses((status = 200, description = "The certificate.", body = bodies::CertificateList))
)]
pub(super) async fn get_one(
    State(context): State<Shared>,
    As(caller): As,
    Named(selector): Named,
    query: Listing,
    body: Body,
) -> Answer {
    let query = query.of_one(selector, &body)?;
    answer(found(&context.desired.current(), caller, &query)?)
}

/// Delete certificates
#[utoipa::path(
    delete, path = "/v1/certificates", operation_id = "delete_certificates", params(params::Which),
    request_body = Option<bodies::Selectors>,
    responses(
        (
            status = 200, description = "What became of each object.",
            body = bodies::CertificateNames
        )
    )
)]
pub(super) async fn delete(
    State(context): State<Shared>,
    As(caller): As,
    query: Listing,
    body: Body,
) -> Answer {
    let query = query.with_body(&body)?;
    if query.selectors.is_empty() {
        return Err(missing_selector().into());
    }
    delete_these(context, caller, query.selectors).await
}

/// Delete a certificate
#[utoipa::path(
    delete, path = "/v1/certificates/{uuid}", operation_id = "delete_certificate",
    responses(
        (
            status = 200, description = "What became of each object.",
            body = bodies::CertificateNames
        )
    )
)]
pub(super) async fn delete_one(
    State(context): State<Shared>,
    As(caller): As,
    Named(selector): Named,
    body: Body,
) -> Answer {
    body.empty()?;
    delete_these(context, caller, vec![selector]).await
}

async fn delete_these(context: Shared, caller: Caller, selectors: Vec<Selector>) -> Answer {
    let named = selectors.clone();
    let (written, warnings) = change(&context, move |desired| {
        desired.delete_certificates(caller, &named)
    })
    .await?;
    let outcomes = selectors.iter().zip(written.outcome);
    let items = outcomes.map(|(selector, outcome)| match outcome {
        Ok(reference) => Item::Done(reference),
        Err(error) => Item::Failed(error::change_certificate(selector, &error)),
    });
    let envelope = Envelope::of_items(items.collect(), |certificates| Certificates {
        certificates,
    });
    answer(Envelope {
        warnings,
        ..envelope
    })
}

fn found(
    state: &DesiredState,
    caller: Caller,
    query: &ListQuery,
) -> Result<Envelope<Certificates<Shown>>, ContractError> {
    let attached = certificate::attached(state, caller.account);
    let now = OffsetDateTime::now_utc();
    let show = |certificate: &Certificate| match query.details {
        true => Shown::Whole(Box::new(whole(certificate, &attached, now))),
        false => Shown::Names(Reference {
            uuid: certificate.uuid,
            name: certificate.name.clone(),
        }),
    };
    let items = if query.selectors.is_empty() {
        // An account has few of them: no index is kept of their places.
        let mut all: Vec<&Certificate> = state.certificates_of(caller).collect();
        all.sort_by_key(|certificate| place(certificate));
        let known = |uuid| state.certificates.get(&uuid).map(place);
        let between = bounds(caller, query, known)?;
        let is_meant = |certificate: &Certificate| {
            let place = place(certificate);
            between.is_some_and(|[from, to]| from <= place && place <= to)
        };
        let page = page(all.into_iter(), is_meant, query);
        page.into_iter()
            .map(|certificate| Item::Done(show(certificate)))
            .collect()
    } else {
        let find = |selector| match state.certificate(caller, selector) {
            Some(certificate) => Item::Done(show(certificate)),
            None => Item::Failed(ItemError::not_found("certificate", selector)),
        };
        query.selectors.iter().map(find).collect()
    };
    Ok(Envelope::of_items(items, |certificates| Certificates {
        certificates,
    }))
}

/// The contract's form of a certificate.
fn whole(
    certificate: &Certificate,
    attached: &BTreeMap<Uuid, Vec<&ServiceGroup>>,
    now: OffsetDateTime,
) -> contract::Certificate {
    let groups = attached.get(&certificate.uuid).into_iter().flatten();
    let reference = |group: &&ServiceGroup| Reference {
        uuid: group.uuid,
        name: group.name.clone(),
    };
    contract::Certificate {
        uuid: certificate.uuid,
        name: certificate.name.clone(),
        created_at: certificate.created_at,
        common_name: certificate.common_name.clone(),
        subject: certificate.subject.clone(),
        issuer: certificate.issuer.clone(),
        serial_number: certificate.serial_number.clone(),
        not_before: certificate.not_before,
        not_after: certificate.not_after,
        state: state(certificate, now),
        service_groups: groups.map(reference).collect(),
    }
}

/// Whether a certificate can be used.
pub(super) fn state(certificate: &Certificate, now: OffsetDateTime) -> contract::CertificateState {
    match certificate.is_valid_at(now) {
        true => contract::CertificateState::Valid,
        false => contract::CertificateState::Error,
    }
}

/// Where a certificate is in a listing.
const fn place(certificate: &Certificate) -> Place {
    (
        certificate.account,
        certificate.created_at,
        certificate.uuid,
    )
}
