//! A client's connection from its first byte of HTTP to its last.

use std::error::Error;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use lbagent_api::terminator::Limits;
use tokio::io::{AsyncRead, AsyncWrite};

use super::bare::{Bare, Over};
use super::framing::Place;
use super::linger::linger;
use super::pulse::{Pulse, Tapped};
use super::relay::Broken;
use super::service::{Connection, Requests};
use super::watch::{Overdue, Watch};
use crate::conn::{Alpn, ConnMeta};
use crate::metrics::Counter;
use crate::worker::Worker;

/// Requests at one time of one client's HTTP/2 connection (RFC 9113, section 5.1.2).
const MAX_STREAMS: u32 = 128;

/// Bytes of an answer that wait for one HTTP/2 stream's client to take them.
const MAX_SEND_BUFFER: usize = 64 << 10;

/// Bytes of requests' bodies that an HTTP/2 client may send ahead, for one and for all.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;

/// Streams that a client may have reset before their answer has begun (CVE-2023-44487, "rapid
/// reset"), and those that it may have caused to be reset by errors: after that, the connection ends.
const MAX_RESET_STREAMS: usize = 32;
const MAX_ERROR_STREAMS: usize = 256;

/// How often an HTTP/2 client is asked whether it is still there, and how long it may take.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_PATIENCE: Duration = Duration::from_secs(20);

/// How long a client that was told to go may take to go.
const GOODBYE: Duration = Duration::from_secs(5);

/// How long a client of HTTP/1.1 that has no request in flight may take, once the worker drains, to send
/// one, which then tells it to go. Closing at once would break a request that is on its way.
const LAST_REQUEST: Duration = Duration::from_secs(2);

/// Least that hyper takes as a limit of a head.
const LEAST_HEAD: usize = 8 << 10;

/// Serves a client's connection, decrypted where it was encrypted, until it ends.
///
/// This is no `async fn`, because the arguments of one keep their place for as long as it runs, and a
/// stream with TLS is large.
pub fn serve_http<S>(
    stream: S,
    meta: ConnMeta,
    worker: Rc<Worker>,
) -> Pin<Box<dyn Future<Output = ()>>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let limits = worker.shared.now().routes.limits.clone();
    let is_h2 = meta.tls.as_ref().is_some_and(|tls| tls.alpn == Alpn::H2);
    let pulse = Arc::new(Pulse::new(Instant::now()));
    let tapped = Tapped::new(stream, Arc::clone(&pulse));
    let connection = Rc::new(Connection::new(meta, worker, pulse));
    if is_h2 {
        let requests = Requests(Rc::clone(&connection));
        let tapped = TokioIo::new(tapped);
        let mut served = Box::pin(http2_builder(&limits).serve_connection(tapped, requests));
        return Box::pin(async move {
            attend(&mut served, &connection, &limits).await;
        });
    }
    let served = Bare::new(tapped, Rc::clone(&connection), longest_head(&limits));
    let mut served = Box::pin(served);
    Box::pin(async move {
        let end = attend(&mut served, &connection, &limits).await;
        let has_unread = served.has_unread();
        let mut stream = Pin::into_inner(served).into_stream();
        match end {
            End::HandedOver(before) => {
                stream.follow(before);
                serve_http1(stream, connection, limits).await;
            }
            End::Finished if has_unread => linger(stream).await,
            _ => {}
        }
    })
}

/// Serves what a connection of HTTP/1.1 brings from here on by hyper.
fn serve_http1<S>(
    stream: Tapped<S>,
    connection: Rc<Connection>,
    limits: Limits,
) -> Pin<Box<dyn Future<Output = ()>>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let requests = Requests(Rc::clone(&connection));
    let served = http1_builder(&limits).serve_connection(TokioIo::new(stream), requests);
    let mut served = Box::pin(served.with_upgrades());
    Box::pin(async move {
        let end = attend(&mut served, &connection, &limits).await;
        let tunnel = connection.tunnel.take();
        if let Some(tunnel) = tunnel {
            tunnel.await;
        } else if !matches!(end, End::Overdue) && connection.pulse.place() != Place::Between {
            if let Some(parts) = Pin::into_inner(served).into_parts() {
                linger(parts.io.into_inner()).await;
            } else if let Some(upgrade) = connection.upgrade.take()
                // hyper leaves the stream to who might have wanted it, open, whatever the answer was.
                && let Ok(upgraded) = upgrade.await
                && let Ok(parts) = upgraded.downcast::<TokioIo<Tapped<S>>>()
            {
                linger(parts.io.into_inner()).await;
            }
        }
    })
}

