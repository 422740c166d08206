//! A connection that speaks HTTP/1.1 for requests without a body, which most are: nothing of them is
//! sent but the head, in one piece, so that there is nothing to be done at one time but to send, or to
//! read. Requests with a body go over [`super::Http1`].

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

use super::chunks::{Chunks, Part};
use super::head::{self, Extent, Head, Malformed};
use super::http1::poll_timer;
use super::{Failure, Keepable};
use crate::heads;
use crate::http::{Interims, RequestBody, is_idempotent, write_line};

/// Longest head of an answer, with the interim answers before it.
const MAX_HEAD: usize = 256 << 10;

/// Bytes of one read of a head, or of what may be short.
const SCRATCH: usize = 16 << 10;

/// Bytes of one read of a long body.
const LONG_READ: usize = 64 << 10;

/// From so many bytes on, a body is read into memory of its own.
const LONG: u64 = SCRATCH as u64;

thread_local! {
    /// What heads are written in.
    static WRITE_FROM: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    /// What heads are read into, so that a connection that waits has no memory for it.
    static READ_INTO: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into());
}

/// A connection that speaks HTTP/1.1 for requests without a body. Whoever uses it drives it.
#[derive(Debug)]
pub struct Bare {
    stream: TcpStream,
    /// Read, and not yet passed on.
    read: BytesMut,
    body: Body,
    is_kept: bool,
    /// Set again for each request: setting a timer later is far cheaper than making one.
    timer: Pin<Box<Sleep>>,
    address: SocketAddr,
    is_reused: bool,
    idle_since: Instant,
}

/// What of an answer's body is to come.
#[derive(Clone, Copy, Debug)]
enum Body {
    Length(u64),
    Chunked(Chunks),
    UntilClose,
}

impl Body {
    fn is_over(self) -> bool {
        matches!(self, Self::Length(0) | Self::Chunked(Chunks::Done))
    }
}

impl Bare {
    /// Begins to speak on a new connection.
    pub fn new(stream: TcpStream, address: SocketAddr) -> Self {
        Self {
            stream,
            read: BytesMut::new(),
            body: Body::Length(0),
            is_kept: true,
            timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
            address,
            is_reused: false,
            idle_since: Instant::now(),
        }
    }

    /// Sends the request with these lines added, and waits for the head of its answer. The request stays where it is as long
    /// as it may be sent once more. What is said before the answer goes to `interims`, if it is wanted.
    pub(super) async fn exchange(
        &mut self,
        request: &mut Option<Request<RequestBody>>,
        added: &[u8],
        patience: Duration,
        interims: Option<&Interims>,
    ) -> Result<Response<()>, Failure> {
        let Some(asked) = request.as_ref() else {
            return Err(Failure::Closed);
        };
        let mut rest = match self.send(asked, added) {
            Ok(rest) => rest,
            Err(_) => return Err(Failure::Unsent),
        };
        let method = asked.method().clone();
        let tell = |status, headers: &HeaderMap| {
            if let Some(interims) = interims {
                interims.pass_on(status, headers);
            }
        };
        let mut began = None;
        let result = poll_fn(|context| {
            if let Poll::Ready(result) = self.poll_answer(&mut rest, &method, tell, context) {
                return Poll::Ready(result);
            }
            let began = *began.get_or_insert_with(|| {
                let now = tokio::time::Instant::now();
                self.timer.as_mut().reset(now + patience);
                now
            });
            poll_timer(&mut self.timer, began, None, patience, context).map(Err)
        })
        .await;
        let may_repeat = matches!(result, Err(Failure::Closed)) && is_idempotent(&method);
        if !may_repeat && let Some(request) = request.take() {
            heads::give_back(request.into_parts().0.headers);
        }
        let Head {
            response,
            extent,
            is_kept,
        } = result?;
        self.is_kept = is_kept;
        self.body = match extent {
            Extent::Length(length) => Body::Length(length),
            Extent::Chunked => Body::Chunked(Chunks::default()),
            Extent::UntilClose => Body::UntilClose,
        };
        Ok(response)
    }

