//! A client's connection of HTTP/1.1 for as long as it brings requests that need nothing but an answer,
//! which most do: each is a head alone, so that there is nothing to be done at one time but to read, or
//! to answer. With anything else hyper goes on from the same byte.

mod answer;
mod output;
pub(super) mod request;
pub(super) mod unread;

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Method, Response, request::Parts};
use http_body::Body as _;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::body::ResponseBody;
use super::pulse::Tapped;
use super::relay::Broken;
use super::service::{Begun, Connection};
use crate::heads;
use answer::{Body, Extent, Unfit};
use output::Output;
use unread::Unread;

/// Bytes of one read.
const SCRATCH: usize = 16 << 10;

/// Requests that are answered before other connections of the thread have their turn.
const TURN: u32 = 16;

thread_local! {
    /// What is read into, so that a connection that waits has no memory for it.
    static READ_INTO: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into());
}

/// Why a connection is served no longer.
#[derive(Debug)]
pub enum Over {
    /// It was closed in good order.
    Closed,
    /// The client went before the end of its answer, or the answer broke off.
    Broken(Broken),
    /// What was read, and goes on from there, is hyper's.
    Hyper(Bytes),
}

impl From<io::Error> for Over {
    fn from(error: io::Error) -> Self {
        Self::Broken(error.into())
    }
}

/// A client's connection of HTTP/1.1.
pub struct Bare<S> {
    stream: Tapped<S>,
    connection: Rc<Connection>,
    /// All heads are shorter.
    most: usize,
    state: State,
    /// What came before the answer had gone, or before the rest of its head.
    unread: Unread,
    /// What comes of an answer; none, when all has come.
    body: Option<ResponseBody>,
    output: Output,
    /// No request follows the one that is being answered.
    is_last: bool,
}

enum State {
    /// It waits for a request.
    Waiting,
    /// Somebody finds an answer.
    Asked { answer: Begun, is_head: bool },
    /// An answer goes to the client, of whose body so much is to come.
    Answering(Extent),
    /// It is being closed.
    Closing,
}

