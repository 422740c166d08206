//! Who asks: every request gets its [`Caller`] here, or is refused.

use axum::extract::{FromRequestParts, Request, State};
use axum::http::header;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::Shared;
use super::error::ApiError;
use crate::desired::{Caller, DEFAULT_ACCOUNT, Role};

/// Lets requests through that show the configured token; all when there is none. The health of the
/// agent is no secret.
pub(super) async fn identify(
    State(context): State<Shared>,
    mut request: Request,
    next: Next,
) -> Response {
    let is_open = request.uri().path() == "/v1/healthz";
    match &context.token {
        Some(token) if !is_open && !shows(&request, token) => {
            ApiError::Unauthorized.into_response()
        }
        _ => {
            let caller = Caller::operator(DEFAULT_ACCOUNT);
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
    }
}

/// Who asks.
pub(super) struct As(pub(super) Caller);

impl<S: Send + Sync> FromRequestParts<S> for As {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let caller = parts.extensions.get::<Caller>();
        caller.copied().map(Self).ok_or(ApiError::Unauthorized)
    }
}

/// Taken by the endpoints of the gateway itself, which are not an account's.
pub(super) struct Operator;

impl<S: Send + Sync> FromRequestParts<S> for Operator {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match As::from_request_parts(parts, state).await?.0.role {
            Role::Operator => Ok(Self),
            role @ (Role::Member | Role::Reader) => Err(ApiError::Forbidden { role }),
        }
    }
}

fn shows(request: &Request, token: &str) -> bool {
    let Some(value) = request.headers().get(header::AUTHORIZATION) else {
        return false;
    };
    let Some((scheme, shown)) = value.as_bytes().split_at_checked(7) else {
        return false;
    };
    scheme.eq_ignore_ascii_case(b"bearer ") && is_equal(shown.trim_ascii(), token.as_bytes())
}

/// Takes as long for a token that is almost right as for any other of its length.
fn is_equal(a: &[u8], b: &[u8]) -> bool {
    let differences = a
        .iter()
        .zip(b)
        .fold(0, |bits, (a, b)| std::hint::black_box(bits | (a ^ b)));
    a.len() == b.len() && differences == 0
}
