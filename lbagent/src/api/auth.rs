//! The bearer token.

use axum::extract::{Request, State};
use axum::http::header;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::Shared;
use super::error::ApiError;

/// Lets requests through that show the configured token; all when there is none. The health of the
/// agent is no secret.
pub(super) async fn require_token(
    State(context): State<Shared>,
    request: Request,
    next: Next,
) -> Response {
    let is_open = request.uri().path() == "/v1/healthz";
    match &context.token {
        Some(token) if !is_open && !shows(&request, token) => {
            ApiError::Unauthorized.into_response()
        }
        _ => next.run(request).await,
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
