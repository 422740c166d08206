//! A connection between agent and terminator: frames with file descriptors, for both sides (feature
//! `link`).

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::{
    FromAgent, FromTerminator, MAX_FRAME_FROM_AGENT, MAX_FRAME_FROM_TERMINATOR, MAX_LISTENERS,
};

/// Bytes in front of a frame that tell its length.
const LENGTH: usize = 4;

/// Bytes that one read takes at most.
const READ: usize = 64 << 10;

/// How long the other side may take none of a frame's bytes.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// Room for the most file descriptors of one frame.
const FD_SPACE: usize = rustix::cmsg_space!(ScmRights(MAX_LISTENERS + 1));

/// Why the connection is over.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The other side closed it.
    #[error("the other side closed the connection")]
    Closed,
    /// It failed.
    #[error("the connection failed")]
    Io(#[from] io::Error),
    /// What came is no frame of this protocol.
    #[error("a frame came that cannot be read")]
    Garbled(#[from] serde_json::Error),
    /// A frame is too long.
    #[error("a frame of {0} bytes is too long")]
    TooLong(usize),
    /// More descriptors than a frame may have.
    #[error("more than {MAX_LISTENERS} descriptors came that no frame speaks of")]
    TooManyDescriptors,
}

/// What one side says.
pub trait Message: Serialize + DeserializeOwned {
    /// Longest frame in bytes, without its length.
    const MAX_FRAME: usize;
}

impl Message for FromAgent {
    const MAX_FRAME: usize = MAX_FRAME_FROM_AGENT;
}

impl Message for FromTerminator {
    const MAX_FRAME: usize = MAX_FRAME_FROM_TERMINATOR;
}

/// A message as it travels, for several connections; it may hold secrets.
#[derive(Debug)]
pub struct Frame<Says> {
    bytes: Zeroizing<Vec<u8>>,
    message: PhantomData<fn(&Says)>,
}

impl<Says: Message> Frame<Says> {
    /// Writes a message down.
    pub fn new(message: &Says) -> Result<Self, LinkError> {
        let mut bytes = Zeroizing::new(vec![0; LENGTH]);
        serde_json::to_writer(&mut *bytes, message)?;
        let length = bytes.len() - LENGTH;
        match u32::try_from(length) {
            Ok(told) if length <= Says::MAX_FRAME => {
                bytes[..LENGTH].copy_from_slice(&told.to_be_bytes());
            }
            _ => return Err(LinkError::TooLong(length)),
        }
        Ok(Self {
            bytes,
            message: PhantomData,
        })
    }

    /// Its bytes, its length included.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }
}

/// One side of a connection, with what it says and what it hears.
#[derive(Debug)]
pub struct Link<Says, Hears> {
    stream: UnixStream,
    /// What one read is made into.
    scratch: Box<[u8]>,
    /// Read and not yet taken.
    read: Vec<u8>,
    fds: VecDeque<OwnedFd>,
    messages: PhantomData<fn(&Says) -> Hears>,
}

impl<Says, Hears> From<UnixStream> for Link<Says, Hears> {
    fn from(stream: UnixStream) -> Self {
        Self {
            stream,
            scratch: vec![0; READ].into(),
            read: Vec::new(),
            fds: VecDeque::new(),
            messages: PhantomData,
        }
    }
}

impl<Says: Message, Hears: Message> Link<Says, Hears> {
    /// Connects.
    pub async fn open(socket: &Path) -> io::Result<Self> {
        UnixStream::connect(socket).await.map(Self::from)
    }

    /// Sends one message, with file descriptors.
    pub async fn send(&self, message: &Says, fds: &[BorrowedFd<'_>]) -> Result<(), LinkError> {
        self.send_frame(&Frame::new(message)?, fds).await
    }

    /// Sends one frame. A connection whose frame was not sent to its end cannot be used any more.
    pub async fn send_frame(
        &self,
        frame: &Frame<Says>,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(), LinkError> {
        let frame = &frame.bytes[..];
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
            let (stream, scratch, fds) = (&self.stream, &mut self.scratch, &mut self.fds);
            let receive = || receive_some(stream.as_fd(), scratch, fds);
            let count = stream.async_io(Interest::READABLE, receive).await?;
            if count == 0 {
                return Err(LinkError::Closed);
            }
            self.read.extend_from_slice(&self.scratch[..count]);
            if self.fds.len() > MAX_LISTENERS {
                return Err(LinkError::TooManyDescriptors);
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
        if length > Hears::MAX_FRAME {
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
    into: &mut [u8],
    fds: &mut VecDeque<OwnedFd>,
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); FD_SPACE];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::net::recvmsg(
        socket,
        &mut [IoSliceMut::new(into)],
        &mut ancillary,
        RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT,
    )?;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(came) = message {
            fds.extend(came);
        }
    }
    Ok(received.bytes)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use tokio::io::AsyncWriteExt;

    use super::*;

    type Terminator = Link<FromTerminator, FromAgent>;
    type Agent = Link<FromAgent, FromTerminator>;

    fn drain(deadline_ms: u64) -> Vec<u8> {
        let body = serde_json::to_vec(&FromAgent::Drain { deadline_ms }).unwrap();
        [&u32::try_from(body.len()).unwrap().to_be_bytes()[..], &body].concat()
    }

    #[tokio::test]
    async fn frames_are_put_together_however_they_come() {
        let bytes: Vec<u8> = (0..50).flat_map(drain).collect();
        for size in [1, 2, 3, 7, 40, 1000, bytes.len()] {
            let (mut writer, reader) = UnixStream::pair().unwrap();
            let mut link = Terminator::from(reader);
            let sent = bytes.clone();
            let sending = tokio::spawn(async move {
                for piece in sent.chunks(size) {
                    writer.write_all(piece).await.unwrap();
                    tokio::task::yield_now().await;
                }
            });
            for expected in 0..50 {
                let message = link.receive().await.unwrap();
                assert!(
                    matches!(message, FromAgent::Drain { deadline_ms } if deadline_ms == expected)
                );
            }
            sending.await.unwrap();
            assert!(matches!(link.receive().await, Err(LinkError::Closed)));
        }
    }

    #[tokio::test]
    async fn what_is_no_frame_ends_the_connection() {
        let cut = drain(1)[..10].to_vec();
        type IsExpected = fn(&LinkError) -> bool;
        let cases: [(&[u8], IsExpected); 4] = [
            (&[0xff; 4], |error| matches!(error, LinkError::TooLong(_))),
            (&[0, 0, 0, 2, b'{', b'}'], |error| {
                matches!(error, LinkError::Garbled(_))
            }),
            (&[0, 0, 0, 0], |error| {
                matches!(error, LinkError::Garbled(_))
            }),
            (&cut, |error| matches!(error, LinkError::Closed)),
        ];
        for (bytes, is_expected) in cases {
            let (mut writer, reader) = UnixStream::pair().unwrap();
            writer.write_all(bytes).await.unwrap();
            drop(writer);
            let error = Terminator::from(reader).receive().await.unwrap_err();
            assert!(is_expected(&error), "{error}");
        }
    }

    #[tokio::test]
    async fn as_many_descriptors_as_the_kernel_takes_ride_with_a_frame() {
        let (one, other) = UnixStream::pair().unwrap();
        let (agent, mut terminator) = (Agent::from(one), Terminator::from(other));
        let file = std::fs::File::open("/dev/null").unwrap();
        for count in [0, 1, MAX_LISTENERS] {
            let fds = vec![file.as_fd(); count];
            agent
                .send(&FromAgent::Drain { deadline_ms: 0 }, &fds)
                .await
                .unwrap();
            terminator.receive().await.unwrap();
            let came = terminator.take_fds();
            assert_eq!(came.len(), count);
            assert!(came.iter().all(|fd| fd.as_raw_fd() != file.as_raw_fd()));
        }
        // Nobody can fill the table of files of the other side.
        for _ in 0..2 {
            let fds = vec![file.as_fd(); MAX_LISTENERS];
            let drain = FromAgent::Drain { deadline_ms: 0 };
            agent.send(&drain, &fds).await.unwrap();
        }
        let mut refused = None;
        for _ in 0..2 {
            refused = terminator.receive().await.err();
        }
        assert!(
            matches!(refused, Some(LinkError::TooManyDescriptors)),
            "{refused:?}"
        );
    }
}
