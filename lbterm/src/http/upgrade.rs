//! Requests that ask for something other than HTTP: WebSockets, over HTTP/1.1 by `Upgrade` (RFC
//! 9110, section 7.8) or over HTTP/2 by an extended CONNECT (RFC 8441). Towards the instance it is
//! always an `Upgrade`, over a connection of its own, whatever the service's other requests use.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Request, Response, StatusCode, Version, request};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1::SendRequest;
use hyper::ext::Protocol;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use smallvec::SmallVec;
use tokio::time::timeout;

use super::answer::Answer;
use super::body::{RequestBody, ResponseBody};
use super::forward::{self, Exchange, Refused};
use super::interim;
use super::origin_form::origin_form;
use super::relay::{Ending, Relay};
use super::service::{Connection, Tunnel};
use crate::balance::Lease;
use crate::metrics::{Counter, GroupCounter};
use crate::route::Target;
use crate::stream::copy::copy;
use crate::upstream;

const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");

/// How a client asks for another protocol.
enum Asked {
    /// By `Upgrade`: the answer is 101.
    Upgrade(HeaderValue),
    /// By an extended CONNECT: the answer is 200.
    Connect,
}

/// Whether a request may ask for another protocol.
pub fn is_wanted(request: &request::Parts, body: Option<&Incoming>) -> bool {
    match request.version {
        Version::HTTP_2 => request.method == Method::CONNECT,
        // A body would have to be read before the upgrade; requests for WebSockets have none (RFC
        // 6455, section 4.1). Others go on without their `Upgrade`.
        Version::HTTP_11 => {
            request.headers.contains_key(header::UPGRADE)
                && body.is_none_or(|body| body.is_end_stream())
        }
        _ => false,
    }
}

/// Carries such a request to an instance. If the instance agrees, bytes go both ways afterwards.
///
/// # Errors
///
/// The answer that the client gets instead.
pub async fn upgrade(
    mut exchange: Exchange,
    parts: request::Parts,
) -> Result<Response<ResponseBody>, Refused> {
    let is_http1 = parts.version == Version::HTTP_11;
    let mut request = Request::from_parts(parts, ());
    let client = hyper::upgrade::on(&mut request);
    let (mut parts, ()) = request.into_parts();
    let hop = forward::prepare(&mut parts, &mut exchange);
    let Exchange {
        connection,
        admitted,
        in_flight,
        record,
        ..
    } = exchange;
    let asked = ask(&mut parts, hop.upgrade);
    origin_form(&mut parts, &admitted.host);
    let target = &admitted.target;
    let told = is_http1.then(|| Arc::clone(&connection.pulse));
    interim::heed(&mut parts, None, told);
    let sent = send_to_any(target, parts).await;
    connection.pulse.interims.written().await;
    let (mut response, lease) = match sent {
        Ok(sent) => sent,
        Err(answer) => return Err((answer, record)),
    };
    let mut ending = Ending::new(lease, record, in_flight);
    ending.answer(response.status());
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(decline(&connection, response, ending));
    }
    let is_as_asked = match &asked {
        Some(Asked::Upgrade(protocol)) => agrees(response.headers(), protocol),
        Some(Asked::Connect) => agrees(response.headers(), &WEBSOCKET),
        None => false,
    };
    if !is_as_asked {
        // RFC 9110, section 7.8: nothing but what was asked for.
        ending.fail();
        return Err((Answer::UpstreamFault, ending.record.take()));
    }
    let instance = hyper::upgrade::on(&mut response);
    // Of HTTP/2 it is the request's own stream.
    let client = connection.upgrade.take().unwrap_or(client);
    let idle = Duration::from_millis(target.policy.idle_timeout_ms.into());
    let tunnel = Box::pin(tunnel(client, instance, idle, Arc::clone(target), ending));
    connection.count(Counter::Upgraded);
    Ok(accept(&connection, asked, response, tunnel))
}

/// Puts into the request what asks an instance for the protocol.
fn ask(parts: &mut request::Parts, upgrade: Option<HeaderValue>) -> Option<Asked> {
    let headers = &mut parts.headers;
    let (asked, protocol) = if parts.version == Version::HTTP_2 {
        // RFC 8441, section 5: what an upgrade has and a CONNECT has not.
        parts.method = Method::GET;
        parts.extensions.remove::<Protocol>();
        let key = STANDARD.encode(fastrand::u128(..).to_ne_bytes());
        if let Ok(key) = HeaderValue::try_from(key) {
            headers.insert(header::SEC_WEBSOCKET_KEY, key);
        }
        let version = headers.entry(header::SEC_WEBSOCKET_VERSION);
        version.or_insert(HeaderValue::from_static("13"));
        (Asked::Connect, WEBSOCKET)
    } else {
        let protocol = upgrade?;
        (Asked::Upgrade(protocol.clone()), protocol)
    };
    headers.insert(header::UPGRADE, protocol);
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    Some(asked)
}

