//! Long transfers that are looked at while they run.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};

use crate::client::Connection;
use crate::netns::NetNs;
use crate::pattern::{CHUNK, Pattern};
use crate::poll::{keep_pace, poll_until};

/// Length of the transfers that something happens in the middle of.
pub const LONG: u64 = 200_000_000;

/// Which way the bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the backend to the client.
    Download,
    /// From the client to the backend.
    Upload,
}

/// A transfer that runs on a thread of its own.
#[derive(Debug)]
pub struct Transfer {
    /// The backend at the other end.
    pub backend: String,
    moved: Arc<AtomicU64>,
    length: u64,
    /// Keeps the end back until it is dropped.
    hold: mpsc::Sender<()>,
    thread: JoinHandle<Result<Duration>>,
}

impl Transfer {
    /// Starts it from a namespace. With `pace`, it takes at least that long, evenly spread, and its last
    /// tenth waits for [`Transfer::finish`]: what is done in the middle is never done late.
    pub fn start(
        ns: &NetNs,
        to: SocketAddr,
        direction: Direction,
        length: u64,
        pace: Duration,
    ) -> Result<Self> {
        let connection = Connection::open(ns, to)?;
        let backend = connection.greeting.name.clone();
        let moved = Arc::new(AtomicU64::new(0));
        let (hold, held) = mpsc::channel();
        let job = Job {
            connection,
            length,
            pace,
            held: (!pace.is_zero()).then_some(held),
            moved: Arc::clone(&moved),
            start: Instant::now(),
        };
        let thread = thread::Builder::new()
            .name(format!("transfer {backend}"))
            .spawn(move || match direction {
                Direction::Download => job.download(),
                Direction::Upload => job.upload(),
            })?;
        Ok(Self {
            backend,
            moved,
            length,
            hold,
            thread,
        })
    }

    /// The part that has arrived, or been sent, from 0 to 1.
    pub fn progress(&self) -> f64 {
        self.moved.load(Ordering::Relaxed) as f64 / self.length as f64
    }

    /// Waits until this part of the transfer is done.
    pub fn wait_for(&self, part: f64) -> Result<()> {
        let what = format!(
            "{:.0} % of the transfer from {}",
            part * 100.0,
            self.backend
        );
        poll_until(&what, Duration::from_secs(60), || {
            self.progress() >= part || self.thread.is_finished()
        })?;
        ensure!(
            !self.thread.is_finished() || self.progress() >= part,
            "{what}: it ended early"
        );
        Ok(())
    }

    /// Fails unless the transfer is still going on: what was done in its middle was not done late.
    pub fn ensure_running(&self) -> Result<()> {
        let percent = self.progress() * 100.0;
        ensure!(
            !self.thread.is_finished(),
            "the transfer ended too early, at {percent:.0} %"
        );
        Ok(())
    }

    /// Waits for the end, checks every byte, and returns how long it took.
    pub fn finish(self) -> Result<Duration> {
        let backend = self.backend;
        drop(self.hold);
        let ended = self
            .thread
            .join()
            .map_err(|_| anyhow!("the transfer thread panicked"))?;
        let moved = self.moved.load(Ordering::Relaxed);
        let length = self.length;
        let took = ended.with_context(|| format!("{backend}: {moved} of {length} bytes came"))?;
        ensure!(moved == length, "{backend}: {moved} of {length} bytes came");
        Ok(took)
    }
}

struct Job {
    connection: Connection,
    length: u64,
    pace: Duration,
    /// Hears when the end may come; taken once it was waited for.
    held: Option<mpsc::Receiver<()>>,
    moved: Arc<AtomicU64>,
    start: Instant,
}

impl Job {
    fn download(mut self) -> Result<Duration> {
        self.connection.command(&format!("send {}", self.length))?;
        let mut pattern = Pattern::new(self.length);
        let mut chunk = vec![0; CHUNK];
        while let expected @ 1.. = pattern.next_len() {
            self.connection
                .stream()
                .read_exact(&mut chunk[..expected])?;
            pattern.check(&chunk[..expected])?;
            self.advance(expected);
        }
        ensure!(
            self.connection.stream().read(&mut chunk)? == 0,
            "bytes after the end"
        );
        Ok(self.start.elapsed())
    }

    fn upload(mut self) -> Result<Duration> {
        self.connection
            .command(&format!("receive {}", self.length))?;
        let mut pattern = Pattern::new(self.length);
        let mut chunk = vec![0; CHUNK];
        while let filled @ 1.. = pattern.fill(&mut chunk) {
            self.connection
                .stream()
                .get_mut()
                .write_all(&chunk[..filled])?;
            self.advance(filled);
        }
        let verdict = self.connection.read_line()?;
        ensure!(verdict == "intact\n", "the backend says: {verdict}");
        Ok(self.start.elapsed())
    }

    /// Counts a chunk and keeps the pace.
    fn advance(&mut self, bytes: usize) {
        let moved = self.moved.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64;
        let due = self.pace.mul_f64(moved as f64 / self.length as f64);
        keep_pace(self.start, due);
        if moved > self.length / 10 * 9
            && let Some(held) = self.held.take()
        {
            // Nothing is ever sent: the other end is dropped.
            let _ = held.recv();
        }
    }
}
