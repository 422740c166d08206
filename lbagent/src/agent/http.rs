//! HTTP for one listener, with an end to every patience: what a client may take for a head, how
//! many connections there are at a time, how long the last ones may last.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::serve::Listener;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::sync::{Semaphore, watch};
use tokio_io_timeout::TimeoutStream;
use tower::ServiceExt;

/// Longest time until a request's head is complete, from the connection's start or from the answer
/// before it: so this is also how long a connection may be idle.
const HEAD: Duration = Duration::from_secs(15);
/// Longest time that a client may leave an answer, or a stream of events, unread. Until then it holds
/// memory, and a place for streams.
const UNREAD: Duration = Duration::from_secs(20);
/// Largest head of a request.
const HEAD_SIZE: usize = 64 << 10;
/// Connections of a listener at a time; who comes later waits in the kernel's queue. Each listener
/// has as many of its own, so that whoever fills one does not keep operators from the other.
pub(super) const CONNECTIONS: usize = 16_384;

/// Serves until `stopped` says so, then until the requests under way are finished.
pub(super) async fn serve<L>(mut listener: L, router: Router, mut stopped: watch::Receiver<bool>)
where
    L: Listener,
    L::Addr: Clone + Sync,
{
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let graceful = GracefulShutdown::new();
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(HEAD_SIZE);
    loop {
        let accepted = async {
            let room = Arc::clone(&room).acquire_owned().await;
            (listener.accept().await, room)
        };
        let ((stream, peer), room) = tokio::select! {
            accepted = accepted => accepted,
            // An error means that the sender is gone, which is an end too.
            _ = stopped.wait_for(|stop| *stop) => break,
        };
        let router = router.clone();
        let service = service_fn(move |request| answer(router.clone(), peer.clone(), request));
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(UNREAD));
        let connection = http.serve_connection(TokioIo::new(Box::pin(stream)), service);
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            // Its end is all that there is to know: clients go away as they like.
            let _ = connection.await;
            drop(room);
        });
    }
    drop(listener);
    graceful.shutdown().await;
}

async fn answer<P: Clone + Send + Sync + 'static>(
    router: Router,
    peer: P,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    request.extensions_mut().insert(ConnectInfo(peer));
    router.oneshot(request.map(Body::new)).await
}
