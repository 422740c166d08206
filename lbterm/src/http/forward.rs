//! Carrying a request to an instance, and its answer back.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use http::header::{self, HeaderMap, HeaderValue};
use http::uri::{PathAndQuery, Scheme, Uri};
use http::{Method, Request, Response, StatusCode, Version, request, response};
use hyper::body::{Body, Incoming};
use lbagent_api::terminator::UpstreamProtocol;
use smallvec::SmallVec;
use uuid::Uuid;

use super::access::Record;
use super::answer::Answer;
use super::body::{GateKey, RequestBody, ResponseBody, Upload};
use super::forwarded::{ensure_request_id, write_request_id};
use super::hop::{self, Hop};
use super::interim;
use super::origin_form::origin_form;
use super::relay::{Ending, Relay};
use super::replay::Replay;
use super::service::{Admitted, Connection, InFlight};
use crate::balance::{self, Lease, Unavailable};
use crate::metrics::{Counter, GroupCounter};
use crate::route::Target;
use crate::upstream::{self, Failure, Upstream, Wanted};

/// Instances that are tried for one request, at most.
const MAX_TRIES: usize = 3;

/// Bytes that what the gateway adds to a head has room in at first.
const ADDED: usize = 320;

/// What a request and its answer share.
pub struct Exchange {
    /// The client's.
    pub connection: Rc<Connection>,
    /// Where the request goes.
    pub admitted: Admitted,
    /// When its head had come.
    pub began: Instant,
    /// Until the answer has ended.
    pub in_flight: InFlight,
    /// What the access log will say.
    pub record: Option<Box<Record>>,
}

/// What the client gets instead of an instance's answer.
pub type Refused = (Answer, Option<Box<Record>>);

/// A request on its way. It has one place in memory until it is sent: what is moved from future to
/// future makes each of them larger.
pub struct Sending {
    exchange: Exchange,
    request: Option<Request<RequestBody>>,
    /// What the gateway adds to the head, where it is not among the fields.
    added: Vec<u8>,
    upload: Option<Rc<Upload>>,
    replay: Replay,
    /// The client is told what the instance says before its answer.
    takes_interims: bool,
}

impl Sending {
    /// A request as its group's instances get it.
    pub fn new(
        mut exchange: Exchange,
        mut parts: request::Parts,
        incoming: Option<Incoming>,
    ) -> Box<Self> {
        let (mut body, upload) = RequestBody::new(incoming, exchange.began);
        // RFC 9110, section 15.2: they are unknown to HTTP/1.0.
        let takes_interims = parts.version == Version::HTTP_11;
        let is_written_here =
            upload.is_none() && exchange.admitted.target.policy.upstream == UpstreamProtocol::Http1;
        let mut added = Vec::new();
        if is_written_here {
            added.reserve(ADDED);
            prepare_head(&mut parts, &mut exchange, Some(&mut added));
        } else {
            prepare(&mut parts, &mut exchange);
        }
        let Admitted { target, host } = &exchange.admitted;
        finish_head(&mut parts, &body, target, host);
        if target.policy.upstream == UpstreamProtocol::Http1 && upload.is_some() {
            let pulse = takes_interims.then(|| Arc::clone(&exchange.connection.pulse));
            let key = hold_back(&parts.headers, &mut body);
            interim::heed(&mut parts, key, pulse);
        }
        let request = Request::from_parts(parts, body);
        // A request that is sent as one head stays here.
        let is_taken = target.policy.upstream == UpstreamProtocol::H2c;
        let replay = Replay::of(&request, is_taken && upload.is_none());
        Box::new(Self {
            exchange,
            request: Some(request),
            added,
            upload,
            replay,
            takes_interims,
        })
    }
}

/// Carries a request to an instance of its group, and its answer back.
///
/// # Errors
///
/// The answer that the client gets instead.
pub async fn forward(mut sending: Box<Sending>) -> Result<Response<ResponseBody>, Refused> {
    let result = exchange_with_any(&mut sending).await;
    sending.exchange.connection.pulse.interims.written().await;
    let Sending {
        exchange, upload, ..
    } = *sending;
    let (response, source, lease) = match result {
        Ok(answered) => answered,
        Err(answer) => return Err((answer, exchange.record)),
    };
    let mut ending = Ending::new(lease, exchange.record, exchange.in_flight);
    let (mut parts, incoming) = response.into_parts();
    if parts.status == StatusCode::SWITCHING_PROTOCOLS {
        // Nobody has asked for that (RFC 9110, section 15.2.2).
        ending.fail();
        return Err((Answer::UpstreamFault, ending.record.take()));
    }
    clean_answer(&mut parts);
    ending.answer(parts.status);
    ending.upload = upload;
    let body = relay(&exchange.connection, incoming, source, ending).await;
    Ok(Response::from_parts(parts, body))
}

