//! What the proxies pass requests on to: two addresses, small answers and large ones, and a count of
//! them, by which the proxies' figures are taken whatever the client's program says.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;

use crate::netns::NetNs;

/// Addresses and port.
pub(super) const ADDRESSES: [[u8; 4]; 2] = [[127, 0, 0, 2], [127, 0, 0, 3]];
pub(super) const PORT: u16 = 9000;
/// Paths of small and large answers.
pub(super) const SMALL: &str = "/small";
pub(super) const LARGE: &str = "/large";
/// Lengths of their bodies.
const SMALL_BODY: usize = 128;
const LARGE_BODY: usize = 64 << 10;
/// The last byte of every body.
pub(super) const END: u8 = b'.';

/// Longest heads of requests that are waited for.
const MOST_HEAD: usize = 64 << 10;

/// Serves for as long as the process lives.
pub(super) struct Origin {
    answered: Arc<AtomicU64>,
}

struct Answers {
    small: Vec<u8>,
    large: Vec<u8>,
    count: Arc<AtomicU64>,
}

impl Origin {
    /// Listens in the namespace, and serves on a thread of its own, on the CPU of this one.
    pub(super) fn start(ns: &NetNs) -> Result<Self> {
        let listeners = ns.run(|| -> Result<Vec<_>> {
            let listen = |address| {
                let address = SocketAddr::from((address, PORT));
                let listener = std::net::TcpListener::bind(address)
                    .with_context(|| format!("listening on {address}"))?;
                listener.set_nonblocking(true)?;
                Ok(listener)
            };
            ADDRESSES.into_iter().map(listen).collect()
        })?;
        let answered = Arc::<AtomicU64>::default();
        let answers = Arc::new(Answers {
            small: answer(SMALL_BODY),
            large: answer(LARGE_BODY),
            count: Arc::clone(&answered),
        });
        let runtime = Builder::new_current_thread().enable_io().build()?;
        std::thread::Builder::new()
            .name("origin".to_owned())
            .spawn(move || runtime.block_on(serve(listeners, answers)))?;
        Ok(Self { answered })
    }

    /// Requests that were answered so far.
    pub(super) fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }
}

fn answer(length: usize) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 200 OK\r\nServer: origin\r\nDate: Sat, 21 Nov 2026 20:00:00 GMT\r\n\
         Content-Type: text/plain\r\nContent-Length: {length}\r\n\r\n"
    );
    let mut answer = head.into_bytes();
    answer.resize(answer.len() + length - 1, b'x');
    answer.push(END);
    answer
}

async fn serve(listeners: Vec<std::net::TcpListener>, answers: Arc<Answers>) {
    let accepting = listeners.into_iter().map(|listener| {
        let answers = Arc::clone(&answers);
        tokio::spawn(async move {
            let listener = TcpListener::from_std(listener).expect("a listening socket");
            while let Ok((stream, _)) = listener.accept().await {
                let answers = Arc::clone(&answers);
                // A proxy that closes early shows in the client's figures.
                tokio::spawn(async move {
                    let _ = converse(stream, &answers).await;
                });
            }
        })
    });
    for task in accepting.collect::<Vec<_>>() {
        let _ = task.await;
    }
}

async fn converse(mut stream: TcpStream, answers: &Answers) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut heads = Vec::with_capacity(4096);
    while heads.len() < MOST_HEAD && stream.read_buf(&mut heads).await? > 0 {
        while let Some(end) = heads.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            let is_large = heads[4..].starts_with(LARGE.as_bytes());
            heads.drain(..end + 4);
            answers.count.fetch_add(1, Ordering::Relaxed);
            let answer = if is_large {
                &answers.large
            } else {
                &answers.small
            };
            stream.write_all(answer).await?;
        }
    }
    Ok(())
}
