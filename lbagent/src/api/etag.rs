//! `ETag`, `If-Match` and `If-None-Match` on every path that names one object, for all endpoints at
//! once.
//!
//! A tag is the revision at which the object was last written, and a digest of what the answer says:
//! that also depends on other objects (a group's answer names its instances). `If-Match` looks at
//! the revision, in the transaction of the change; `If-None-Match` at the whole tag.

use std::hash::{DefaultHasher, Hash, Hasher};

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use lbagent_api::{ContractError, Selector, paths};
use serde_json::Value;
use uuid::Uuid;

use super::Shared;
use super::error::ApiError;
use super::respond::{Answer, EXPECTED};
use crate::desired::{Caller, Expected, Kind};

/// Header of every answer to a `GET`: the generation of the desired state that it is not older than.
const GENERATION: HeaderName = HeaderName::from_static("lbagent-generation");

const BASES: [(&str, Kind); 5] = [
    (paths::SERVICES, Kind::ServiceGroup),
    (paths::INSTANCES, Kind::Instance),
    (paths::CERTIFICATES, Kind::Certificate),
    (paths::X_SERVICE_GROUPS, Kind::ServiceGroup),
    (paths::X_INSTANCES, Kind::Instance),
];

pub(super) async fn conditional(
    State(context): State<Shared>,
    request: Request,
    next: Next,
) -> Response {
    let caller = request.extensions().get::<Caller>().copied();
    let object = object(request.uri().path());
    let handled = match (request.method(), caller) {
        (&Method::GET, Some(caller)) => read(&context, caller, object, request, next).await,
        (_, Some(caller)) => write(caller, object, request, next).await,
        (_, None) => Ok(next.run(request).await),
    };
    handled.unwrap_or_else(IntoResponse::into_response)
}

/// Whether requests to a path, as the description has it, can be conditional.
pub(super) fn is_conditional(path: &str) -> bool {
    object(&path.replace("{uuid}", &Uuid::nil().to_string())).is_some()
}

/// The object that a path names.
fn object(path: &str) -> Option<(Kind, Selector)> {
    let named = |(base, kind): &(&str, Kind)| {
        let rest = path.strip_prefix(base)?.strip_prefix('/')?;
        let (word, below) = rest.split_once('/').unwrap_or((rest, ""));
        // `/v1/services/list`, `/v1/instances/stop`: on the official paths only a UUID names.
        let is_ours = base.starts_with("/v1/x/");
        match Selector::from_word(word) {
            Selector::Name(_) if !is_ours || below.is_empty() => None,
            selector => Some((*kind, selector)),
        }
    };
    BASES.iter().find_map(named)
}

async fn read(
    context: &Shared,
    caller: Caller,
    object: Option<(Kind, Selector)>,
    request: Request,
    next: Next,
) -> Answer {
    // Read before the endpoint does: the tag may be older than what it is on, never newer.
    let state = context.desired.current();
    let (generation, revision) = (
        state.generation,
        object.and_then(|(kind, selector)| state.object_revision(kind, caller, &selector)),
    );
    drop(state);
    let unless = texts(request.headers(), &header::IF_NONE_MATCH)?;
    let mut response = next.run(request).await;
    response.headers_mut().insert(GENERATION, generation.into());
    let (Some(revision), StatusCode::OK) = (revision, response.status()) else {
        return Ok(response);
    };
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, usize::MAX)
        .await
        .map_err(|_| ApiError::Internal)?;
    let tag = format!("\"{revision}-{:016x}\"", digest(&body));
    let is_known = |list: &String| {
        let mut tags = list
            .split(',')
            .map(|tag| tag.trim().trim_start_matches("W/"));
        tags.any(|known| known == "*" || known == tag)
    };
    let mut response = match unless.iter().any(is_known) {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => Response::from_parts(parts, Body::from(body)),
    };
    let tag = HeaderValue::try_from(tag).map_err(|_| ApiError::Internal)?;
    response.headers_mut().insert(header::ETAG, tag);
    response.headers_mut().insert(GENERATION, generation.into());
    Ok(response)
}

/// What an answer says, without the time that it took.
fn digest(body: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    match serde_json::from_slice::<Value>(body) {
        Ok(envelope) => envelope["data"].to_string().hash(&mut hasher),
        Err(_) => body.hash(&mut hasher),
    }
    hasher.finish()
}

async fn write(
    caller: Caller,
    object: Option<(Kind, Selector)>,
    request: Request,
    next: Next,
) -> Answer {
    let lists = texts(request.headers(), &header::IF_MATCH)?;
    if lists.is_empty() {
        return Ok(next.run(request).await);
    }
    let Some((kind, selector)) = object else {
        let text = "'If-Match' needs a path that names one object";
        return Err(ContractError::invalid(text).into());
    };
    let revisions = lists.iter().map(|list| revisions(list)).collect::<Vec<_>>();
    // A list without revisions is `*`: whatever the object is, it has to be there.
    let revisions = revisions.into_iter().collect::<Option<Vec<_>>>();
    let expected = Expected {
        kind,
        caller,
        selector,
        revisions: revisions.map(|lists| lists.concat()),
    };
    Ok(EXPECTED.scope(Some(expected), next.run(request)).await)
}

/// The revisions in a list of tags; a tag that is none of ours has revision 0, which nothing has.
/// Weak tags never match (RFC 9110, 13.1.1).
fn revisions(list: &str) -> Option<Vec<u64>> {
    let mut tags = list.split(',').map(str::trim);
    if tags.clone().any(|tag| tag == "*") {
        return None;
    }
    let revision = |tag: &str| {
        let inner = tag.strip_prefix('"')?.strip_suffix('"')?;
        let digits = inner
            .split_once('-')
            .map_or(inner, |(revision, _)| revision);
        digits.parse().ok()
    };
    Some(
        tags.by_ref()
            .map(|tag| revision(tag).unwrap_or(0))
            .collect(),
    )
}

fn texts(headers: &HeaderMap, name: &HeaderName) -> Result<Vec<String>, ContractError> {
    let text = |value: &HeaderValue| match value.to_str() {
        Ok(text) => Ok(text.to_owned()),
        Err(_) => Err(ContractError::invalid(format!("Invalid value of '{name}'"))),
    };
    headers.get_all(name).iter().map(text).collect()
}
