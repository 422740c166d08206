//! Connections to instances. They belong to one thread: a connection is used, kept and closed where
//! it was made.

mod bare;
pub(crate) mod chunks;
mod connect;
mod h2c;
pub(crate) mod head;
mod http1;
mod pool;

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use lbagent_api::terminator::UpstreamProtocol;

use crate::http::{Interims, RequestBody, Upload};
use crate::route::{Instance, Target};

pub use bare::Bare;
pub use connect::{NotConnected, connect, connect_any};
pub use h2c::H2c;
pub use http1::{Http1, builder as http1_builder};
pub use pool::{Keepable, Pool};

/// Why there is no answer.
#[derive(Debug)]
pub enum Failure {
    /// The connection was over before anything of the request was sent: it is where it was.
    Unsent,
    /// The connection ended before the head of an answer.
    Closed,
    /// What came is not the head of an answer.
    Malformed,
    /// Nothing came in time.
    Late,
    /// The client's body broke off.
    Client,
}

/// A connection to an instance on which a request may be sent now.
#[derive(Debug)]
pub enum Upstream {
    /// For this request alone, which has no body.
    Bare(Box<Bare>),
    /// For this request alone.
    Http1(Http1),
    /// Shared with other requests.
    H2c(H2c),
}

impl Upstream {
    /// Whether it has answered a request before: its end may have come with the request.
    pub fn is_reused(&self) -> bool {
        match self {
            Self::Bare(connection) => connection.is_reused(),
            Self::Http1(connection) => connection.is_reused(),
            Self::H2c(connection) => connection.is_reused(),
        }
    }

    /// Takes a request, sends it and waits for the head of its answer, from the last byte of the request's
    /// body on for as long as `patience`. `added` are lines of the head of a request without a body, and
    /// `interims` get what is said before its answer. Of a [`Self::Bare`] comes the body, too; of the others it
    /// has one of its own.
    ///
    /// # Errors
    ///
    /// [`Failure`]. The connection is of no use after it.
    pub async fn exchange(
        &mut self,
        request: &mut Option<Request<RequestBody>>,
        added: &[u8],
        upload: Option<&Rc<Upload>>,
        patience: Duration,
        interims: Option<&Interims>,
    ) -> Result<Response<Option<Incoming>>, Failure> {
        let response = match self {
            Self::Bare(connection) => {
                let answer = connection.exchange(request, added, patience, interims);
                let response = answer.await?;
                return Ok(response.map(|()| None));
            }
            Self::Http1(connection) => connection.exchange(request, upload, patience).await,
            Self::H2c(connection) => connection.exchange(request, upload, patience).await,
        };
        Ok(response?.map(Some))
    }
}

/// What a connection is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// None that was used before.
    pub is_fresh: bool,
    /// The request has a body.
    pub has_body: bool,
}

/// A connection to an instance: one that waits or has room, unless a fresh one is wanted.
///
/// # Errors
///
/// The instance cannot be reached.
pub async fn acquire(
    pool: &Rc<Pool>,
    instance: &Instance,
    target: &Target,
    wanted: Wanted,
) -> io::Result<Upstream> {
    let Wanted { is_fresh, has_body } = wanted;
    match target.policy.upstream {
        UpstreamProtocol::Http1 => {
            if !is_fresh {
                let (addresses, port) = (&instance.addresses, target.destination_port);
                let kept = poll_fn(|context| {
                    Poll::Ready(match has_body {
                        true => pool.take(addresses, port, context).map(Upstream::Http1),
                        false => pool.take_bare(addresses, port, context).map(Upstream::Bare),
                    })
                });
                if let Some(connection) = kept.await {
                    return Ok(connection);
                }
            }
            // Rare and large, so not a part of every request's memory.
            Box::pin(connect_http1(instance, target, has_body)).await
        }
        UpstreamProtocol::H2c => {
            let port = target.destination_port;
            if !is_fresh && let Some(share) = pool.share(&instance.addresses, port) {
                return Ok(Upstream::H2c(share));
            }
            Box::pin(connect_h2c(pool, instance, target, is_fresh)).await
        }
    }
}

async fn connect_http1(
    instance: &Instance,
    target: &Target,
    has_body: bool,
) -> io::Result<Upstream> {
    let (stream, address) = connect_any(&instance.addresses, target).await?;
    if !has_body {
        return Ok(Upstream::Bare(Bare::new(stream, address).into()));
    }
    let connection = Http1::new(stream, address).await;
    connection.map(Upstream::Http1).map_err(io::Error::other)
}

async fn connect_h2c(
    pool: &Rc<Pool>,
    instance: &Instance,
    target: &Target,
    is_fresh: bool,
) -> io::Result<Upstream> {
    let port = target.destination_port;
    let turn = pool.turn(&instance.addresses, port);
    let _turn = turn.lock().await;
    // Another request may have made one meanwhile.
    if !is_fresh && let Some(share) = pool.share(&instance.addresses, port) {
        return Ok(Upstream::H2c(share));
    }
    let (stream, address) = connect_any(&instance.addresses, target).await?;
    let connection = H2c::new(stream, address).await.map_err(io::Error::other)?;
    Ok(Upstream::H2c(pool.keep(address, connection)))
}

/// What a failed exchange means. A request that was not sent is put back.
fn failure(
    mut error: hyper::client::conn::TrySendError<Request<RequestBody>>,
    request: &mut Option<Request<RequestBody>>,
    upload: Option<&Rc<Upload>>,
) -> Failure {
    *request = error.take_message();
    if upload.is_some_and(|upload| upload.has_failed()) {
        Failure::Client
    } else if request.is_some() {
        Failure::Unsent
    } else if error.error().is_parse() {
        Failure::Malformed
    } else {
        Failure::Closed
    }
}