    /// Sends as much of the head as goes at once, and returns the rest.
    fn send(&self, request: &Request<RequestBody>, added: &[u8]) -> io::Result<Vec<u8>> {
        WRITE_FROM.with_borrow_mut(|text| {
            text.clear();
            write_head(request, text);
            text.extend_from_slice(added);
            text.extend_from_slice(b"\r\n");
            match self.stream.try_write(text) {
                Ok(sent) => Ok(text[sent..].to_vec()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(text.clone()),
                Err(error) => Err(error),
            }
        })
    }

    fn poll_answer(
        &mut self,
        rest: &mut Vec<u8>,
        method: &Method,
        tell: impl Copy + Fn(StatusCode, &HeaderMap),
        context: &mut Context<'_>,
    ) -> Poll<Result<Head, Failure>> {
        while !rest.is_empty() {
            match ready!(Pin::new(&mut self.stream).poll_write(context, rest)) {
                Ok(sent @ 1..) => drop(rest.drain(..sent)),
                Ok(0) | Err(_) => return Poll::Ready(Err(Failure::Closed)),
            }
        }
        loop {
            match head::parse(&mut self.read, method, tell) {
                Ok(Some(head)) => return Poll::Ready(Ok(head)),
                Ok(None) if self.read.len() < MAX_HEAD => {}
                Ok(None) | Err(Malformed) => return Poll::Ready(Err(Failure::Malformed)),
            }
            match ready!(self.poll_more(context)) {
                Ok(1..) => {}
                Ok(0) | Err(_) => return Poll::Ready(Err(Failure::Closed)),
            }
        }
    }

    /// Reads once; 0 is the end.
    fn poll_more(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        READ_INTO.with_borrow_mut(|memory| {
            let mut into = ReadBuf::new(memory);
            ready!(Pin::new(&mut self.stream).poll_read(context, &mut into))?;
            if self.read.is_empty() {
                // Memory of just this size; what was there before may still be in use.
                self.read = heads::keep(into.filled());
            } else {
                self.read.extend_from_slice(into.filled());
            }
            Poll::Ready(Ok(into.filled().len()))
        })
    }

    /// The next part of the answer's body.
    pub fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let frame = ready!(self.poll_part(context));
        Poll::Ready(frame.transpose())
    }

    fn poll_part(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Option<Frame<Bytes>>>> {
        loop {
            if self.body.is_over() {
                return Poll::Ready(Ok(None));
            }
            if let Some(part) = self.part_that_came()? {
                return Poll::Ready(Ok(part));
            }
            if let Body::Length(left @ LONG..) = self.body {
                return self.poll_long(left, context);
            }
            if ready!(self.poll_more(context))? == 0 {
                return Poll::Ready(match self.body {
                    Body::UntilClose => {
                        self.body = Body::Length(0);
                        Ok(None)
                    }
                    _ => Err(io::ErrorKind::UnexpectedEof.into()),
                });
            }
        }
    }

    /// A part of the body, or its end, from what was read.
    fn part_that_came(&mut self) -> io::Result<Option<Option<Frame<Bytes>>>> {
        let taken = match &mut self.body {
            Body::Chunked(chunks) => {
                let part = chunks.next(&mut self.read);
                let part = part.map_err(|Malformed| io::ErrorKind::InvalidData)?;
                return Ok(part.map(|part| match part {
                    Part::Data(data) => Some(Frame::data(data)),
                    Part::Trailers(trailers) => Some(Frame::trailers(trailers)),
                    Part::End => None,
                }));
            }
            _ if self.read.is_empty() => return Ok(None),
            Body::UntilClose => self.read.len(),
            Body::Length(left) => {
                let taken = usize::try_from(*left)
                    .map_or(self.read.len(), |left| left.min(self.read.len()));
                *left -= taken as u64;
                taken
            }
        };
        let data = self.read.split_to(taken).freeze();
        Ok(Some(Some(Frame::data(data))))
    }

    /// Reads a part of a long body into memory of its own, which saves a copy.
    fn poll_long(
        &mut self,
        left: u64,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<Option<Frame<Bytes>>>> {
        let room = usize::try_from(left).map_or(LONG_READ, |left| left.min(LONG_READ));
        // It may get more memory than it asks for, and must not read beyond the body.
        let mut into = BytesMut::with_capacity(room).limit(room);
        let read = ready!(pin!(self.stream.read_buf(&mut into)).poll(context))?;
        if read == 0 {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        self.body = Body::Length(left - read as u64);
        Poll::Ready(Ok(Some(Frame::data(into.into_inner().freeze()))))
    }

    /// Whether all of the answer has come.
    pub fn is_end_stream(&self) -> bool {
        self.body.is_over()
    }

    /// How much of its body is to come.
    pub fn size_hint(&self) -> SizeHint {
        match self.body {
            Body::Length(left) => SizeHint::with_exact(left),
            _ => SizeHint::default(),
        }
    }
}

impl Keepable for Bare {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn idle_since(&self) -> Instant {
        self.idle_since
    }

    fn is_reused(&self) -> bool {
        self.is_reused
    }

    fn poll_is_ready(&mut self, _: &mut Context<'_>) -> bool {
        if !self.is_kept || !self.body.is_over() || !self.read.is_empty() {
            return false;
        }
        // Whatever has come before a request is none of ours, or the end.
        let came = self.stream.try_read(&mut [0]);
        came.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    fn rest(&mut self) {
        // It would keep the memory of the last answer.
        self.read = BytesMut::new();
        self.is_reused = true;
        self.idle_since = Instant::now();
    }
}

/// The head of a request without a body, up to the empty line at its end.
fn write_head(request: &Request<RequestBody>, text: &mut Vec<u8>) {
    let path = request.uri().path_and_query();
    text.extend_from_slice(request.method().as_str().as_bytes());
    text.push(b' ');
    text.extend_from_slice(path.map_or("/", |path| path.as_str()).as_bytes());
    text.extend_from_slice(b" HTTP/1.1\r\n");
    // Whatever the client wrote: nothing follows.
    let no_length = HeaderValue::from_static("0");
    for (name, value) in request.headers() {
        let is_length = name == header::CONTENT_LENGTH;
        write_line(text, name, if is_length { &no_length } else { value });
    }
}
