//! Frames between an agent and a terminator, read and written for either side.

use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use anyhow::{Context, Result, ensure};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

const FD_SPACE: usize = rustix::cmsg_space!(ScmRights(16));

/// Sends a message, and up to 16 file descriptors with it.
pub fn send<M: Serialize>(stream: &UnixStream, message: &M, fds: &[BorrowedFd<'_>]) -> Result<()> {
    let body = serde_json::to_vec(message)?;
    let length = u32::try_from(body.len())?;
    let frame = [&length.to_be_bytes()[..], &body].concat();
    let mut space = [MaybeUninit::uninit(); FD_SPACE];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ensure!(fds.is_empty() || ancillary.push(SendAncillaryMessage::ScmRights(fds)));
    let bytes = [IoSlice::new(&frame)];
    let sent = rustix::net::sendmsg(stream, &bytes, &mut ancillary, SendFlags::NOSIGNAL)?;
    let mut stream = stream;
    Ok(stream.write_all(&frame[sent..])?)
}

/// Waits for a message and the file descriptors that come with it.
pub fn receive<M: DeserializeOwned>(stream: &mut UnixStream) -> Result<(M, Vec<OwnedFd>)> {
    let mut length = [0; 4];
    let mut fds = Vec::new();
    let mut space = [MaybeUninit::uninit(); FD_SPACE];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::net::recvmsg(
        &*stream,
        &mut [IoSliceMut::new(&mut length)],
        &mut ancillary,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    ensure!(received.bytes > 0, "the other side closed the connection");
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            fds.extend(received);
        }
    }
    stream.read_exact(&mut length[received.bytes..])?;
    let mut body = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut body).context("half a frame")?;
    Ok((serde_json::from_slice(&body)?, fds))
}
