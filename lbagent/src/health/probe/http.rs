//! HTTP and HTTPS: a request is answered with the right status and body.

use std::net::SocketAddr;
use std::pin::pin;

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Request, Response, header};
use hyper_util::rt::TokioIo;
use lbagent_api::health::{HttpProbe, Payload, StatusRange};
use tokio::io::{AsyncRead, AsyncWrite};

use super::tls::Connectors;
use super::{Failure, FailureKind, Limit, excerpt, holds, tcp};
use crate::desired::Check;

/// What servers see who is asking.
const USER_AGENT: &str = concat!("lbagent/", env!("CARGO_PKG_VERSION"), " (health check)");

pub(super) async fn check(
    to: SocketAddr,
    probe: &HttpProbe,
    tls: &Connectors,
    limit: Limit,
) -> Result<(), Failure> {
    let stream = tcp::connect(to, limit).await?;
    match &probe.tls {
        None => exchange(stream, to, probe, limit).await,
        Some(wanted) => {
            let connecting = tls.connect(stream, to, wanted, probe.host.as_deref());
            let connected = limit.wait("no TLS handshake was finished", connecting);
            exchange(connected.await??, to, probe, limit).await
        }
    }
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    to: SocketAddr,
    probe: &HttpProbe,
    limit: Limit,
) -> Result<(), Failure> {
    let request = Request::builder()
        .method(probe.method.as_str())
        .uri(&probe.path)
        .header(header::HOST, probe.host.clone().unwrap_or(to.to_string()))
        .header(header::USER_AGENT, USER_AGENT)
        .header(header::ACCEPT, "*/*")
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| Failure::new(FailureKind::Protocol, format!("the request: {error}")))?;
    let mut builder = http1::Builder::new();
    // Heads of answers that need more are not worth the memory.
    builder.max_buf_size(16 << 10);
    let shaken = limit.wait(
        "no connection was made",
        builder.handshake(TokioIo::new(stream)),
    );
    let (mut sender, connection) = shaken.await?.map_err(|error| broken(&error))?;
    let asking = async {
        let answer = limit.wait("no answer came", sender.send_request(request));
        judge(answer.await?.map_err(|error| broken(&error))?, probe, limit).await
    };
    let (mut asking, mut connection) = (pin!(asking), pin!(connection));
    // The connection has to be driven as long as the exchange takes; how it ends is told there.
    tokio::select! {
        biased;
        outcome = &mut asking => outcome,
        _ = &mut connection => asking.await,
    }
}

async fn judge(answer: Response<Incoming>, probe: &HttpProbe, limit: Limit) -> Result<(), Failure> {
    let status = answer.status().as_u16();
    if !probe.statuses.iter().any(|range| range.holds(status)) {
        let wanted: Vec<String> = probe.statuses.iter().map(StatusRange::to_string).collect();
        let text = format!("status {status}, not {}", wanted.join(" or "));
        return Err(Failure::new(FailureKind::Status, text));
    }
    match &probe.body {
        None => Ok(()),
        Some(wanted) => search(answer.into_body(), wanted, limit).await,
    }
}

async fn search(mut body: Incoming, wanted: &Payload, limit: Limit) -> Result<(), Failure> {
    let mut read = Vec::new();
    let missing = format!("no {wanted} came in the body");
    while read.len() < Check::MAX_BODY {
        let Some(frame) = limit.wait(&missing, body.frame()).await? else {
            break;
        };
        let frame = frame.map_err(|error| broken(&error))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        // What is wanted may begin in the part before.
        let from = read.len().saturating_sub(wanted.as_bytes().len());
        read.extend_from_slice(&data);
        if holds(&read[from..], wanted.as_bytes()) {
            return Ok(());
        }
    }
    let text = format!("the body holds no {wanted}: {}", excerpt(&read));
    Err(Failure::new(FailureKind::Content, text))
}

/// Why an exchange ended early.
fn broken(error: &hyper::Error) -> Failure {
    let cause = std::error::Error::source(error);
    if let Some(io) = cause.and_then(|cause| cause.downcast_ref::<std::io::Error>()) {
        return Failure::of("no whole answer", io);
    }
    let is_end = error.is_incomplete_message() || error.is_closed() || error.is_canceled();
    let kind = if is_end {
        FailureKind::Closed
    } else {
        FailureKind::Protocol
    };
    Failure::new(kind, format!("no whole HTTP answer: {error}"))
}
