//! The access log: one line of JSON for each request, or for one of many, written by a thread of
//! its own. A log that cannot keep up loses lines, which are counted, and holds up nobody.

use std::io::Write;
use std::iter;
use std::net::{IpAddr, SocketAddr};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http::{HeaderValue, Method, Version};
use serde::Serialize;

/// Lines that wait to be written.
const CAPACITY: usize = 4096;

/// The access log of all threads. Nothing is logged before [`AccessLog::start`].
#[derive(Debug, Default)]
pub struct AccessLog {
    /// One of so many requests is logged; 0 for none.
    one_of: AtomicU32,
    dropped: AtomicU64,
    items: OnceLock<SyncSender<Item>>,
}

impl AccessLog {
    /// Begins to write lines for one of so many requests.
    ///
    /// # Errors
    ///
    /// The thread that writes could not be started.
    pub fn start(
        self: &Arc<Self>,
        output: Box<dyn Write + Send>,
        one_of: u32,
    ) -> std::io::Result<()> {
        let (sender, items) = sync_channel(CAPACITY);
        let log = Arc::downgrade(self);
        thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || write_lines(&items, output, &log))?;
        // A second start changes how many are logged, not where to.
        let _ = self.items.set(sender);
        self.set_one_of(one_of);
        Ok(())
    }

    /// Logs one of so many requests from now on; 0 for none.
    pub fn set_one_of(&self, one_of: u32) {
        self.one_of.store(one_of, Ordering::Relaxed);
    }

    /// Lines that were lost: the log could not keep up, or could not be written.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Whether the next request is to be logged.
    pub fn wants_next(&self) -> bool {
        match self.one_of.load(Ordering::Relaxed) {
            0 => false,
            1 => true,
            many => fastrand::u32(..many) == 0,
        }
    }

    /// Waits until the lines of requests that have ended are written, but not for longer than
    /// this: what they are written to may take nothing.
    pub fn flush(&self, limit: Duration) {
        let Some(items) = self.items.get() else {
            return;
        };
        let began = Instant::now();
        let (written, wait) = sync_channel(1);
        let mut item = Item::Flush(written);
        while let Err(TrySendError::Full(full)) = items.try_send(item) {
            if began.elapsed() >= limit {
                return;
            }
            item = full;
            thread::sleep(Duration::from_millis(1));
        }
        // In vain, if the time is over.
        let _ = wait.recv_timeout(limit.saturating_sub(began.elapsed()));
    }

    fn send(&self, line: Line) {
        if let Some(items) = self.items.get()
            && items.try_send(Item::Line(Box::new(line))).is_err()
        {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// What the thread that writes gets.
enum Item {
    Line(Box<Line>),
    /// To be answered when everything before it is written.
    Flush(SyncSender<()>),
}

fn write_lines(items: &Receiver<Item>, mut output: Box<dyn Write + Send>, log: &Weak<AccessLog>) {
    let mut text = Vec::new();
    let mut waiting = Vec::new();
    while let Ok(item) = items.recv() {
        let mut count = 0;
        // What has come meanwhile goes with it.
        for item in iter::once(item).chain(items.try_iter().take(CAPACITY)) {
            match item {
                Item::Line(line) => {
                    add(&mut text, &line);
                    count += 1;
                }
                Item::Flush(written) => waiting.push(written),
            }
        }
        let written = output.write_all(&text).and_then(|()| output.flush());
        if written.is_err()
            && let Some(log) = log.upgrade()
        {
            log.dropped.fetch_add(count, Ordering::Relaxed);
        }
        text.clear();
        for written in waiting.drain(..) {
            // Whoever waited may have given up.
            let _ = written.send(());
        }
    }
}

fn add(text: &mut Vec<u8>, line: &Line) {
    // Strings and numbers are always JSON.
    if serde_json::to_writer(&mut *text, line).is_ok() {
        text.push(b'\n');
    }
}

/// A line of the log.
#[derive(Clone, Debug, Serialize)]
struct Line {
    /// Milliseconds since 1970.
    time_ms: u64,
    request_id: String,
    connection: u64,
    /// Who asks: the peer, or whom a trusted proxy tells.
    client: IpAddr,
    /// The other end of the connection, or whom its PROXY header tells.
    peer: SocketAddr,
    dialled: SocketAddr,
    tls: Option<&'static str>,
    protocol: &'static str,
    method: String,
    host: String,
    path: String,
    group: Option<String>,
    instance: Option<String>,
    status: u16,
    /// Why the terminator answered itself.
    answer: Option<&'static str>,
    bytes: u64,
    duration_us: u64,
    /// The answer broke off, or the client went before it.
    broken: bool,
}

/// What will be a line when the request has ended.
#[derive(Debug)]
pub struct Record {
    log: Arc<AccessLog>,
    began: Instant,
    /// The answer broke off.
    pub is_broken: bool,
    line: Line,
}

/// What is known of a request when it begins.
#[derive(Debug)]
pub struct Beginning<'a> {
    /// When it began.
    pub began: Instant,
    /// Of the connection.
    pub meta: &'a crate::conn::ConnMeta,
    /// Who asks, through whatever proxies.
    pub client: IpAddr,
    /// Of the request.
    pub version: Version,
    /// Of the request.
    pub method: &'a Method,
    /// Path and query.
    pub path: &'a str,
}

impl Record {
    /// Of a request that begins.
    pub fn new(log: &Arc<AccessLog>, beginning: &Beginning<'_>) -> Box<Self> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let meta = beginning.meta;
        Box::new(Self {
            log: Arc::clone(log),
            began: beginning.began,
            is_broken: false,
            line: Line {
                time_ms: now.map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(0)),
                request_id: String::new(),
                connection: meta.id,
                client: beginning.client.to_canonical(),
                peer: meta.peer,
                dialled: meta.dialled,
                tls: meta.tls.as_ref().map(|tls| tls.version),
                protocol: match beginning.version {
                    Version::HTTP_10 => "HTTP/1.0",
                    Version::HTTP_2 => "HTTP/2",
                    _ => "HTTP/1.1",
                },
                method: beginning.method.as_str().to_owned(),
                host: String::new(),
                path: beginning.path.to_owned(),
                group: None,
                instance: None,
                status: 0,
                answer: None,
                bytes: 0,
                duration_us: 0,
                // Unless it is finished.
                broken: true,
            },
        })
    }

    /// It is for this host of this group.
    pub fn admit(&mut self, host: &HeaderValue, group: &str, request_id: &HeaderValue) {
        let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        self.line.host = text(host);
        self.line.group = Some(group.to_owned());
        self.line.request_id = text(request_id);
    }

    /// This instance answers it.
    pub fn answered_by(&mut self, instance: &str, status: u16) {
        self.line.instance = Some(instance.to_owned());
        self.line.status = status;
    }

    /// The terminator answers it.
    pub fn answered(&mut self, status: u16, answer: &'static str) {
        self.line.status = status;
        self.line.answer = Some(answer);
    }

    /// It has ended, with so many bytes of an answer's body.
    pub fn finish(mut self: Box<Self>, bytes: u64) {
        self.line.bytes = bytes;
        self.line.broken = self.is_broken;
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let elapsed = self.began.elapsed().as_micros();
        self.line.duration_us = u64::try_from(elapsed).unwrap_or(u64::MAX);
        self.log.send(self.line.clone());
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::mpsc;

    use super::*;
    use crate::conn::ConnMeta;

    /// Hands what is written to the test, and waits for it.
    struct Output(SyncSender<Vec<u8>>);

    impl Write for Output {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0
                .send(bytes.to_vec())
                .map_err(|_| io::ErrorKind::BrokenPipe)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn record(log: &Arc<AccessLog>, path: &str) -> Box<Record> {
        let address = "192.0.2.1:1".parse().expect("an address");
        let meta = ConnMeta {
            id: 7,
            peer: address,
            dialled: address,
            tls: None,
        };
        let beginning = Beginning {
            began: Instant::now(),
            meta: &meta,
            client: meta.peer.ip(),
            version: Version::HTTP_2,
            method: &Method::GET,
            path,
        };
        Record::new(log, &beginning)
    }

    #[test]
    fn lines_are_json_and_those_too_many_are_counted() {
        let log = Arc::<AccessLog>::default();
        assert!(!log.wants_next());
        // Nobody takes the first write before the test does.
        let (sender, written) = mpsc::sync_channel(0);
        log.start(Box::new(Output(sender)), 1).expect("a thread");
        assert!(log.wants_next());
        let mut first = record(&log, "/\"a\"\n?b");
        first.answered_by("one", 200);
        first.finish(5);
        let line = written.recv().expect("a line");
        let line: serde_json::Value = serde_json::from_slice(&line).expect("JSON");
        assert_eq!(line["path"], "/\"a\"\n?b");
        assert_eq!(line["instance"], "one");
        assert_eq!(line["bytes"], 5);
        let many = 3 * CAPACITY as u64;
        for _ in 0..many {
            record(&log, "/").finish(0);
        }
        let lost = log.dropped();
        assert!(lost > 0 && lost < many, "{lost}");
        let mut lines = 0;
        while lines < many - lost {
            let text = written.recv().expect("lines");
            lines += text.iter().filter(|byte| **byte == b'\n').count() as u64;
        }
        assert_eq!(lines, many - lost);
        log.set_one_of(0);
        assert!(!log.wants_next());
    }

    #[test]
    fn a_flush_waits_for_what_was_logged_and_not_for_ever() {
        let log = Arc::<AccessLog>::default();
        log.flush(Duration::MAX);
        let (sender, written) = mpsc::sync_channel(CAPACITY);
        log.start(Box::new(Output(sender)), 1).expect("a thread");
        for _ in 0..100 {
            record(&log, "/").finish(0);
        }
        log.flush(Duration::MAX);
        let text: Vec<_> = written.try_iter().flatten().collect();
        assert_eq!(text.iter().filter(|byte| **byte == b'\n').count(), 100);

        let stuck = Arc::<AccessLog>::default();
        let (sender, _written) = mpsc::sync_channel(0);
        stuck.start(Box::new(Output(sender)), 1).expect("a thread");
        record(&stuck, "/").finish(0);
        stuck.flush(Duration::from_millis(20));
        for _ in 0..2 * CAPACITY {
            record(&stuck, "/").finish(0);
        }
        stuck.flush(Duration::from_millis(20));
    }
}
