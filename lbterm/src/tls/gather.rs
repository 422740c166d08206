//! What TLS gives to a client's socket, in fewer packets, each of which takes about a twentieth of a
//! handshake's CPU time: session tickets go with the first bytes of an answer, and the alert that
//! closes a connection goes with its end.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::net::{SendFlags, send};
use smallvec::SmallVec;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// Most bytes that wait: a few tickets and an alert.
const MOST: usize = 2 << 10;

/// The socket below TLS.
#[derive(Debug)]
pub struct Gather {
    stream: TcpStream,
    mode: Mode,
    /// They go before the next ones.
    held: Vec<u8>,
    /// All that was given has been taken, and no flush has come since.
    is_whole: bool,
}

/// What happens to bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// They go at once.
    Pass,
    /// So many flights go at once, each of which ends with a flush; what comes then waits.
    HoldAfter(u8),
}

impl Gather {
    /// Nothing waits, until it is told so.
    pub fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            mode: Mode::Pass,
            held: Vec::new(),
            is_whole: false,
        }
    }

    /// After so many flights, bytes wait.
    pub fn hold_after(&mut self, flights: u8) {
        self.mode = Mode::HoldAfter(flights);
    }

    /// What waits goes with the next bytes, or when these are flushed.
    pub fn pass(&mut self) {
        self.mode = Mode::Pass;
    }

    fn is_holding(&self) -> bool {
        self.mode == Mode::HoldAfter(0)
    }

    /// Writes once, first what waits, and returns how much of the parts has gone.
    fn poll_once(
        &mut self,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let stream = Pin::new(&mut self.stream);
        if self.held.is_empty() {
            return match parts {
                // Takes less of the kernel than a list of one.
                [part] => stream.poll_write(context, part),
                parts => stream.poll_write_vectored(context, parts),
            };
        }
        let written = {
            let held = std::iter::once(IoSlice::new(&self.held));
            let all: SmallVec<[_; 16]> = held.chain(parts.iter().copied()).collect();
            ready!(stream.poll_write_vectored(context, &all))?
        };
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        let before = written.min(self.held.len());
        self.held.drain(..before);
        if self.held.is_empty() {
            self.held = Vec::new();
        }
        Poll::Ready(Ok(written - before))
    }

    fn poll_parts(
        &mut self,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = parts.iter().map(|part| part.len()).sum::<usize>();
        if self.is_holding() && self.held.len() + length <= MOST {
            for part in parts {
                self.held.extend_from_slice(part);
            }
            return Poll::Ready(Ok(length));
        }
        self.is_whole = false;
        loop {
            let is_held = !self.held.is_empty();
            let written = ready!(self.poll_once(context, parts))?;
            if written > 0 || !is_held {
                self.is_whole = true;
                return Poll::Ready(Ok(written));
            }
        }
    }

    /// Sends what waits so that the end, which follows, goes with it.
    fn poll_last(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.held.is_empty() {
            let flags = SendFlags::MORE | SendFlags::NOSIGNAL;
            let sending = || Ok(send(&self.stream, &self.held, flags)?);
            match self.stream.try_io(Interest::WRITABLE, sending) {
                Ok(sent) => drop(self.held.drain(..sent)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.stream.poll_write_ready(context))?;
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Gather {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Gather {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_parts(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_parts(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.is_holding() {
            return Poll::Ready(Ok(()));
        }
        while !this.held.is_empty() {
            ready!(this.poll_once(context, &[]))?;
        }
        ready!(Pin::new(&mut this.stream).poll_flush(context))?;
        // A flush also comes when the client takes no more of a flight.
        if let Mode::HoldAfter(flights) = &mut this.mode
            && std::mem::take(&mut this.is_whole)
        {
            *flights -= 1;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_last(context))?;
        Pin::new(&mut this.stream).poll_shutdown(context)
    }
}

/// A decrypted connection.
#[derive(Debug)]
pub struct Stream(TlsStream<Gather>);

impl Stream {
    /// Of a handshake that has ended.
    pub fn new(mut stream: TlsStream<Gather>) -> Self {
        stream.get_mut().0.pass();
        Self(stream)
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().0).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().0).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let stream = &mut self.get_mut().0;
        // The alert that it writes waits for the end.
        stream.get_mut().0.hold_after(0);
        Pin::new(stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net;
    use std::time::Duration;

    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    /// A stream and its client.
    async fn pair() -> (Gather, net::TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        (Gather::new(stream), client)
    }

    async fn give(stream: &mut Gather, bytes: &[u8]) {
        stream.write_all(bytes).await.unwrap();
        stream.flush().await.unwrap();
    }

    #[track_caller]
    fn comes(client: &mut net::TcpStream, expected: &[u8]) {
        let mut came = vec![0; expected.len()];
        client.read_exact(&mut came).unwrap();
        assert_eq!(came, expected);
    }

    #[tokio::test]
    async fn what_comes_after_the_flights_goes_with_the_next_bytes() {
        for flights in [1, 2] {
            let (mut stream, mut client) = pair().await;
            stream.hold_after(flights);
            for _ in 0..flights {
                give(&mut stream, b"flight").await;
                assert!(stream.held.is_empty());
                comes(&mut client, b"flight");
            }
            give(&mut stream, b"ticket").await;
            stream.pass();
            assert_eq!(stream.held, b"ticket");
            give(&mut stream, b"answer").await;
            assert_eq!(stream.held.capacity(), 0);
            give(&mut stream, b"more").await;
            comes(&mut client, b"ticketanswermore");
        }
    }

    #[tokio::test]
    async fn a_flush_sends_what_waits() {
        let (mut stream, mut client) = pair().await;
        stream.hold_after(0);
        give(&mut stream, b"alert").await;
        stream.pass();
        stream.flush().await.unwrap();
        comes(&mut client, b"alert");
    }

    #[tokio::test]
    async fn the_end_goes_with_what_waits() {
        let (mut stream, mut client) = pair().await;
        stream.hold_after(0);
        give(&mut stream, b"alert").await;
        assert_eq!(stream.held, b"alert");
        stream.shutdown().await.unwrap();
        let mut all = Vec::new();
        client.read_to_end(&mut all).unwrap();
        assert_eq!(all, b"alert");
    }

    #[tokio::test]
    async fn much_does_not_wait() {
        let (mut stream, mut client) = pair().await;
        stream.hold_after(0);
        give(&mut stream, b"before").await;
        give(&mut stream, &[b'x'; MOST]).await;
        assert!(stream.held.is_empty());
        comes(&mut client, b"before");
        comes(&mut client, &[b'x'; MOST]);
    }

    #[tokio::test]
    async fn a_flight_that_the_client_does_not_take_is_not_over() {
        let (mut stream, mut client) = pair().await;
        stream.hold_after(1);
        let mut sent = 0;
        let long = [b'x'; 64 << 10];
        std::future::poll_fn(|context| {
            loop {
                match Pin::new(&mut stream).poll_write(context, &long) {
                    Poll::Ready(written) => sent += written.unwrap(),
                    Poll::Pending => return Pin::new(&mut stream).poll_flush(context),
                }
            }
        })
        .await
        .unwrap();
        assert_eq!(stream.mode, Mode::HoldAfter(1));
        let reader = std::thread::spawn(move || {
            let mut all = vec![0; sent + b"rest".len()];
            client.read_exact(&mut all).unwrap();
            assert!(all.ends_with(b"xrest"));
            client
        });
        give(&mut stream, b"rest").await;
        assert_eq!(stream.mode, Mode::HoldAfter(0));
        reader.join().unwrap();
    }
}
