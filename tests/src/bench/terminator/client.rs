//! A client of handshakes: no kept tool makes them one after the other, full or resumed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, HandshakeKind, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::origin::{END, SMALL};
use crate::netns::NetNs;

/// Handshakes at one time.
const AT_ONCE: usize = 16;
/// Longest wait for one.
const PATIENCE: Duration = Duration::from_secs(10);

/// Whose handshakes are made, and how.
#[derive(Clone)]
pub(super) struct Dial {
    pub(super) to: SocketAddr,
    pub(super) name: &'static str,
    pub(super) roots: Arc<RootCertStore>,
    pub(super) is_resuming: bool,
}

impl Dial {
    fn connector(&self) -> Result<TlsConnector> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(Arc::clone(&self.roots))
            .with_no_client_auth();
        config.resumption = match self.is_resuming {
            true => Resumption::in_memory_sessions(1),
            false => Resumption::disabled(),
        };
        Ok(Arc::new(config).into())
    }

    async fn connect(&self, connector: &TlsConnector) -> Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(self.to).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from(self.name)?;
        let stream = timeout(PATIENCE, connector.connect(name, stream)).await;
        Ok(stream.context("no handshake in time")??)
    }
}

/// Makes handshakes one after the other until it is stopped.
pub(super) struct Handshakes {
    done: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<()>>,
}

impl Handshakes {
    /// Begins, on a thread of its own in the namespace, on the CPU of this one.
    pub(super) fn start(ns: &NetNs, dial: &Dial) -> Self {
        let (done, stop) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let (ns, dial) = (ns.clone(), dial.clone());
        let (counted, stopped) = (Arc::clone(&done), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            let _guard = ns.enter()?;
            runtime()?.block_on(async {
                let mut tasks = JoinSet::new();
                for _ in 0..AT_ONCE {
                    let (done, stop) = (Arc::clone(&counted), Arc::clone(&stopped));
                    tasks.spawn(shake_hands(dial.clone(), done, stop));
                }
                while let Some(ended) = tasks.join_next().await {
                    ended.context("a client's task")??;
                }
                Ok(())
            })
        });
        Self { done, stop, thread }
    }

    /// Handshakes so far.
    pub(super) fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Ends.
    ///
    /// # Errors
    ///
    /// A handshake failed, or was full where it should have resumed a session.
    pub(super) fn finish(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.join();
        ended.map_err(|_| anyhow!("the client's thread panicked"))?
    }
}

async fn shake_hands(dial: Dial, done: Arc<AtomicU64>, stop: Arc<AtomicBool>) -> Result<()> {
    // Each has one ticket at a time, and nobody else takes it.
    let connector = dial.connector()?;
    let mut is_first = true;
    let mut rest = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let mut stream = dial.connect(&connector).await?;
        let is_resumed = stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
        ensure!(
            is_first || is_resumed == dial.is_resuming,
            "{}: a handshake was {}",
            dial.to,
            if is_resumed { "resumed" } else { "full" }
        );
        is_first = false;
        // The proxy has seen the whole handshake when it answers the end with its own; the ticket
        // has come by then.
        stream.shutdown().await?;
        rest.clear();
        // Some proxies reset what they have answered.
        let _ = timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
        done.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// Connections that have had one answer each and wait for the next request.
pub(super) struct Idle {
    /// Drives what the connections were registered with.
    _runtime: Runtime,
    _streams: Vec<TlsStream<TcpStream>>,
}

impl Idle {
    /// Opens so many, from this thread's namespace.
    pub(super) fn open(dial: &Dial, count: usize) -> Result<Self> {
        let runtime = runtime()?;
        let streams = runtime.block_on(async {
            let mut tasks = JoinSet::new();
            for part in 0..AT_ONCE {
                let own = (part..count).step_by(AT_ONCE).len();
                tasks.spawn(ask_each(dial.clone(), own));
            }
            let mut streams = Vec::new();
            while let Some(opened) = tasks.join_next().await {
                streams.extend(opened.context("a client's task")??);
            }
            anyhow::Ok(streams)
        })?;
        Ok(Self {
            _runtime: runtime,
            _streams: streams,
        })
    }
}

async fn ask_each(dial: Dial, count: usize) -> Result<Vec<TlsStream<TcpStream>>> {
    let connector = dial.connector()?;
    let request = format!("GET {SMALL} HTTP/1.1\r\nHost: {}\r\n\r\n", dial.name);
    let mut streams = Vec::with_capacity(count);
    for _ in 0..count {
        let mut stream = dial.connect(&connector).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        while answer.last() != Some(&END) {
            ensure!(stream.read_buf(&mut answer).await? > 0, "no answer");
        }
        ensure!(answer.starts_with(b"HTTP/1.1 200 "), "another answer");
        streams.push(stream);
    }
    Ok(streams)
}

fn runtime() -> Result<Runtime> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}
