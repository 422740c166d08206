//! A connection that speaks HTTP/2 without TLS, shared by the requests of a thread.

use std::cell::Cell;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;

use super::http1::poll_timer;
use super::{Failure, failure};
use crate::http::{LocalExecutor, RequestBody, Upload};

/// Requests at one time on one connection, its own share included. Where an instance wants fewer
/// (RFC 9113, section 5.1.2), the others wait for their turn.
const MAX_STREAMS: usize = 100;

/// Bytes that an instance may send ahead of what a client takes, of one answer and of all on a
/// connection.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;

/// How often an instance is asked whether it is still there, and how long it may take to answer.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_PATIENCE: Duration = Duration::from_secs(10);

/// A share of a connection that speaks HTTP/2: counted among its requests until it is dropped.
#[derive(Debug)]
pub struct H2c {
    sender: http2::SendRequest<RequestBody>,
    is_reused: bool,
    count: Rc<Count>,
}

/// How much a connection has to do.
#[derive(Debug, Default)]
struct Count {
    in_flight: Cell<usize>,
}

impl H2c {
    /// Begins to speak on a new connection, which a task of its own drives.
    ///
    /// # Errors
    ///
    /// The connection broke at once.
    pub async fn new(stream: TcpStream, address: SocketAddr) -> hyper::Result<Self> {
        let mut builder = http2::Builder::new(LocalExecutor);
        builder
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_PATIENCE)
            .keep_alive_while_idle(true);
        let (sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
        tokio::task::spawn_local(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%address, %error, "a connection to an instance has ended");
            }
        });
        let count = Rc::new(Count::default());
        count.in_flight.set(1);
        Ok(Self {
            sender,
            is_reused: false,
            count,
        })
    }

    /// One more request on the same connection; none if it is full or over.
    pub fn share(&self) -> Option<Self> {
        let in_flight = self.count.in_flight.get();
        if in_flight >= MAX_STREAMS || self.is_over() {
            return None;
        }
        self.count.in_flight.set(in_flight + 1);
        Some(Self {
            sender: self.sender.clone(),
            is_reused: true,
            count: Rc::clone(&self.count),
        })
    }

    /// As [`Self::share`], for the request that the connection was made for.
    pub fn first_share(&self) -> Option<Self> {
        let mut share = self.share()?;
        share.is_reused = false;
        Some(share)
    }

    /// Whether it takes no more requests.
    pub fn is_over(&self) -> bool {
        self.sender.is_closed()
    }

    /// Whether it is used by no request but this.
    pub fn is_alone(&self) -> bool {
        self.count.in_flight.get() <= 1
    }

    /// Whether it has been used for a request before.
    pub fn is_reused(&self) -> bool {
        self.is_reused
    }

    pub(super) async fn exchange(
        &mut self,
        request: &mut Option<Request<RequestBody>>,
        upload: Option<&Rc<Upload>>,
        patience: Duration,
    ) -> Result<Response<Incoming>, Failure> {
        let Some(sent) = request.take() else {
            return Err(Failure::Closed);
        };
        let mut answer = pin!(self.sender.try_send_request(sent));
        let began = tokio::time::Instant::now();
        let mut timer = Box::pin(tokio::time::sleep_until(began + patience));
        poll_fn(move |context| {
            if let Poll::Ready(result) = answer.as_mut().poll(context) {
                return Poll::Ready(result.map_err(|error| failure(error, request, upload)));
            }
            poll_timer(&mut timer, began, upload, patience, context).map(Err)
        })
        .await
    }
}

impl Drop for H2c {
    fn drop(&mut self) {
        let in_flight = &self.count.in_flight;
        in_flight.set(in_flight.get() - 1);
    }
}
