//! The clients: connections one after the other on every CPU, and streams of bytes.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};

use super::server::{ASK, CHUNK, DOWNLOAD, UPLOAD};
use crate::bench::programs::pin_to;
use crate::netns::NetNs;

/// Longest wait for one step; three retransmissions of a SYN.
const PATIENCE: Duration = Duration::from_secs(4);

/// What a number of connections gave.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// Time from `connect` to the answer, each.
    pub(super) times: Vec<Duration>,
    /// From the first start to the last end.
    pub(super) took: Duration,
    /// Answers by backend's number.
    pub(super) answers: [u32; 8],
    /// Connections that failed.
    pub(super) failed: usize,
}

impl Asked {
    /// Connections a second.
    pub(super) fn rate(&self) -> f64 {
        self.times.len() as f64 / self.took.as_secs_f64()
    }

    /// The time in microseconds that this part of the connections did not exceed.
    pub(super) fn percentile(&mut self, part: f64) -> Result<f64> {
        self.times.sort_unstable();
        let index = ((self.times.len() as f64 * part).ceil() as usize).max(1) - 1;
        let time = self.times.get(index).context("no connection was made")?;
        Ok(time.as_secs_f64() * 1e6)
    }
}

/// Asks `to` for `duration` from `each` threads on each of `cpus`; every thread has one connection
/// at a time and makes the next when the last has ended.
pub(super) fn ask(
    ns: &NetNs,
    to: SocketAddr,
    cpus: usize,
    each: usize,
    duration: Duration,
) -> Result<Asked> {
    let count = cpus * each;
    let barrier = Barrier::new(count);
    let work = |index: usize| -> Result<Asked> {
        let guard = ns.enter();
        let pinned = pin_to(index % cpus);
        // Everybody must come to the barrier, or the others wait for ever.
        barrier.wait();
        let (_guard, ()) = (guard?, pinned?);
        ask_here(to, duration)
    };
    let asked = thread::scope(|scope| {
        let threads: Vec<_> = (0..count)
            .map(|index| scope.spawn(move || work(index)))
            .collect();
        let join = |thread: thread::ScopedJoinHandle<'_, _>| {
            thread
                .join()
                .map_err(|_| anyhow!("a client's thread panicked"))?
        };
        threads
            .into_iter()
            .map(join)
            .collect::<Result<Vec<Asked>>>()
    })?;
    let mut sum = Asked::default();
    for one in asked {
        sum.times.extend(one.times);
        sum.took = sum.took.max(one.took);
        sum.failed += one.failed;
        for (sum, one) in sum.answers.iter_mut().zip(one.answers) {
            *sum += one;
        }
    }
    Ok(sum)
}

/// One after the other, from this thread's namespace.
fn ask_here(to: SocketAddr, duration: Duration) -> Result<Asked> {
    let mut asked = Asked::default();
    let start = Instant::now();
    let mut now = start;
    while now - start < duration {
        let (number, answered) = match ask_once(to) {
            Ok(answer) => answer,
            // A stray failure on a busy machine spoils no figure; many would.
            Err(_) if asked.failed < asked.times.len() / 100 => {
                asked.failed += 1;
                now = Instant::now();
                continue;
            }
            Err(error) => {
                let number = asked.times.len() + asked.failed + 1;
                return Err(error.context(format!("connection {number} to {to}")));
            }
        };
        asked.times.push(answered - now);
        let answers = asked.answers.get_mut(usize::from(number));
        *answers.with_context(|| format!("backend {number} answered"))? += 1;
        now = Instant::now();
    }
    asked.took = now - start;
    Ok(asked)
}

/// The backend closes first, so the state of ended connections stays with it, and the client may
/// use its port again at once.
fn ask_once(to: SocketAddr) -> Result<(u8, Instant)> {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE).context("connecting")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(&[ASK]).context("asking")?;
    let mut answer = [0; 2];
    let read = stream.read(&mut answer).context("waiting for the answer")?;
    let answered = Instant::now();
    ensure!(read == 1, "{read} bytes came instead of 1");
    let rest = stream
        .read(&mut answer[1..])
        .context("waiting for the end")?;
    ensure!(rest == 0, "bytes came after the answer");
    Ok((answer[0], answered))
}

/// Sends for `duration` over one connection; returns gigabits a second that have arrived.
pub(super) fn upload(ns: &NetNs, to: SocketAddr, duration: Duration) -> Result<f64> {
    let mut stream = connect(ns, to)?;
    stream.write_all(&[UPLOAD])?;
    let chunk = vec![0x5a; CHUNK];
    let start = Instant::now();
    while start.elapsed() < duration {
        stream.write_all(&chunk).context("sending")?;
    }
    stream.shutdown(Shutdown::Write)?;
    let mut received = [0; 8];
    stream
        .read_exact(&mut received)
        .context("waiting for the backend's count")?;
    gigabits(u64::from_be_bytes(received), start.elapsed())
}

/// Receives for `duration` over one connection; returns gigabits a second.
pub(super) fn download(ns: &NetNs, to: SocketAddr, duration: Duration) -> Result<f64> {
    let mut stream = connect(ns, to)?;
    stream.write_all(&[DOWNLOAD])?;
    let mut chunk = vec![0; CHUNK];
    let mut received = 0;
    let start = Instant::now();
    while start.elapsed() < duration {
        let read = stream.read(&mut chunk).context("receiving")?;
        ensure!(read > 0, "the stream ended after {received} bytes");
        received += read as u64;
    }
    gigabits(received, start.elapsed())
}

fn connect(ns: &NetNs, to: SocketAddr) -> Result<TcpStream> {
    let stream = ns
        .run(|| TcpStream::connect_timeout(&to, PATIENCE))
        .with_context(|| format!("connecting to {to}"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn gigabits(bytes: u64, took: Duration) -> Result<f64> {
    ensure!(bytes > 0, "no byte arrived");
    Ok(bytes as f64 * 8.0 / took.as_secs_f64() / 1e9)
}
