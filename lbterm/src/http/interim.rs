//! Answers of instances before the final one (RFC 9110, section 15.2) on their way to a client of
//! HTTP/1.1. Nothing of HTTP that serves the client's connection knows of them: they are written below
//! it, where it flushes, which it does when all that it had to say is with the client. The final answer
//! waits for them.

use std::future::poll_fn;
use std::io::{self, Write};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use http::{HeaderMap, Request, StatusCode, header, request};
use tokio::io::AsyncWrite;

use super::body::GateKey;
use super::pulse::Pulse;
use super::{hop, write_line};

/// Most interim answers to one request that are passed on.
const MOST: u32 = 32;

/// Most bytes of them that wait for the client.
const ROOM: usize = 16 << 10;

/// Interim answers on their way to a client. What is beyond the bounds is left out, as a client may do
/// with all of them.
#[derive(Debug, Default)]
pub struct Interims {
    /// Some are not written yet.
    wait: AtomicBool,
    /// How many of this request were passed on.
    passed: AtomicU32,
    text: Mutex<Vec<u8>>,
}

impl Interims {
    /// Whether some are not written yet.
    pub fn wait(&self) -> bool {
        self.wait.load(Ordering::Relaxed)
    }

    /// Passes one on. 100 is none of them: who waits for it is told by who serves its connection, and
    /// to everybody else it says nothing.
    pub fn pass_on(&self, status: StatusCode, headers: &HeaderMap) {
        if status == StatusCode::CONTINUE || self.passed.load(Ordering::Relaxed) == MOST {
            return;
        }
        let mut headers = headers.clone();
        hop::strip_response(&mut headers);
        // It has no body (RFC 9110, section 8.6).
        headers.remove(header::CONTENT_LENGTH);
        let mut interim = Vec::new();
        let reason = status.canonical_reason().unwrap_or_default();
        // Writing to memory does not fail.
        let _ = write!(interim, "HTTP/1.1 {} {reason}\r\n", status.as_str());
        for (name, value) in &headers {
            write_line(&mut interim, name, value);
        }
        interim.extend_from_slice(b"\r\n");
        let mut text = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        if text.len() + interim.len() <= ROOM {
            text.append(&mut interim);
            self.passed.fetch_add(1, Ordering::Relaxed);
            self.wait.store(true, Ordering::Relaxed);
        }
    }

    /// Writes those that wait; whoever waits for that is of the same task.
    pub fn poll_write<S: AsyncWrite + Unpin>(
        &self,
        stream: &mut S,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let mut text = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        while !text.is_empty() {
            match ready!(Pin::new(&mut *stream).poll_write(context, &text))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => drop(text.drain(..written)),
            }
        }
        *text = Vec::new();
        self.wait.store(false, Ordering::Relaxed);
        context.waker().wake_by_ref();
        Poll::Ready(Ok(()))
    }

    /// Waits until those to the request are written, whose final answer comes now.
    pub async fn written(&self) {
        if self.passed.load(Ordering::Relaxed) == 0 {
            return;
        }
        poll_fn(|_| match self.wait() {
            true => Poll::Pending,
            false => Poll::Ready(()),
        })
        .await;
        self.passed.store(0, Ordering::Relaxed);
    }
}

/// What an instance says before its answer lets the body go that waits for `100 Continue`, and goes to
/// the client, if it takes that.
pub fn heed(parts: &mut request::Parts, body: Option<Arc<GateKey>>, client: Option<Arc<Pulse>>) {
    if body.is_none() && client.is_none() {
        return;
    }
    let mut request = Request::new(());
    hyper::ext::on_informational(&mut request, move |interim| {
        if let Some(client) = &client {
            client.interims.pass_on(interim.status(), interim.headers());
        }
        if let Some(body) = &body
            && interim.status() == StatusCode::CONTINUE
        {
            body.open();
        }
    });
    let extensions = std::mem::take(request.extensions_mut());
    parts.extensions.extend(extensions);
}
