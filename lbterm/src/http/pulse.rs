//! What a connection's bytes tell besides what hyper makes of them: where a request is, and how
//! long nothing has come or gone.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::framing::{Framing, Place};
use super::interim::Interims;

/// No request was conflicting.
const NONE: u64 = u64::MAX;

/// What is known of a connection's bytes. Written by [`Tapped`], which hyper owns; both are always
/// on one thread, and atomic only because hyper wants upgradable streams to be [`Send`].
#[derive(Debug)]
pub struct Pulse {
    began: Instant,
    /// Milliseconds since `began`.
    last_read: AtomicU64,
    last_write: AtomicU64,
    head_began: AtomicU64,
    waits_for_read: AtomicBool,
    waits_for_write: AtomicBool,
    place: AtomicU8,
    conflict: AtomicU64,
    left: AtomicBool,
    /// What an instance says before its answer.
    pub interims: Interims,
}

impl Pulse {
    /// Of a connection that begins now.
    pub fn new(now: Instant) -> Self {
        Self {
            began: now,
            last_read: AtomicU64::new(0),
            last_write: AtomicU64::new(0),
            head_began: AtomicU64::new(0),
            waits_for_read: AtomicBool::new(false),
            waits_for_write: AtomicBool::new(false),
            place: AtomicU8::new(Place::Between as u8),
            conflict: AtomicU64::new(NONE),
            left: AtomicBool::new(false),
            interims: Interims::default(),
        }
    }

    /// What the next byte from the client belongs to.
    pub fn place(&self) -> Place {
        match self.place.load(Ordering::Relaxed) {
            place if place == Place::Between as u8 => Place::Between,
            place if place == Place::Head as u8 => Place::Head,
            place if place == Place::Body as u8 => Place::Body,
            _ => Place::Beyond,
        }
    }

    /// Whether the head of a request is coming, of which nobody is told by [`Tapped::follow`].
    pub fn set_in_head(&self, is_in_head: bool) {
        let place = match is_in_head {
            true => Place::Head,
            false => Place::Between,
        };
        if is_in_head && self.place() != Place::Head {
            self.touch(&self.head_began);
        }
        self.place.store(place as u8, Ordering::Relaxed);
    }

    /// Whether the request with this number, from 0, had two lengths.
    pub fn is_conflicting(&self, request: u64) -> bool {
        self.conflict.load(Ordering::Relaxed) == request
    }

    /// The bytes from here on are no requests.
    pub fn leave(&self) {
        self.left.store(true, Ordering::Relaxed);
    }

    /// When the head that is coming began.
    pub fn head_began(&self) -> Instant {
        self.instant(&self.head_began)
    }

    /// When the last byte came or went.
    pub fn last_byte(&self) -> Instant {
        self.instant(&self.last_read)
            .max(self.instant(&self.last_write))
    }

    /// Since when the client has kept the connection waiting: for bytes of a body, or to take
    /// bytes.
    pub fn stalled_since(&self) -> Option<Instant> {
        if self.waits_for_write.load(Ordering::Relaxed) {
            return Some(self.instant(&self.last_write));
        }
        let waits_for_body =
            self.place() == Place::Body && self.waits_for_read.load(Ordering::Relaxed);
        waits_for_body.then(|| self.instant(&self.last_read))
    }

    fn instant(&self, millis: &AtomicU64) -> Instant {
        self.began + Duration::from_millis(millis.load(Ordering::Relaxed))
    }

    fn touch(&self, millis: &AtomicU64) -> u64 {
        let elapsed = self.began.elapsed().as_millis();
        let elapsed = u64::try_from(elapsed).unwrap_or(u64::MAX);
        millis.store(elapsed, Ordering::Relaxed);
        elapsed
    }
}

/// A client's stream that takes note of what passes.
#[derive(Debug)]
pub struct Tapped<S> {
    stream: S,
    pulse: Arc<Pulse>,
    /// Of HTTP/1.1 that hyper reads.
    framing: Option<Box<Framing>>,
    /// What was read before, and comes first.
    before: Bytes,
}

impl<S> Tapped<S> {
    /// A stream of a connection.
    pub fn new(stream: S, pulse: Arc<Pulse>) -> Self {
        Self {
            stream,
            pulse,
            framing: None,
            before: Bytes::new(),
        }
    }

    /// From here on requests are followed, and what was read of the next one comes again.
    pub fn follow(&mut self, before: Bytes) {
        self.framing = Some(Box::default());
        self.before = before;
    }

    fn note_read(&mut self, bytes: &[u8]) {
        let pulse = &self.pulse;
        let now = pulse.touch(&pulse.last_read);
        if pulse.left.load(Ordering::Relaxed) {
            self.framing = None;
        }
        let Some(framing) = &mut self.framing else {
            return;
        };
        let (before, heads) = (framing.place(), framing.heads());
        framing.read(bytes);
        let place = framing.place();
        if place == Place::Head && (before != Place::Head || framing.heads() != heads) {
            pulse.head_began.store(now, Ordering::Relaxed);
        }
        pulse.place.store(place as u8, Ordering::Relaxed);
        if let Some(request) = framing.conflict() {
            pulse.conflict.store(request, Ordering::Relaxed);
        }
    }

    fn note_write(&self, result: &Poll<io::Result<usize>>) {
        let pulse = &self.pulse;
        pulse
            .waits_for_write
            .store(result.is_pending(), Ordering::Relaxed);
        if matches!(result, Poll::Ready(Ok(_))) {
            pulse.touch(&pulse.last_write);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Tapped<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let result = if this.before.has_remaining() {
            let part = this.before.len().min(buffer.remaining());
            buffer.put_slice(&this.before.split_to(part));
            Poll::Ready(Ok(()))
        } else {
            Pin::new(&mut this.stream).poll_read(context, buffer)
        };
        let waits = &this.pulse.waits_for_read;
        waits.store(result.is_pending(), Ordering::Relaxed);
        let bytes = &buffer.filled()[before..];
        if !bytes.is_empty() {
            this.note_read(bytes);
        }
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Tapped<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.stream).poll_write(context, bytes);
        this.note_write(&result);
        result
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.stream).poll_write_vectored(context, parts);
        this.note_write(&result);
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let interims = &this.pulse.interims;
        let result = match interims.wait() {
            true => interims.poll_write(&mut this.stream, context),
            false => Poll::Ready(Ok(())),
        };
        let result = match result {
            Poll::Ready(Ok(())) => Pin::new(&mut this.stream).poll_flush(context),
            other => other,
        };
        // A TLS stream takes bytes and waits here.
        this.pulse
            .waits_for_write
            .store(result.is_pending(), Ordering::Relaxed);
        result
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}
