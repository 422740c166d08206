//! A connection of a terminator: frames with file descriptors.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use lbagent_api::terminator::{
    FromAgent, FromTerminator, MAX_FRAME_FROM_TERMINATOR, MAX_LISTENERS,
};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::time::timeout;
use zeroize::Zeroizing;

/// Bytes in front of a frame that tell its length.
const LENGTH: usize = 4;
/// Bytes that one read takes at most.
const READ: usize = 64 << 10;
/// How long the terminator may take none of a frame's bytes.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// Room for the most file descriptors of one frame.
const FD_SPACE: usize = rustix::cmsg_space!(ScmRights(MAX_LISTENERS + 1));

/// Why the connection is over.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    /// The terminator closed it, or died.
    #[error("the terminator closed the connection")]
    Closed,
    /// It failed.
    #[error("the connection failed")]
    Io(#[from] io::Error),
    /// What came is no frame of this protocol.
    #[error("the terminator sent a frame that cannot be read")]
    Garbled(#[from] serde_json::Error),
    /// A frame is too long.
    #[error("the terminator sent a frame of {0} bytes, which is too long")]
    TooLong(usize),
    /// More descriptors than a frame may have.
    #[error("the terminator sent more than {MAX_LISTENERS} descriptors that no frame speaks of")]
    TooManyDescriptors,
}

/// Bytes of a frame, which may hold secrets.
pub(super) type Frame = Zeroizing<Vec<u8>>;

/// A message as it travels.
pub(super) fn frame(message: &FromAgent) -> serde_json::Result<Frame> {
    let mut frame = Zeroizing::new(vec![0; LENGTH]);
    serde_json::to_writer(&mut *frame, message)?;
    let length = u32::try_from(frame.len() - LENGTH)
        .map_err(|_| serde::ser::Error::custom("longer than a frame can be"))?;
    frame[..LENGTH].copy_from_slice(&length.to_be_bytes());
    Ok(frame)
}

/// A connection of a terminator.
#[derive(Debug)]
pub(super) struct Link {
    stream: UnixStream,
    /// Read and not yet taken.
    read: Vec<u8>,
    fds: VecDeque<OwnedFd>,
}

impl Link {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            read: Vec::new(),
            fds: VecDeque::new(),
        }
    }

    /// Sends one frame. A connection whose frame was not sent to its end cannot be used any more.
    pub(super) async fn send(&self, frame: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), LinkError> {
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
    pub(super) async fn receive(&mut self) -> Result<FromTerminator, LinkError> {
        loop {
            if let Some(message) = self.take_frame()? {
                return Ok(message);
            }
            let (stream, read, fds) = (&self.stream, &mut self.read, &mut self.fds);
            let receive = || receive_some(stream.as_fd(), read, fds);
            if stream.async_io(Interest::READABLE, receive).await? == 0 {
                return Err(LinkError::Closed);
            }
            if self.fds.len() > MAX_LISTENERS {
                return Err(LinkError::TooManyDescriptors);
            }
        }
    }

    /// The file descriptors that came with the frame received last.
    pub(super) fn take_fds(&mut self) -> Vec<OwnedFd> {
        self.fds.drain(..).collect()
    }

    fn take_frame(&mut self) -> Result<Option<FromTerminator>, LinkError> {
        let Some((length, rest)) = self.read.split_first_chunk::<LENGTH>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*length) as usize;
        if length > MAX_FRAME_FROM_TERMINATOR {
            return Err(LinkError::TooLong(length));
        }
        let Some(body) = rest.get(..length) else {
            return Ok(None);
        };
        let message = serde_json::from_slice(body)?;
        self.read.drain(..LENGTH + length);
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
    let mut bytes = vec![0; READ];
    let mut space = [MaybeUninit::uninit(); FD_SPACE];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::net::recvmsg(
        socket,
        &mut [IoSliceMut::new(&mut bytes)],
        &mut ancillary,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            fds.extend(received);
        }
    }
    read.extend_from_slice(&bytes[..received.bytes]);
    Ok(received.bytes)
}