/// What every request has when it leaves the gateway, whatever the instance speaks: no fields that
/// were for the gateway alone, and those that say where it came from.
pub fn prepare(parts: &mut request::Parts, exchange: &mut Exchange) -> Hop {
    prepare_head(parts, exchange, None)
}

/// As [`prepare`]; what is added goes to the lines, if there are any, unless it has to be joined with
/// what a trusted proxy has said.
fn prepare_head(
    parts: &mut request::Parts,
    exchange: &mut Exchange,
    lines: Option<&mut Vec<u8>>,
) -> Hop {
    let Exchange {
        connection,
        admitted,
        record,
        ..
    } = exchange;
    let headers = &mut parts.headers;
    let hop = hop::strip_request(headers, connection.forwarded.is_trusting());
    let forwarded = &connection.forwarded;
    let request_id = match lines.filter(|_| !forwarded.is_trusting()) {
        Some(lines) => {
            forwarded.write(lines, &admitted.host);
            write_request_id(headers, lines)
        }
        None => {
            forwarded.add(headers, admitted.host.clone());
            ensure_request_id(headers)
        }
    };
    if hop.takes_trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    if let Some(record) = record {
        record.admit(&admitted.host, &admitted.target.group.name, &request_id);
    }
    hop
}

/// The head in the form that the instance's protocol has.
fn finish_head(
    parts: &mut request::Parts,
    body: &RequestBody,
    target: &Target,
    host: &HeaderValue,
) {
    match target.policy.upstream {
        UpstreamProtocol::Http1 => {
            origin_form(parts, host);
            let headers = &mut parts.headers;
            if headers.contains_key(header::TE) {
                // RFC 9110, section 10.1.4: TE is for the neighbour, and `Connection` says so.
                headers.insert(header::CONNECTION, HeaderValue::from_static("te"));
            }
            if !body.is_end_stream() && !headers.contains_key(header::CONTENT_LENGTH) {
                // hyper would send the body of a GET without it.
                let chunked = HeaderValue::from_static("chunked");
                headers.insert(header::TRANSFER_ENCODING, chunked);
            }
        }
        UpstreamProtocol::H2c => {
            parts.version = Version::HTTP_2;
            let path = parts.uri.path_and_query().cloned();
            let path = path.unwrap_or_else(|| PathAndQuery::from_static("/"));
            let uri = Uri::builder()
                .scheme(Scheme::HTTP)
                .authority(host.as_bytes())
                .path_and_query(path);
            // The host was checked to be an authority.
            if let Ok(uri) = uri.build() {
                parts.uri = uri;
            }
            parts.headers.remove(header::HOST);
            // hyper's client for HTTP/2 does not tell when the instance says 100.
            parts.headers.remove(header::EXPECT);
        }
    }
}

/// Of a client that waits for `100 Continue`, the body waits for it, too (RFC 9110, section 10.1.1).
fn hold_back(headers: &HeaderMap, body: &mut RequestBody) -> Option<Arc<GateKey>> {
    let expects = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"100-continue");
    let is_held = headers.get(header::EXPECT).is_some_and(expects);
    is_held.then(|| body.hold_back()).flatten()
}

/// Sends the request to the instance with the least to do, and to another one where that is safe:
/// nothing was sent, or it may be sent again.
async fn exchange_with_any(
    sending: &mut Sending,
) -> Result<(Response<Option<Incoming>>, Upstream, Lease), Answer> {
    let mut tried: SmallVec<[Uuid; MAX_TRIES]> = SmallVec::new();
    loop {
        let lease = select(&sending.exchange.admitted.target, &tried)?;
        match exchange_with(sending, &lease).await {
            Ok((response, source)) => return Ok((response, source, lease)),
            Err(Missed::Answer(answer)) => return Err(answer),
            Err(Missed::Again) => {
                tried.push(lease.instance().uuid);
                if tried.len() == MAX_TRIES {
                    return Err(unreachable(&sending.exchange.admitted.target));
                }
                sending.exchange.connection.count(Counter::Retried);
            }
        }
    }
}

