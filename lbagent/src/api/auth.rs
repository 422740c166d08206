//! Who asks: every request gets its [`Caller`] here, or is refused.
//!
//! A token tells account and role. Without one, the Unix socket tells by the kernel's word which
//! user is at its other end; over TCP nobody is let in, unless the configuration says so.

use std::net::IpAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::extract::{ConnectInfo, FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::uri::Authority;
use axum::http::{Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use lbagent_api::Selector;
use lbagent_api::access::ACCOUNT_HEADER;
use lbagent_api::events::Author;
use time::OffsetDateTime;

use super::Context;
use super::Shared;
use super::error::{ApiError, AuthError};
use super::openapi;
use crate::desired::{Caller, DEFAULT_ACCOUNT, Digest, Role};

/// What is at the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Anybody.
    Tcp,
    /// A process of this host that may operate the gateway.
    Operator {
        /// Its user.
        uid: u32,
    },
    /// Another process of this host.
    Stranger {
        /// Its user.
        uid: u32,
    },
}

tokio::task_local! {
    /// Whose word the request is, and for which account.
    pub(super) static AUTHOR: (Author, Caller);
}

/// Refusals, counted, and logged no more often than a log can bear.
#[derive(Debug, Default)]
pub struct Refusals {
    count: AtomicU64,
    told: Mutex<Option<(Instant, u64)>>,
}

impl Refusals {
    /// Shortest time between two lines.
    const PAUSE: Duration = Duration::from_secs(10);

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    fn add(&self, peer: Peer) {
        let count = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        let Ok(mut told) = self.told.lock() else {
            return;
        };
        let (last, before) = told.unzip();
        if last.is_none_or(|last| last.elapsed() >= Self::PAUSE) {
            let since_last = count - before.unwrap_or(0);
            tracing::warn!(?peer, since_last, "refused a request without a good token");
            *told = Some((Instant::now(), count));
        }
    }
}

/// Lets requests through that are somebody's, or for what is no secret.
pub(super) async fn identify(
    State(context): State<Shared>,
    mut request: Request,
    next: Next,
) -> Response {
    if openapi::PUBLIC.contains(&request.uri().path()) {
        return next.run(request).await;
    }
    let peer = match request.extensions().get::<ConnectInfo<Peer>>() {
        Some(ConnectInfo(peer)) => *peer,
        None => Peer::Tcp,
    };
    match caller(&context, &request, peer) {
        Ok((author, caller)) => {
            request.extensions_mut().insert(caller);
            AUTHOR.scope((author, caller), next.run(request)).await
        }
        Err(error) => {
            if matches!(
                error,
                ApiError::Auth(
                    AuthError::Unknown
                        | AuthError::Stranger { .. }
                        | AuthError::WebPage
                        | AuthError::OtherHost
                )
            ) {
                context.refusals.add(peer);
            }
            skip_body(request).await;
            error.into_response()
        }
    }
}

/// Reads what a client may be sending still: one that is cut off meanwhile sees no answer. Nobody in
/// particular gets little patience.
async fn skip_body(request: Request) {
    const MOST: usize = 64 << 10;
    const PATIENCE: Duration = Duration::from_secs(1);
    let body = axum::body::to_bytes(request.into_body(), MOST);
    // Too long or too slow: then the client does without.
    let _ = tokio::time::timeout(PATIENCE, body).await;
}

/// Who may read metrics without a token, where there is a listener for that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricsReaders {
    /// Processes of this host, but no web pages in its browsers.
    ThisHost,
    /// Whoever can reach the address.
    Anybody,
}

/// Lets readers of metrics in as what reads all of them; there is nothing else where they are let in.
pub(super) async fn let_in(readers: MetricsReaders, mut request: Request, next: Next) -> Response {
    let refused = match readers {
        // Whatever it is, a token would not help: none is looked at.
        MetricsReaders::ThisHost => {
            refuse_web_pages(&request).map_err(|_| AuthError::NoProgramHere)
        }
        MetricsReaders::Anybody => Ok(()),
    };
    if let Err(error) = refused {
        return ApiError::from(error).into_response();
    }
    let operator = Caller::operator(DEFAULT_ACCOUNT);
    request.extensions_mut().insert(operator);
    next.run(request).await
}

