//! What endpoints take from a request.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use lbagent_api::listing::{ListQuery, Order};
use lbagent_api::request::{parse_selectors, parse_uuid};
use lbagent_api::{ContractError, ErrorCode, Selector};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use super::error::ApiError;
use crate::desired::{Caller, Place, all_of};

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

/// The pairs of the query string.
pub(super) struct Pairs(pub(super) Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Pairs {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Query(pairs) = Query::from_request_parts(parts, state)
            .await
            .map_err(|error| ContractError::invalid(error.body_text()))?;
        Ok(Self(pairs))
    }
}

impl Pairs {
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let pairs = self.0.iter();
        pairs.map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// As the query of a listing that knows these filters.
    pub(super) fn listing(&self, filters: &[&str]) -> Result<ListQuery, ContractError> {
        ListQuery::parse(self.iter(), filters)
    }
}

/// The query string of a listing without filters.
pub(super) struct Listing(pub(super) ListQuery);

impl<S: Send + Sync> FromRequestParts<S> for Listing {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let pairs = Pairs::from_request_parts(parts, state).await?;
        Ok(Self(pairs.listing(&[])?))
    }
}

impl Listing {
    /// The query, with the selectors of the body added to its own.
    pub(super) fn with_body(mut self, body: &Body) -> Result<ListQuery, ContractError> {
        self.0.selectors.extend(parse_selectors(&body.0)?);
        Ok(self.0)
    }

    /// The query on a path that names the object, which nothing else in the request may do.
    pub(super) fn of_one(self, named: Selector, body: &Body) -> Result<ListQuery, ContractError> {
        body.empty()?;
        Body::without_selector(self.0.selectors.into_iter().next())?;
        Ok(ListQuery {
            selectors: vec![named],
            details: self.0.details,
            ..ListQuery::default()
        })
    }
}

/// Between which places a listing looks for its page. `from` is inclusive, as the official clients
/// expect, who go on from an earlier object when the page of one that is gone is empty.
pub(super) fn bounds(
    caller: Caller,
    query: &ListQuery,
    place: impl FnOnce(Uuid) -> Option<Place>,
) -> Result<Option<[Place; 2]>, ContractError> {
    let all = all_of(caller);
    let Some(cursor) = &query.from else {
        return Ok(Some(all));
    };
    let [first, last] = all;
    let between = |from: [Place; 2]| match query.order {
        Order::Asc => [from[0], last],
        Order::Desc => [first, from[1]],
    };
    if let Ok(uuid) = parse_uuid(cursor) {
        let place = place(uuid).filter(|(account, ..)| *account == caller.account);
        return Ok(place.map(|place| between([place; 2])));
    }
    // An unescaped `+` of a time zone arrives as a space.
    let time = OffsetDateTime::parse(&cursor.replace(' ', "+"), &Rfc3339).map_err(|_| {
        ContractError::invalid(format!(
            "Invalid value '{cursor}' of 'from': expected a uuid or an RFC 3339 time"
        ))
    })?;
    let at = |uuid| (caller.account, time, uuid);
    Ok(Some(between([at(Uuid::nil()), at(Uuid::max())])))
}

/// One page of objects that come by time of creation.
pub(super) fn page<'a, T>(
    objects: impl DoubleEndedIterator<Item = &'a T>,
    is_meant: impl Fn(&T) -> bool,
    query: &ListQuery,
) -> Vec<&'a T> {
    let count = query.count.unwrap_or(usize::MAX);
    let is_meant = |object: &&T| is_meant(object);
    match query.order {
        Order::Asc => objects.filter(is_meant).take(count).collect(),
        Order::Desc => objects.rev().filter(is_meant).take(count).collect(),
    }
}