/// How HTTP on a connection ended.
#[derive(Debug)]
enum End {
    Finished,
    Failed(hyper::Error),
    Broken(Broken),
    Overdue,
    HandedOver(Bytes),
}

impl Connection {
    fn note(&self, end: &End) {
        match end {
            End::Finished | End::Overdue | End::HandedOver(_) => {}
            End::Broken(error) => {
                tracing::debug!(connection = self.meta.id, %error, "a connection broke");
            }
            End::Failed(error) => {
                if error.is_parse() || error.is_parse_too_large() {
                    self.count(Counter::RequestMalformed);
                }
                if is_flood(error) {
                    self.count(Counter::Http2Flooded);
                }
                tracing::debug!(connection = self.meta.id, %error, "a connection failed");
            }
        }
    }
}

fn ended(result: hyper::Result<()>) -> End {
    result.map_or_else(End::Failed, |()| End::Finished)
}

/// Whether one of the bounds of HTTP/2 was exceeded (RFC 9113, section 10.5).
fn is_flood(error: &hyper::Error) -> bool {
    let source = error.source();
    let http2 = source.and_then(|source| source.downcast_ref::<h2::Error>());
    http2.is_some_and(|error| error.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM))
}

/// What serves a client's connection.
trait Served {
    /// Whether clients are told to go by answers alone: closing without one crosses their requests.
    const TELLS_BY_ANSWERS: bool;

    /// Ready when it serves no longer.
    fn poll_served(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<End>;

    /// No more requests: those in flight are answered, and the client is told to go.
    fn say_goodbye(self: Pin<&mut Self>);
}

impl<S> Served for Bare<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    const TELLS_BY_ANSWERS: bool = true;

    fn poll_served(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<End> {
        self.get_mut().poll(context).map(|over| match over {
            Over::Closed => End::Finished,
            Over::Broken(error) => End::Broken(error),
            Over::Hyper(read) => End::HandedOver(read),
        })
    }

    fn say_goodbye(self: Pin<&mut Self>) {
        Self::say_goodbye(self.get_mut());
    }
}

impl<S> Served for http1::UpgradeableConnection<TokioIo<Tapped<S>>, Requests>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    const TELLS_BY_ANSWERS: bool = true;