impl<S> Bare<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    /// Begins to serve requests whose heads are shorter than `most`.
    pub fn new(stream: Tapped<S>, connection: Rc<Connection>, most: usize) -> Self {
        Self {
            stream,
            connection,
            most,
            state: State::Waiting,
            unread: Unread::default(),
            body: None,
            output: Output::default(),
            is_last: false,
        }
    }

    /// Whether the client has sent something that nobody has looked at.
    pub fn has_unread(&self) -> bool {
        !self.unread.is_empty()
    }

    /// The stream, for who goes on with it.
    pub fn into_stream(self) -> Tapped<S> {
        self.stream
    }

    /// No more requests: a client that waits for an answer is told with it.
    pub fn say_goodbye(&mut self) {
        self.is_last = true;
        if matches!(self.state, State::Waiting) {
            self.state = State::Closing;
        }
    }

    /// Ready when it is over.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<Over> {
        for _ in 0..TURN {
            if let Err(over) = ready!(self.poll_one(context)) {
                return Poll::Ready(over);
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// Serves one request.
    fn poll_one(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Over>> {
        if matches!(self.state, State::Waiting) {
            let Some(parts) = ready!(self.poll_request(context))? else {
                self.state = State::Closing;
                return Poll::Ready(Ok(()));
            };
            let is_head = parts.method == Method::HEAD;
            let answer = self.connection.begin(parts, None, false);
            self.state = State::Asked { answer, is_head };
        }
        if let State::Asked { answer, is_head } = &mut self.state {
            let is_head = *is_head;
            let Poll::Ready(Ok(response)) = answer.as_mut().poll(context) else {
                if self.connection.pulse.interims.wait() {
                    // What is not written wakes by itself.
                    let _ = Pin::new(&mut self.stream).poll_flush(context)?;
                }
                return self.poll_gone(context);
            };
            self.begin_answer(response, is_head)?;
        }
        if let State::Answering(_) = &self.state {
            if self.poll_answer(context)?.is_pending() {
                return self.poll_gone(context);
            }
            self.output.rest();
            self.state = match self.is_last {
                true => State::Closing,
                false => State::Waiting,
            };
        }
        if let State::Closing = &self.state {
            ready!(Pin::new(&mut self.stream).poll_shutdown(context))?;
            return Poll::Ready(Err(Over::Closed));
        }
        Poll::Ready(Ok(()))
    }

    /// The next request; none, if the client is done.
    fn poll_request(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Parts>, Over>> {
        READ_INTO.with_borrow_mut(|memory| {
            loop {
                let (is_part, needs_more) = (self.unread.is_part(), self.unread.needs_more());
                let came = match needs_more {
                    true => ready!(poll_read(&mut self.stream, memory, context))?,
                    false => &[],
                };
                if needs_more && came.is_empty() {
                    return Poll::Ready(match is_part {
                        true => Err(Over::Hyper(std::mem::take(&mut self.unread).into_bytes())),
                        false => Ok(None),
                    });
                }
                let taken = self.unread.take(came, self.most).map_err(Over::Hyper)?;
                if is_part || taken.is_none() {
                    let is_in_head = taken.is_none() && self.unread.has_begun();
                    self.connection.pulse.set_in_head(is_in_head);
                }
                if taken.is_some() {
                    return Poll::Ready(Ok(taken));
                }
            }
        })
    }

    /// While an answer is on its way: whether the client is gone. One that closes its half of the
    /// connection is, as it is for hyper.
    fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Over>> {
        if !self.unread.is_empty() {
            return Poll::Pending;
        }
        READ_INTO.with_borrow_mut(|memory| {
            let read = ready!(poll_read(&mut self.stream, memory, context))?;
            if read.is_empty() {
                let gone = io::Error::from(io::ErrorKind::UnexpectedEof);
                return Poll::Ready(Err(gone.into()));
            }
            self.unread.keep(read);
            Poll::Pending
        })
    }

    fn begin_answer(
        &mut self,
        response: Response<ResponseBody>,
        is_head: bool,
    ) -> Result<(), Over> {
        let (mut parts, body) = response.into_parts();
        let close = HeaderValue::from_static("close");
        let says_close = parts.headers.get(header::CONNECTION) == Some(&close);
        if self.is_last && !says_close {
            parts.headers.append(header::CONNECTION, close);
        }
        self.is_last |= says_close;
        let announced = match body.size_hint().exact() {
            _ if body.is_end_stream() => Body::None,
            Some(length) => Body::Known(length),
            None => Body::Unknown,
        };
        let extent = answer::write(&parts, announced, is_head, self.output.begin());
        let extent = extent.map_err(|Unfit| Over::Broken("two lengths of an answer".into()))?;
        heads::give_back(parts.headers);
        self.body = (extent != Extent::Length(0)).then_some(body);
        self.state = State::Answering(extent);
        Ok(())
    }

    /// Ready when the client has been given all of the answer.
    fn poll_answer(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Over>> {
        loop {
            let gathered = self.poll_gather(context)?;
            ready!(self.output.poll_write(&mut self.stream, context))?;
            if self.body.is_none() || gathered.is_pending() {
                // A TLS stream takes bytes and may have to wait here.
                ready!(Pin::new(&mut self.stream).poll_flush(context))?;
                ready!(gathered);
            }
            if self.body.is_none() {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Takes of the body what has come, as long as there is room; pending, if that is not all.
    fn poll_gather(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Over>> {
        let State::Answering(extent) = &mut self.state else {
            return Poll::Ready(Ok(()));
        };
        while let Some(body) = &mut self.body
            && self.output.has_room()
        {
            let frame = match ready!(Pin::new(&mut *body).poll_frame(context)) {
                Some(frame) => Some(frame.map_err(Over::Broken)?),
                None => None,
            };
            // Trailers end it; they go to those clients only that ask for them by `TE`.
            let data = frame.and_then(|frame| frame.into_data().ok());
            let mut is_over = data.is_none() || body.is_end_stream();
            if let Some(data) = data
                && !data.is_empty()
            {
                self.output.add(data, extent);
                is_over |= *extent == Extent::Length(0);
            }
            if !is_over {
                continue;
            }
            if let Extent::Length(1..) = extent {
                let short = io::Error::from(io::ErrorKind::UnexpectedEof);
                return Poll::Ready(Err(short.into()));
            }
            self.output.finish(*extent);
            self.body = None;
        }
        Poll::Ready(Ok(()))
    }
}

/// Reads once; nothing is the end.
fn poll_read<'a, S: AsyncRead + Unpin>(
    stream: &mut S,
    memory: &'a mut [u8],
    context: &mut Context<'_>,
) -> Poll<io::Result<&'a [u8]>> {
    let mut into = ReadBuf::new(memory);
    ready!(Pin::new(stream).poll_read(context, &mut into))?;
    let length = into.filled().len();
    Poll::Ready(Ok(&memory[..length]))
}
