//! A connection that speaks HTTP/1.1, for requests with a body.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::unconstrained;
use tokio::time::Sleep;

use super::{Failure, Keepable, failure};
use crate::http::{RequestBody, Upload};

/// Longest head of an answer in bytes; hyper buffers as much of a body.
const MAX_BUFFER: usize = 256 << 10;

type Connection = http1::Connection<TokioIo<TcpStream>, RequestBody>;

/// A connection that speaks HTTP/1.1, for requests with a body. It has no task of its own: whoever uses it drives it, so that
/// a request wakes one task only, its own.
#[derive(Debug)]
pub struct Http1 {
    sender: http1::SendRequest<RequestBody>,
    connection: Pin<Box<Connection>>,
    /// Set again for each request: setting a timer later is far cheaper than making one.
    timer: Pin<Box<Sleep>>,
    address: SocketAddr,
    is_reused: bool,
    idle_since: Instant,
}

impl Http1 {
    /// Begins to speak on a new connection.
    ///
    /// # Errors
    ///
    /// hyper's; none is known.
    pub async fn new(stream: TcpStream, address: SocketAddr) -> hyper::Result<Self> {
        let (sender, connection) = builder().handshake(TokioIo::new(stream)).await?;
        Ok(Self {
            sender,
            connection: Box::pin(connection),
            timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
            address,
            is_reused: false,
            idle_since: Instant::now(),
        })
    }

    /// Lets it read and write. Ready when it is over.
    pub fn drive(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.connection.as_mut().poll(context).map(|_| ())
    }

    /// Gives it a task of its own, in which it ends with its exchange. For answers that begin while
    /// the request is still coming: what carries the answer on does not carry the request on when
    /// the client takes nothing.
    pub fn detach(self) {
        tokio::task::spawn_local(async move {
            // How the exchange went is seen in its answer.
            let _ = self.connection.await;
            drop(self.sender);
        });
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
        let (connection, timer) = (&mut self.connection, &mut self.timer);
        let mut began = None;
        let mut is_over = false;
        poll_fn(move |context| {
            if !is_over {
                is_over = connection.as_mut().poll(context).is_ready();
            }
            // Only driving the connection brings an answer, so nobody has to be woken for it.
            let mut silent = Context::from_waker(Waker::noop());
            if let Poll::Ready(result) = answer.as_mut().poll(&mut silent) {
                return Poll::Ready(result.map_err(|error| failure(error, request, upload)));
            }
            if is_over {
                // hyper answers before it ends; without an answer there will be none.
                return Poll::Ready(Err(Failure::Closed));
            }
            let began = *began.get_or_insert_with(|| {
                let now = tokio::time::Instant::now();
                timer.as_mut().reset(now + patience);
                now
            });
            poll_timer(timer, began, upload, patience, context).map(Err)
        })
        .await
    }
}

impl Keepable for Http1 {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn idle_since(&self) -> Instant {
        self.idle_since
    }

    fn is_reused(&self) -> bool {
        self.is_reused
    }

    fn poll_is_ready(&mut self, context: &mut Context<'_>) -> bool {
        self.drive(context).is_pending() && self.sender.is_ready()
    }

    fn rest(&mut self) {
        self.is_reused = true;
        self.idle_since = Instant::now();
    }
}

/// Ready when nothing has come for as long as `patience` since the request was sent.
pub(super) fn poll_timer(
    timer: &mut Pin<Box<Sleep>>,
    began: tokio::time::Instant,
    upload: Option<&Rc<Upload>>,
    patience: Duration,
    context: &mut Context<'_>,
) -> Poll<Failure> {
    // What an instance sends without end, as interim answers, uses up what the runtime grants a task:
    // the clock must not depend on that.
    while pin!(unconstrained(timer.as_mut())).poll(context).is_ready() {
        // Time begins anew with each part of the request that was sent.
        let since = upload.map_or(began, |upload| began.max(upload.last_frame().into()));
        if since.elapsed() >= patience {
            return Poll::Ready(Failure::Late);
        }
        timer.as_mut().reset(since + patience);
    }
    Poll::Pending
}

/// As instances are spoken to.
pub fn builder() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder.max_buf_size(MAX_BUFFER);
    builder
}
