//! What endpoints take from a request.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use lbagent_api::request::{ListQuery, parse_selectors, parse_uuid};
use lbagent_api::{ContractError, ErrorCode, Selector};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use super::error::ApiError;

/// Longest time that a body may take to arrive.
const BODY_PATIENCE: Duration = Duration::from_secs(30);

/// The body, whatever its media type is said to be.
pub(super) struct Body(pub(super) Bytes);

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        tokio::time::timeout(BODY_PATIENCE, Bytes::from_request(request, state))
            .await
            .map_err(|_| ApiError::SlowBody(BODY_PATIENCE))?
            .map(Self)
            .map_err(|error: BytesRejection| {
                if error.status() == StatusCode::PAYLOAD_TOO_LARGE {
                    ApiError::TooLarge
                } else {
                    ApiError::Body(error.body_text())
                }
            })
    }
}

impl Body {
    /// On a path that names the object, the body must not name one too.
    pub(super) fn without_selector(selector: Option<Selector>) -> Result<(), ContractError> {
        match selector {
            None => Ok(()),
            Some(_) => Err(ContractError::new(
                ErrorCode::NotBoth,
                "Members 'uuid' and 'name' are not allowed here: the path names the object",
            )),
        }
    }

    /// For endpoints whose body can say nothing but which object, on a path that names it.
    pub(super) fn empty(&self) -> Result<(), ContractError> {
        parse_selectors(&self.0)?
            .pop()
            .map_or(Ok(()), |one| Self::without_selector(Some(one)))
    }
}

/// The object that the path names.
pub(super) struct Named(pub(super) Selector);

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Path(text) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|error| ContractError::invalid(error.body_text()))?;
        Ok(Self(Selector::Uuid(parse_uuid(&text)?)))
    }
}

/// The object that a path of lbagent's own names, by UUID or by name.
pub(super) struct Word(pub(super) Selector);

impl<S: Send + Sync> FromRequestParts<S> for Word {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Path(text) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|error| ContractError::invalid(error.body_text()))?;
        Ok(Self(Selector::from_word(&text)))
    }
}

/// The query string of a listing.
pub(super) struct Listing(pub(super) ListQuery);

impl<S: Send + Sync> FromRequestParts<S> for Listing {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Query(pairs) = Query::<Vec<(String, String)>>::from_request_parts(parts, state)
            .await
            .map_err(|error| ContractError::invalid(error.body_text()))?;
        let pairs = pairs
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()));
        Ok(Self(ListQuery::parse(pairs)?))
    }
}

impl Listing {
    /// The query, with the selectors of the body added to its own.
    pub(super) fn with_body(mut self, body: &Body) -> Result<ListQuery, ContractError> {
        self.0.selectors.extend(parse_selectors(&body.0)?);
        Ok(self.0)
    }
}

/// One page of objects, ordered by creation. `from` is inclusive, as the official clients expect.
pub(super) fn page<'a, T>(
    objects: impl Iterator<Item = &'a T>,
    identity: impl Fn(&T) -> (OffsetDateTime, Uuid),
    query: &ListQuery,
) -> Result<Vec<&'a T>, ContractError> {
    let mut objects: Vec<&T> = objects.collect();
    objects.sort_by_key(|object| identity(object));
    if query.order == lbagent_api::request::Order::Desc {
        objects.reverse();
    }
    let first = match &query.from {
        None => 0,
        Some(cursor) => {
            let matches = matcher(cursor, query)?;
            let found = objects.iter().position(|object| matches(identity(object)));
            found.unwrap_or(objects.len())
        }
    };
    let count = query.count.unwrap_or(usize::MAX);
    Ok(objects.into_iter().skip(first).take(count).collect())
}

type Matcher = Box<dyn Fn((OffsetDateTime, Uuid)) -> bool>;

fn matcher(cursor: &str, query: &ListQuery) -> Result<Matcher, ContractError> {
    if let Ok(uuid) = parse_uuid(cursor) {
        return Ok(Box::new(move |(_, id)| id == uuid));
    }
    // An unescaped `+` of a time zone arrives as a space.
    let time = OffsetDateTime::parse(&cursor.replace(' ', "+"), &Rfc3339).map_err(|_| {
        ContractError::invalid(format!(
            "Invalid value '{cursor}' of 'from': expected a uuid or an RFC 3339 time"
        ))
    })?;
    let descending = query.order == lbagent_api::request::Order::Desc;
    Ok(Box::new(move |(created, _)| {
        if descending {
            created <= time
        } else {
            created >= time
        }
    }))
}
