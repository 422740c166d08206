//! A connection between agent and terminator: frames with file descriptors.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use lbagent_api::terminator::{MAX_FRAME_FROM_AGENT, MAX_LISTENERS};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::time::timeout;

/// Bytes in front of a frame that tell its length.
const LENGTH: usize = 4;

/// Bytes that one read takes at most.
const READ: usize = 256 << 10;

/// How long the other side may take none of a frame's bytes.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// Room for the most file descriptors of one frame.
const FD_SPACE: usize = rustix::cmsg_space!(ScmRights(MAX_LISTENERS + 1));

/// Why the connection is over.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The other side closed it.
    #[error("the connection to the agent was closed")]
    Closed,
    /// It failed.
    #[error("the connection to the agent failed")]
    Io(#[from] io::Error),
    /// What came is no frame of this protocol.
    #[error("a frame came that cannot be read")]
    Garbled(#[from] serde_json::Error),
    /// A frame is too long.
    #[error("a frame of {0} bytes is too long")]
    TooLong(usize),
}

/// One side of a connection, with what it says and what it hears.
#[derive(Debug)]
pub struct Link<Says, Hears> {
    stream: UnixStream,
    /// Read and not yet taken.
    read: Vec<u8>,
    fds: VecDeque<OwnedFd>,
    messages: PhantomData<fn(&Says) -> Hears>,
}

impl<Says, Hears> From<UnixStream> for Link<Says, Hears> {
    fn from(stream: UnixStream) -> Self {
        Self {
            stream,
            read: Vec::new(),
            fds: VecDeque::new(),
            messages: PhantomData,
        }
    }
}

impl<Says: Serialize, Hears: DeserializeOwned> Link<Says, Hears> {
    /// Connects.
    pub async fn open(socket: &Path) -> io::Result<Self> {
        UnixStream::connect(socket).await.map(Self::from)
    }

    /// Sends one frame. A connection whose frame was not sent to its end cannot be used any more.
    pub async fn send(&self, message: &Says, fds: &[BorrowedFd<'_>]) -> Result<(), LinkError> {
        let body = serde_json::to_vec(message)?;
        let length = u32::try_from(body.len()).map_err(|_| LinkError::TooLong(body.len()))?;
        let frame = [&length.to_be_bytes()[..], &body].concat();
        let mut sent = 0;
        while sent < frame.len() {
            // They ride with the first byte.
            let riding = if sent == 0 { fds } else { &[] };
            let write = || send_some(self.stream.as_fd(), &frame[sent..], riding);
            let written = self.stream.async_io(Interest::WRITABLE, write);
            sent += timeout(WRITE_TIMEOUT, written)
                .await
                .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
        }
        Ok(())
    }

    /// The next frame. Nothing is lost when the future is dropped before it is ready.
    pub async fn receive(&mut self) -> Result<Hears, LinkError> {
        loop {
            if let Some(message) = self.take_frame()? {
                return Ok(message);
            }
            let (stream, read, fds) = (&self.stream, &mut self.read, &mut self.fds);
            let receive = || receive_some(stream.as_fd(), read, fds);
            if stream.async_io(Interest::READABLE, receive).await? == 0 {
                return Err(LinkError::Closed);
            }
        }
    }

    /// The file descriptors that came and were not taken yet: those of the frame received last, if
    /// each frame's are taken when it is.
    pub fn take_fds(&mut self) -> Vec<OwnedFd> {
        self.fds.drain(..).collect()
    }

    fn take_frame(&mut self) -> Result<Option<Hears>, LinkError> {
        let Some((length, rest)) = self.read.split_first_chunk::<LENGTH>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*length) as usize;
        if length > MAX_FRAME_FROM_AGENT {
            return Err(LinkError::TooLong(length));
        }
        let Some(body) = rest.get(..length) else {
            return Ok(None);
        };
        let message = serde_json::from_slice(body)?;
        self.read.drain(..LENGTH + length);
        // A snapshot can be large, and the next one may be long in coming.
        self.read.shrink_to(READ);
        Ok(Some(message))
    }
}

fn send_some(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); FD_SPACE];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let bytes = [IoSlice::new(bytes)];
    let sent = rustix::net::sendmsg(socket, &bytes, &mut ancillary, SendFlags::NOSIGNAL);
    sent.map_err(Into::into)
}

fn receive_some(
    socket: BorrowedFd<'_>,
    read: &mut Vec<u8>,
    fds: &mut VecDeque<OwnedFd>,
) -> io::Result<usize> {
    let before = read.len();
    read.resize(before + READ, 0);
    let mut space = [MaybeUninit::uninit(); FD_SPACE];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut bytes = [IoSliceMut::new(&mut read[before..])];
    let received = rustix::net::recvmsg(
        socket,
        &mut bytes,
        &mut ancillary,
        RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT,
    );
    let count = received.as_ref().map_or(0, |received| received.bytes);
    read.truncate(before + count);
    received?;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(came) = message {
            fds.extend(came);
        }
    }
    Ok(count)
}
