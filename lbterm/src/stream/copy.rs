//! Bytes both ways between two streams, until both ways have ended.
//!
//! A way that ends is closed towards its receiver alone (a half-close); the other one goes on. What a
//! receiver does not take is kept, and nothing more is read meanwhile: at most one read's worth. The
//! memory to read into is the thread's, so that a connection that is silent has none.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, sleep_until};

/// Bytes of one read: four TLS records, of which a client sends one at a time.
const SCRATCH: usize = 64 << 10;

thread_local! {
    static READ_INTO: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into());
}

/// How it ended.
#[derive(Debug)]
pub enum End {
    /// Both ways were closed in good order.
    Finished,
    /// No byte came either way for too long.
    Idle,
    /// The client went away, or what it sent was not closed as TLS asks for (truncated).
    ClientFailed(io::Error),
    /// The instance went away.
    InstanceFailed(io::Error),
}

/// How many bytes went which way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// From the client to the instance.
    pub to_instance: u64,
    /// From the instance to the client.
    pub to_client: u64,
}

/// Copies until both ways have ended, one fails, or no byte came for `idle`.
pub async fn copy<C, I>(client: &mut C, instance: &mut I, idle: Duration) -> (End, Moved)
where
    C: AsyncRead + AsyncWrite + Unpin,
    I: AsyncRead + AsyncWrite + Unpin,
{
    let mut to_instance = Way::default();
    let mut to_client = Way::default();
    let mut last_byte = Instant::now();
    let mut timer = std::pin::pin!(sleep_until(last_byte + idle));
    let end = poll_fn(|cx| {
        let before = to_instance.moved + to_client.moved;
        let up = to_instance.poll(cx, client, instance);
        let down = to_client.poll(cx, instance, client);
        if let Some(end) = end_of(up, down, &mut to_instance) {
            return Poll::Ready(end);
        }
        if to_instance.moved + to_client.moved != before {
            last_byte = Instant::now();
        }
        // The timer is not moved with each byte: when it is over, it tells from the last byte.
        while timer.as_mut().poll(cx).is_ready() {
            if last_byte.elapsed() >= idle {
                return Poll::Ready(End::Idle);
            }
            timer.as_mut().reset(last_byte + idle);
        }
        Poll::Pending
    })
    .await;
    let moved = Moved {
        to_instance: to_instance.moved,
        to_client: to_client.moved,
    };
    (end, moved)
}

/// What the state of both ways means for the whole.
fn end_of(
    up: Poll<Result<(), Broken>>,
    down: Poll<Result<(), Broken>>,
    way: &mut Way,
) -> Option<End> {
    match (up, down) {
        (Poll::Ready(Err(Broken::Read(error))), _)
        | (_, Poll::Ready(Err(Broken::Write(error)))) => Some(End::ClientFailed(error)),
        (_, Poll::Ready(Err(Broken::Read(error)))) => Some(End::InstanceFailed(error)),
        (Poll::Ready(Err(Broken::Write(_))), down) => {
            // The instance takes no more, but its answer may still be on the way.
            way.state = State::Done;
            matches!(down, Poll::Ready(Ok(()))).then_some(End::Finished)
        }
        (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Some(End::Finished),
        _ => None,
    }
}

/// Which side of a way failed.
enum Broken {
    Read(io::Error),
    Write(io::Error),
}

/// One direction.
#[derive(Default)]
struct Way {
    state: State,
    /// Read, and not yet taken by the receiver, from `taken` on.
    kept: Vec<u8>,
    taken: usize,
    must_flush: bool,
    moved: u64,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Moving,
    /// The sender has ended; the receiver is told.
    Closing,
    Done,
}

impl Way {
    fn poll<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        to: &mut W,
    ) -> Poll<Result<(), Broken>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        while self.state == State::Moving {
            ready!(self.poll_kept(cx, to))?;
            ready!(self.poll_more(cx, from, to))?;
        }
        if self.state == State::Closing {
            ready!(Pin::new(to).poll_shutdown(cx)).map_err(Broken::Write)?;
            self.state = State::Done;
        }
        Poll::Ready(Ok(()))
    }

    /// Gives the receiver what it did not take before.
    fn poll_kept<W>(&mut self, cx: &mut Context<'_>, to: &mut W) -> Poll<Result<(), Broken>>
    where
        W: AsyncWrite + Unpin,
    {
        while self.taken < self.kept.len() {
            self.taken += ready!(poll_write(cx, to, &self.kept[self.taken..]))?;
        }
        self.kept = Vec::new();
        self.taken = 0;
        Poll::Ready(Ok(()))
    }

    /// Reads once, and gives the receiver what it takes at once.
    fn poll_more<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        to: &mut W,
    ) -> Poll<Result<(), Broken>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        READ_INTO.with_borrow_mut(|memory| {
            let mut buffer = ReadBuf::new(memory);
            let read = Pin::new(from).poll_read(cx, &mut buffer);
            if read.is_pending() && self.must_flush {
                ready!(Pin::new(&mut *to).poll_flush(cx)).map_err(Broken::Write)?;
                self.must_flush = false;
            }
            ready!(read).map_err(Broken::Read)?;
            let mut bytes = buffer.filled();
            if bytes.is_empty() {
                self.state = State::Closing;
                return Poll::Ready(Ok(()));
            }
            self.moved += bytes.len() as u64;
            self.must_flush = true;
            while !bytes.is_empty() {
                match poll_write(cx, to, bytes) {
                    Poll::Ready(Ok(taken)) => bytes = &bytes[taken..],
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => {
                        self.kept = bytes.to_vec();
                        return Poll::Pending;
                    }
                }
            }
            Poll::Ready(Ok(()))
        })
    }
}

fn poll_write<W>(cx: &mut Context<'_>, to: &mut W, bytes: &[u8]) -> Poll<Result<usize, Broken>>
where
    W: AsyncWrite + Unpin,
{
    match ready!(Pin::new(to).poll_write(cx, bytes)) {
        Ok(0) => Poll::Ready(Err(Broken::Write(io::ErrorKind::WriteZero.into()))),
        Ok(taken) => Poll::Ready(Ok(taken)),
        Err(error) => Poll::Ready(Err(Broken::Write(error))),
    }
}
