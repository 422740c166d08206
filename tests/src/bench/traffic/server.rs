//! What runs on the backends. The first byte of a connection says what is wanted.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown as Half, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result};
use nix::sys::socket::{Shutdown, shutdown};

use crate::bench::programs::pin_to;
use crate::netns::NetNs;

/// Where questions are answered: [`ASK`] with the backend's number, then the connection ends.
pub(super) const ANSWER_PORT: u16 = 7000;
/// Where bytes flow: after [`UPLOAD`] to the backend, after [`DOWNLOAD`] from it.
pub(super) const BULK_PORT: u16 = 7001;
pub(super) const ASK: u8 = b'?';
pub(super) const UPLOAD: u8 = b'u';
pub(super) const DOWNLOAD: u8 = b'd';
/// Bytes of one call of `read` or `write`.
pub(super) const CHUNK: usize = 128 << 10;

/// Threads for each CPU that wait for questions: connections in work at the same time.
const ANSWERING: usize = 8;
/// Threads that move bytes, on any CPU.
const MOVING: usize = 2;

/// Servers of one backend. They stop when this is dropped.
pub(super) struct Server {
    listeners: Vec<TcpListener>,
    threads: Vec<JoinHandle<()>>,
}

impl Server {
    /// Listens in the namespace, and answers from all of `cpus`.
    pub(super) fn start(ns: &NetNs, number: u8, cpus: usize) -> Result<Self> {
        let listen = |port| {
            ns.run(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)))
                .with_context(|| format!("{}: listening on {port}", ns.label()))
        };
        let (answers, bulk) = (listen(ANSWER_PORT)?, listen(BULK_PORT)?);
        let mut threads = Vec::new();
        for index in 0..cpus * ANSWERING {
            let listener = answers.try_clone()?;
            threads.push(thread::spawn(move || {
                pin_to(index % cpus).expect("the CPU is there");
                accept(&listener, |stream| answer(stream, number));
            }));
        }
        for _ in 0..MOVING {
            let listener = bulk.try_clone()?;
            threads.push(thread::spawn(move || accept(&listener, move_bytes)));
        }
        Ok(Self {
            listeners: vec![answers, bulk],
            threads,
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        for listener in &self.listeners {
            // A listener that is shut down wakes everybody who accepts, with an error.
            let _ = shutdown(listener.as_raw_fd(), Shutdown::Both);
        }
        for thread in self.threads.drain(..) {
            let ended = thread.join();
            if !thread::panicking() {
                ended.expect("the server's thread ended in order");
            }
        }
    }
}

fn accept(listener: &TcpListener, serve: impl Fn(TcpStream) -> std::io::Result<()>) {
    while let Ok((stream, _)) = listener.accept() {
        // A client that goes away, or a proxy that closes early, shows in the client's figures.
        let _ = serve(stream);
    }
}

fn answer(mut stream: TcpStream, number: u8) -> std::io::Result<()> {
    let mut question = [0];
    stream.read_exact(&mut question)?;
    stream.write_all(&[number])
}

fn move_bytes(mut stream: TcpStream) -> std::io::Result<()> {
    let mut direction = [0];
    stream.read_exact(&mut direction)?;
    let mut chunk = vec![0; CHUNK];
    if direction[0] == DOWNLOAD {
        loop {
            stream.write_all(&chunk)?;
        }
    }
    let mut received = 0_u64;
    loop {
        let read = stream.read(&mut chunk)?;
        if read == 0 {
            break;
        }
        received += read as u64;
    }
    stream.write_all(&received.to_be_bytes())?;
    stream.shutdown(Half::Write)
}