fn agrees(headers: &HeaderMap, protocol: &HeaderValue) -> bool {
    let upgrade = headers.get(header::UPGRADE);
    upgrade.is_some_and(|upgrade| upgrade.as_bytes().eq_ignore_ascii_case(protocol.as_bytes()))
}

/// The instance does not agree: its answer is one like any other.
fn decline(
    connection: &Connection,
    response: Response<Incoming>,
    ending: Ending,
) -> Response<ResponseBody> {
    let (mut parts, incoming) = response.into_parts();
    forward::clean_answer(&mut parts);
    let pool = Rc::clone(&connection.worker.http.pool);
    let relay = Relay::new(Some(incoming), None, pool, ending);
    Response::from_parts(parts, ResponseBody::Relayed(relay))
}

/// The instance agrees: tells the client so, and lets the tunnel begin.
fn accept(
    connection: &Connection,
    asked: Option<Asked>,
    response: Response<Incoming>,
    tunnel: Tunnel,
) -> Response<ResponseBody> {
    let (mut parts, _) = response.into_parts();
    forward::clean_answer(&mut parts);
    let headers = &mut parts.headers;
    if let Some(Asked::Upgrade(protocol)) = asked {
        headers.insert(header::UPGRADE, protocol);
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        // The connection goes on in the same task, after hyper has left it.
        connection.pulse.leave();
        connection.tunnel.replace(Some(tunnel));
    } else {
        parts.status = StatusCode::OK;
        // RFC 8441, section 5: the client never had a key.
        headers.remove(header::SEC_WEBSOCKET_ACCEPT);
        remove_length(headers);
        // Other streams of the connection go on beside it.
        tokio::task::spawn_local(tunnel);
    }
    Response::from_parts(parts, ResponseBody::Own(None))
}

fn remove_length(headers: &mut HeaderMap) {
    let names: [HeaderName; 2] = [header::CONTENT_LENGTH, header::TRAILER];
    for name in names {
        headers.remove(name);
    }
}

async fn tunnel(
    client: OnUpgrade,
    instance: OnUpgrade,
    idle: Duration,
    target: Arc<Target>,
    mut ending: Ending,
) {
    let Ok((client, instance)) = tokio::try_join!(client, instance) else {
        return;
    };
    let (mut client, mut instance) = (TokioIo::new(client), TokioIo::new(instance));
    let (end, moved) = copy(&mut client, &mut instance, idle).await;
    tracing::debug!(?end, "an upgraded connection has ended");
    let counters = &target.group.counters;
    counters.add(GroupCounter::BytesIn, moved.to_instance);
    ending.bytes = moved.to_client;
    ending.succeed();
}

/// Sends the request to the instance with the least to do, and to another one if that cannot be
/// reached.
async fn send_to_any(
    target: &Arc<Target>,
    parts: request::Parts,
) -> Result<(Response<Incoming>, Lease), Answer> {
    let mut tried = SmallVec::<[_; 3]>::new();
    loop {
        let lease = forward::select(target, &tried)?;
        let Some(sender) = connect(&lease, target).await else {
            lease.failed(Instant::now());
            tried.push(lease.instance().uuid);
            continue;
        };
        let request = Request::from_parts(parts, RequestBody::default());
        return match send(sender, request, target).await {
            Ok(response) => Ok((response, lease)),
            Err(answer) => {
                lease.failed(Instant::now());
                Err(answer)
            }
        };
    }
}

/// A connection of its own, driven by a task until it is upgraded or its answer has ended.
async fn connect(lease: &Lease, target: &Target) -> Option<SendRequest<RequestBody>> {
    let connected = upstream::connect_any(&lease.instance().addresses, target).await;
    let (stream, _) = connected.ok()?;
    let handshake = upstream::http1_builder().handshake(TokioIo::new(stream));
    let (sender, connection) = handshake.await.ok()?;
    tokio::task::spawn_local(connection.with_upgrades());
    Some(sender)
}

async fn send(
    mut sender: SendRequest<RequestBody>,
    request: Request<RequestBody>,
    target: &Target,
) -> Result<Response<Incoming>, Answer> {
    let patience = Duration::from_millis(target.policy.response_timeout_ms.into());
    match timeout(patience, sender.send_request(request)).await {
        Ok(Ok(response)) => Ok(response),
        Ok(Err(_)) => Err(Answer::UpstreamFault),
        Err(_) => Err(Answer::UpstreamLate),
    }
}