    fn poll_served(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<End> {
        self.poll(context).map(ended)
    }

    fn say_goodbye(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

impl<S> Served for http2::Connection<TokioIo<Tapped<S>>, Requests, LocalExecutor>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    /// RFC 9113, section 6.8: GOAWAY says which requests are still answered.
    const TELLS_BY_ANSWERS: bool = false;

    fn poll_served(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<End> {
        self.poll(context).map(ended)
    }

    fn say_goodbye(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

/// Serves until the client goes, has to go because the worker drains, or keeps the connection for
/// nothing.
async fn attend<C: Served>(
    served: &mut Pin<Box<C>>,
    connection: &Connection,
    limits: &Limits,
) -> End {
    let mut drained = pin!(connection.worker.drained());
    let mut watch = Watch::new(limits);
    let mut goodbye = Goodbye::default();
    let mut asked: Option<Waker> = None;
    let end = poll_fn(|context| {
        // Before an answer is written that may say it: the drain may have begun since the last poll.
        if connection.worker.is_draining() {
            goodbye.heed_drain(served, connection, context);
        }
        if let Poll::Ready(end) = served.as_mut().poll_served(context) {
            return Poll::Ready(end);
        }
        // And after it: a request may have come. Looking takes less than asking, which is done once.
        let is_asked = |it: &Waker| it.will_wake(context.waker());
        let mut drains = !matches!(goodbye.drain, Drain::No);
        if !drains && (connection.worker.is_draining() || !asked.as_ref().is_some_and(is_asked)) {
            drains = drained.as_mut().poll(context).is_ready();
            asked = Some(context.waker().clone());
        }
        if drains {
            goodbye.heed_drain(served, connection, context);
        }
        if let Some(timer) = &mut goodbye.timer {
            return timer.as_mut().poll(context).map(|()| End::Overdue);
        }
        let in_flight = connection.in_flight();
        let Poll::Ready(overdue) = watch.poll(context, &connection.pulse, in_flight) else {
            return Poll::Pending;
        };
        connection.count(match overdue {
            Overdue::Head => Counter::HeadTimeout,
            Overdue::Idle => Counter::HttpIdle,
        });
        if overdue == Overdue::Head || in_flight > 0 {
            return Poll::Ready(End::Overdue);
        }
        served.as_mut().say_goodbye();
        goodbye.begin();
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
    connection.note(&end);
    end
}

/// Whether a connection of a worker that drains is left to its client for another request: one that
/// has begun is not cut off, however late.
fn waits_for_request(
    connection: &Connection,
    timer: &mut Timer,
    context: &mut Context<'_>,
) -> bool {
    let is_over = timer.as_mut().poll(context).is_ready();
    match connection.pulse.place() {
        _ if connection.in_flight() > 0 => false,
        Place::Between => !is_over,
        // How long that may take is bounded by the time for a head.
        Place::Head => true,
        Place::Body | Place::Beyond => false,
    }
}

type Timer = Pin<Box<tokio::time::Sleep>>;

/// A client that is told to go.
#[derive(Default)]
struct Goodbye {
    drain: Drain,
    timer: Option<Timer>,
}

/// What a draining worker means to a connection.
#[derive(Default)]
enum Drain {
    /// It does not drain.
    #[default]
    No,
    /// The client is told with its next answer, or when the time is over.
    Waits(Timer),
    /// It was told.
    Told,
}

impl Goodbye {
    /// Tells the client of a worker that drains to go, as soon as no request of it may be on its way.
    fn heed_drain<C: Served>(
        &mut self,
        served: &mut Pin<Box<C>>,
        connection: &Connection,
        context: &mut Context<'_>,
    ) {
        if matches!(self.drain, Drain::No) {
            self.drain = Drain::Waits(Box::pin(tokio::time::sleep(LAST_REQUEST)));
        }
        if let Drain::Waits(timer) = &mut self.drain
            && !(C::TELLS_BY_ANSWERS && waits_for_request(connection, timer, context))
        {
            self.drain = Drain::Told;
            served.as_mut().say_goodbye();
            // What that means is written by the connection itself.
            context.waker().wake_by_ref();
        }
    }

    fn begin(&mut self) {
        self.timer = Some(Box::pin(tokio::time::sleep(GOODBYE)));
    }
}

fn longest_head(limits: &Limits) -> usize {
    (limits.head_bytes as usize).max(LEAST_HEAD)
}

fn http1_builder(limits: &Limits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .max_buf_size(longest_head(limits))
        // Its clock runs between requests too; `Watch` tells a slow head from an idle client.
        .header_read_timeout(None);
    builder
}

fn http2_builder(limits: &Limits) -> http2::Builder<LocalExecutor> {
    let mut builder = http2::Builder::new(LocalExecutor);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        // Also bounds what CONTINUATION frames may bring (CVE-2024-27316).
        .max_header_list_size(limits.head_bytes)
        .max_send_buf_size(MAX_SEND_BUFFER)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_pending_accept_reset_streams(MAX_RESET_STREAMS)
        .max_local_error_reset_streams(MAX_ERROR_STREAMS)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_PATIENCE)
        .enable_connect_protocol();
    builder
}

/// Runs what belongs to a connection on the connection's own thread.
#[derive(Clone, Copy, Debug)]
pub struct LocalExecutor;

impl<F: Future + 'static> hyper::rt::Executor<F> for LocalExecutor {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(async move {
            future.await;
        });
    }
}
