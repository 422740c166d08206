//! Instances that speak HTTP/1.1 and HTTP/2 without TLS, as the gateway asks them to.
//!
//! Every answer is `NAME for CLIENT by https`, as the gateway tells them. What is asked at `/held` is
//! answered when the test says so; at `/half`, the head and a half of the answer come at once.

use std::convert::Infallible;
use std::net::Ipv6Addr;
use std::sync::Arc;

use anyhow::Result;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{Request, Response};
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::resident::Resident;
use crate::topology::BackendHost;

/// An instance. It ends when this is dropped.
#[derive(Debug)]
pub struct Origin {
    asked: watch::Receiver<usize>,
    release: watch::Sender<bool>,
    _resident: Resident,
}

/// What an instance's tasks share.
struct Shared {
    name: String,
    /// How many requests wait to be answered.
    asked: watch::Sender<usize>,
    released: watch::Receiver<bool>,
}

impl Origin {
    /// Listens on a port of both families.
    pub fn start(backend: &BackendHost, port: u16) -> Result<Self> {
        let (release, released) = watch::channel(false);
        let (asked, watch_asked) = watch::channel(0);
        let shared = Arc::new(Shared {
            name: backend.name.clone(),
            asked,
            released,
        });
        let label = format!("origin {}", backend.name);
        let listen = move || async move {
            let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await?;
            tokio::spawn(accept(listener, shared));
            Ok(())
        };
        Ok(Self {
            asked: watch_asked,
            release,
            _resident: Resident::start(&backend.ns, &label, listen)?,
        })
    }

    /// Requests that were asked at `/held` and `/half` so far.
    pub fn held(&self) -> usize {
        *self.asked.borrow()
    }

    /// Lets what is held be answered, or holds what is asked from now on.
    pub fn set_released(&self, is_released: bool) {
        self.release.send_replace(is_released);
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        // Small answers are not to wait for more.
        let _ = stream.set_nodelay(true);
        let shared = Arc::clone(&shared);
        let answer = service_fn(move |request| answer(request, Arc::clone(&shared)));
        tokio::spawn(async move {
            let server = auto::Builder::new(TokioExecutor::new());
            // A gateway that goes away in the middle is its own test's business.
            let _ = server.serve_connection(TokioIo::new(stream), answer).await;
        });
    }
}

type Body = UnsyncBoxBody<Bytes, Infallible>;

async fn answer(
    request: Request<Incoming>,
    shared: Arc<Shared>,
) -> Result<Response<Body>, Infallible> {
    let field = |name: &str| {
        let value = request.headers().get(name).map(|value| value.to_str());
        value.and_then(Result::ok).unwrap_or("nobody").to_owned()
    };
    let (client, proto) = (field("x-forwarded-for"), field("x-forwarded-proto"));
    let text = format!("{} for {client} by {proto}", shared.name);
    let mut released = shared.released.clone();
    let held = request.uri().path() == "/held";
    if held || request.uri().path() == "/half" {
        shared.asked.send_modify(|asked| *asked += 1);
    } else {
        released = watch::channel(true).1;
    }
    if held {
        wait(&mut released).await;
    }
    let (first, second) = text.split_at(text.len() / 2);
    let parts = [first, second].map(|part| Bytes::copy_from_slice(part.as_bytes()));
    let parts = stream::iter(parts).enumerate().then(move |(index, part)| {
        let mut released = released.clone();
        async move {
            if index > 0 {
                wait(&mut released).await;
            }
            Ok(Frame::data(part))
        }
    });
    let length = text.len();
    let body = StreamBody::new(parts).boxed_unsync();
    let response = Response::builder().header("content-length", length);
    Ok(response.body(body).expect("fields of this file"))
}

async fn wait(released: &mut watch::Receiver<bool>) {
    // When the sender is gone, the test is over.
    let _ = released.wait_for(|released| *released).await;
}