fn caller(context: &Context, request: &Request, peer: Peer) -> Result<(Author, Caller), ApiError> {
    let operator = Caller::operator(DEFAULT_ACCOUNT);
    let shown = request.headers().get(header::AUTHORIZATION);
    let holder = shown
        .and_then(|value| bearer(value.as_bytes()))
        .and_then(|shown| holder(context, shown));
    let (author, caller) = match (holder, peer) {
        (Some(holder), _) => holder,
        // Whoever could leave a token away may as well show any word, as clients do that have to.
        (None, Peer::Tcp) if context.tcp_without_token => {
            refuse_web_pages(request)?;
            (Author::Loopback, operator)
        }
        _ if shown.is_some() => return Err(AuthError::Unknown.into()),
        (None, Peer::Operator { uid }) => (Author::User { uid }, operator),
        (None, Peer::Tcp) => return Err(AuthError::Unknown.into()),
        (None, Peer::Stranger { uid }) => return Err(AuthError::Stranger { uid }.into()),
    };
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    if caller.role == Role::Reader && !is_read {
        let (role, needed) = (caller.role, Role::Member);
        return Err(AuthError::Forbidden { role, needed }.into());
    }
    Ok((author, acting(context, request, caller)?))
}

/// A web page in a browser of this host can send requests here, too. Those of another site have an
/// `Origin`; those of a name that was made to point here after the page was loaded have that `Host`.
fn refuse_web_pages(request: &Request) -> Result<(), AuthError> {
    if request.headers().contains_key(header::ORIGIN) {
        return Err(AuthError::WebPage);
    }
    let named = request.headers().get_all(header::HOST).iter();
    let named = named.map(|host| host.to_str().ok().and_then(|host| host.parse().ok()));
    let target = request.uri().authority().cloned();
    let mut hosts = named.chain(target.map(Some));
    if hosts.all(|host: Option<Authority>| host.is_some_and(|host| is_loopback(host.host()))) {
        Ok(())
    } else {
        Err(AuthError::OtherHost)
    }
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    let address = address.parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost")
        || address.is_ok_and(|address| address.to_canonical().is_loopback())
}

fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, shown) = value.split_at_checked(7)?;
    let is_bearer = scheme.eq_ignore_ascii_case(b"bearer ");
    is_bearer.then(|| shown.trim_ascii())
}

fn holder(context: &Context, shown: &[u8]) -> Option<(Author, Caller)> {
    let configured = context.token.as_ref();
    if configured.is_some_and(|token| token.is(&Digest::of(shown))) {
        return Some((Author::TokenFile, Caller::operator(DEFAULT_ACCOUNT)));
    }
    let state = context.desired.current();
    let token = state.access.holder(shown, OffsetDateTime::now_utc())?;
    let author = Author::Token {
        uuid: token.uuid,
        label: token.label.clone(),
        account: token.account,
        role: token.role,
    };
    Some((author, token.caller()))
}

/// The account that an operator acts for is the one that the request names.
fn acting(context: &Context, request: &Request, caller: Caller) -> Result<Caller, ApiError> {
    let Some(named) = request.headers().get(ACCOUNT_HEADER) else {
        return Ok(caller);
    };
    if caller.role != Role::Operator {
        let (role, needed) = (caller.role, Role::Operator);
        return Err(AuthError::Forbidden { role, needed }.into());
    }
    let word = String::from_utf8_lossy(named.as_bytes());
    let selector = Selector::from_word(word.trim());
    match context.desired.current().account(&selector) {
        Some(account) => Ok(Caller::operator(account.uuid)),
        None => Err(ApiError::NoSuchObject(format!(
            "No account with {selector}"
        ))),
    }
}

/// Who asks.
pub(super) struct As(pub(super) Caller);

impl<S: Send + Sync> FromRequestParts<S> for As {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let caller = parts.extensions.get::<Caller>();
        caller.copied().map(Self).ok_or(AuthError::Unknown.into())
    }
}

/// Taken by the endpoints of the gateway itself, which are not an account's.
pub(super) struct Operator;

impl<S: Send + Sync> FromRequestParts<S> for Operator {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match As::from_request_parts(parts, state).await?.0.role {
            Role::Operator => Ok(Self),
            role @ (Role::Member | Role::Reader) => {
                let needed = Role::Operator;
                Err(AuthError::Forbidden { role, needed }.into())
            }
        }
    }
}