/// The instance with the least to do that was not tried.
///
/// # Errors
///
/// The answer that the client gets instead.
pub fn select(target: &Arc<Target>, tried: &[Uuid]) -> Result<Lease, Answer> {
    let group = &target.group;
    balance::select(group, tried, Instant::now()).map_err(|why| match why {
        _ if !tried.is_empty() => unreachable(target),
        Unavailable::NoInstance => {
            group.counters.count(GroupCounter::NoInstance);
            Answer::NoInstance
        }
        Unavailable::Busy => {
            group.counters.count(GroupCounter::OverHardLimit);
            Answer::AllBusy
        }
    })
}

fn unreachable(target: &Target) -> Answer {
    target.group.counters.count(GroupCounter::Unreachable);
    Answer::UpstreamFault
}

/// Why an instance gave no answer.
enum Missed {
    /// The client is told.
    Answer(Answer),
    /// Another instance may be asked.
    Again,
}

async fn exchange_with(
    sending: &mut Sending,
    lease: &Lease,
) -> Result<(Response<Option<Incoming>>, Upstream), Missed> {
    let Exchange {
        connection,
        admitted: Admitted { target, .. },
        ..
    } = &sending.exchange;
    let pool = &connection.worker.http.pool;
    let patience = Duration::from_millis(target.policy.response_timeout_ms.into());
    let (request, upload) = (&mut sending.request, sending.upload.as_ref());
    let interims = sending.takes_interims.then_some(&connection.pulse.interims);
    let mut is_fresh = false;
    loop {
        let wanted = Wanted {
            is_fresh,
            has_body: upload.is_some(),
        };
        let acquired = upstream::acquire(pool, lease.instance(), target, wanted).await;
        let Ok(mut source) = acquired else {
            lease.failed(Instant::now());
            return Err(Missed::Again);
        };
        let failure = match source
            .exchange(request, &sending.added, upload, patience, interims)
            .await
        {
            Ok(response) => return Ok((response, source)),
            Err(failure) => failure,
        };
        // An instance may close a connection at the moment at which it is used again: that is no
        // fault, and a connection of its own shows what is.
        let is_stale = source.is_reused();
        match failure {
            Failure::Client => return Err(Missed::Answer(Answer::BodyInvalid)),
            Failure::Closed if request.is_none() => *request = sending.replay.again(),
            Failure::Unsent | Failure::Closed | Failure::Malformed | Failure::Late => {}
        }
        if request.is_some() && is_stale {
            connection.count(Counter::Retried);
            is_fresh = true;
            continue;
        }
        lease.failed(Instant::now());
        return Err(match failure {
            _ if request.is_some() => Missed::Again,
            Failure::Late => Missed::Answer(Answer::UpstreamLate),
            _ => Missed::Answer(Answer::UpstreamFault),
        });
    }
}

/// Takes from an answer what was for the gateway alone.
pub fn clean_answer(parts: &mut response::Parts) {
    hop::strip_response(&mut parts.headers);
    parts.version = Version::HTTP_11;
}

/// The body of an answer whose head goes to the client now.
async fn relay(
    connection: &Connection,
    incoming: Option<Incoming>,
    source: Upstream,
    ending: Ending,
) -> ResponseBody {
    let upload = ending.upload.as_ref();
    let is_uploading = upload.is_some_and(|upload| !upload.is_done());
    let source = match source {
        // What carries the answer on does not carry the request on while the client takes nothing.
        Upstream::Http1(source) if is_uploading => {
            source.detach();
            None
        }
        source => Some(source),
    };
    let pool = Rc::clone(&connection.worker.http.pool);
    let relay = Relay::new(incoming, source, pool, ending);
    if !relay.is_end_stream() {
        return ResponseBody::Relayed(relay);
    }
    let mut relay = Some(relay);
    poll_fn(|context| {
        if let Some(relay) = relay.take() {
            relay.finish_empty(context);
        }
        Poll::Ready(())
    })
    .await;
    ResponseBody::Own(None)
}

/// Methods of which a second request does no more than one (RFC 9110, section 9.2.2).
pub fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
    )
}
