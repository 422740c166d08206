//! What waits for the client to take it.

use std::cell::Cell;
use std::io::{self, IoSlice, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::AsyncWrite;

use super::answer::Extent;

/// From so many bytes on, a part of a body is not copied behind what goes before it.
const LONG: usize = 4 << 10;

/// More text than that is not kept for the next answer.
const MAX_SPARE: usize = 16 << 10;

thread_local! {
    /// Memory of former answers' text, so that a connection that waits has none.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Bytes in their order: text, then a long part of a body, then what ends the part.
#[derive(Debug, Default)]
pub struct Output {
    text: Vec<u8>,
    written: usize,
    part: Bytes,
    end: &'static [u8],
}

impl Output {
    /// Where an answer's head is written.
    pub fn begin(&mut self) -> &mut Vec<u8> {
        if self.text.capacity() == 0 {
            self.text = SPARE.take();
        }
        &mut self.text
    }

    /// Whether all was written.
    pub fn is_empty(&self) -> bool {
        self.written == self.text.len() && self.part.is_empty() && self.end.is_empty()
    }

    /// Whether more may be added before something is written.
    pub fn has_room(&self) -> bool {
        self.part.is_empty() && self.end.is_empty() && self.text.len() < LONG
    }

    /// Adds a part of a body, of which there is something left.
    pub fn add(&mut self, mut part: Bytes, extent: &mut Extent) {
        match extent {
            Extent::Length(left) => {
                // More than was said is none of this answer.
                part.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= part.len() as u64;
            }
            Extent::Chunked => {
                // Writing to memory does not fail.
                let _ = write!(self.text, "{:X}\r\n", part.len());
                self.end = b"\r\n";
            }
        }
        if part.len() < LONG {
            self.text.extend_from_slice(&part);
            self.text.extend_from_slice(std::mem::take(&mut self.end));
        } else {
            self.part = part;
        }
    }

    /// Adds what ends a body.
    pub fn finish(&mut self, extent: Extent) {
        if extent != Extent::Chunked {
            return;
        }
        match self.end {
            [] => self.text.extend_from_slice(b"0\r\n\r\n"),
            _ => self.end = b"\r\n0\r\n\r\n",
        }
    }

    /// Writes all of it.
    pub fn poll_write<S: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut S,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while !self.is_empty() {
            let text = &self.text[self.written..];
            let mut stream = Pin::new(&mut *stream);
            let written = if self.part.is_empty() && self.end.is_empty() {
                stream.as_mut().poll_write(context, text)
            } else {
                let parts = [text, &self.part, self.end].map(IoSlice::new);
                stream.as_mut().poll_write_vectored(context, &parts)
            };
            match ready!(written)? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.take(written),
            }
        }
        self.written = 0;
        self.text.clear();
        self.part = Bytes::new();
        Poll::Ready(Ok(()))
    }

    fn take(&mut self, mut written: usize) {
        let text = written.min(self.text.len() - self.written);
        self.written += text;
        written -= text;
        let part = written.min(self.part.len());
        self.part.advance(part);
        self.end = &self.end[written - part..];
    }

    /// Gives back memory that waits for nothing.
    pub fn rest(&mut self) {
        let text = std::mem::take(&mut self.text);
        if text.capacity() <= MAX_SPARE {
            SPARE.set(text);
        }
    }
}
