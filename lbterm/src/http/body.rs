//! The bodies of requests and responses, passed on frame by frame and never gathered.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Sleep;

use super::hop;
use super::relay::{Broken, Relay};

/// How long a client's body waits for an instance's `100 Continue`, which many never send (RFC
/// 9110, section 10.1.1: "SHOULD NOT wait for an indefinite period").
const CONTINUE_PATIENCE: Duration = Duration::from_secs(1);

/// How far a client's body has come.
#[derive(Debug)]
pub struct Upload {
    last_frame: Cell<Instant>,
    is_done: Cell<bool>,
    has_failed: Cell<bool>,
    bytes: Cell<u64>,
}

impl Upload {
    /// When something of the body was last passed on.
    pub fn last_frame(&self) -> Instant {
        self.last_frame.get()
    }

    /// All of it was passed on.
    pub fn is_done(&self) -> bool {
        self.is_done.get()
    }

    /// The client broke off, or its body is malformed.
    pub fn has_failed(&self) -> bool {
        self.has_failed.get()
    }

    /// Bytes that were passed on.
    pub fn bytes(&self) -> u64 {
        self.bytes.get()
    }
}

/// The body of a request on its way to an instance.
#[derive(Debug, Default)]
pub struct RequestBody(Option<Box<Uploading>>);

#[derive(Debug)]
struct Uploading {
    incoming: Incoming,
    upload: Rc<Upload>,
    gate: Option<Gate>,
}

impl RequestBody {
    /// The body of a client's request, and where it stands; none if it is empty.
    pub fn new(incoming: Option<Incoming>, now: Instant) -> (Self, Option<Rc<Upload>>) {
        let Some(incoming) = incoming.filter(|incoming| !incoming.is_end_stream()) else {
            return (Self::default(), None);
        };
        let upload = Rc::new(Upload {
            last_frame: Cell::new(now),
            is_done: Cell::new(false),
            has_failed: Cell::new(false),
            bytes: Cell::new(0),
        });
        let uploading = Uploading {
            incoming,
            upload: Rc::clone(&upload),
            gate: None,
        };
        (Self(Some(Box::new(uploading))), Some(upload))
    }

    /// Holds the body back until the returned key is used, or for one second: hyper answers
    /// `100 Continue` as soon as the body is asked for.
    pub fn hold_back(&mut self) -> Option<Arc<GateKey>> {
        let uploading = self.0.as_mut()?;
        let key = Arc::new(GateKey::default());
        uploading.gate = Some(Gate {
            key: Arc::clone(&key),
            patience: Box::pin(tokio::time::sleep(CONTINUE_PATIENCE)),
        });
        Some(key)
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(uploading) = self.get_mut().0.as_mut() else {
            return Poll::Ready(None);
        };
        if let Some(gate) = &mut uploading.gate {
            ready!(gate.poll_open(context));
            uploading.gate = None;
        }
        let mut frame = ready!(Pin::new(&mut uploading.incoming).poll_frame(context));
        if let Some(Ok(frame)) = &mut frame
            && let Some(trailers) = frame.trailers_mut()
        {
            hop::strip_trailers(trailers);
        }
        let upload = &uploading.upload;
        upload.last_frame.set(Instant::now());
        match &frame {
            Some(Ok(frame)) => {
                let more = frame.data_ref().map_or(0, |data| data.len() as u64);
                upload.bytes.set(upload.bytes.get() + more);
                upload.is_done.set(uploading.incoming.is_end_stream());
            }
            Some(Err(_)) => upload.has_failed.set(true),
            None => upload.is_done.set(true),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.0
            .as_ref()
            .is_none_or(|uploading| uploading.incoming.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Some(uploading) => uploading.incoming.size_hint(),
            None => SizeHint::with_exact(0),
        }
    }
}

/// Opens a [`Gate`], once.
#[derive(Debug, Default)]
pub struct GateKey {
    is_open: AtomicBool,
    waker: AtomicWaker,
}

impl GateKey {
    /// Lets the body go.
    pub fn open(&self) {
        self.is_open.store(true, Ordering::Release);
        self.waker.wake();
    }
}

#[derive(Debug)]
struct Gate {
    key: Arc<GateKey>,
    patience: Pin<Box<Sleep>>,
}

impl Gate {
    fn poll_open(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.key.waker.register(context.waker());
        if self.key.is_open.load(Ordering::Acquire) {
            return Poll::Ready(());
        }
        self.patience.as_mut().poll(context)
    }
}

/// The body of a response on its way to a client.
#[derive(Debug)]
pub enum ResponseBody {
    /// Of the terminator's own, or empty.
    Own(Option<Bytes>),
    /// An instance's.
    Relayed(Relay),
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match self.get_mut() {
            Self::Own(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Relayed(relay) => relay.poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(bytes) => bytes.is_none(),
            Self::Relayed(relay) => relay.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Self::Relayed(relay) => relay.size_hint(),
        }
    }
}
