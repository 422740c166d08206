//! A thread with a runtime of its own that accepts connections and sends each on its way.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use lbagent_api::terminator::ServiceKind;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{sleep, timeout};

use crate::conn::ConnMeta;
use crate::http::{Engine, serve_http};
use crate::limits::{Permit, Refusal};
use crate::metrics::{Counter, Counters};
use crate::proxies;
use crate::route::Routes;
use crate::serving::Shared;
use crate::tls::{self, HandshakeError};

/// How long nothing is accepted after accepting failed: file descriptors have to come back.
const AFTER_FAILURE: Duration = Duration::from_millis(50);

/// What the connections of one worker share. It never leaves its thread.
pub struct Worker {
    /// Number of the worker, from 0.
    pub index: usize,
    /// What all threads share.
    pub shared: Arc<Shared>,
    /// What happened here.
    pub counters: Arc<Counters>,
    /// Whether connections are to be ended in good order.
    pub draining: watch::Receiver<bool>,
    /// What requests of this thread share, as the pool of upstream connections.
    pub http: Engine,
    open: Cell<usize>,
    one_ended: Notify,
}

/// What a worker is started with.
pub struct Start {
    /// Number of the worker, from 0.
    pub index: usize,
    /// What it accepts on.
    pub listeners: Vec<std::net::TcpListener>,
    /// What all threads share.
    pub shared: Arc<Shared>,
    /// Whether connections are to be ended in good order.
    pub draining: watch::Receiver<bool>,
    /// Goes with the thread.
    pub alive: Alive,
}

/// Counts a thread until it ends, however it does.
pub struct Alive(watch::Sender<usize>);

impl Alive {
    /// One more.
    pub fn new(alive: &watch::Sender<usize>) -> Self {
        alive.send_modify(|alive| *alive += 1);
        Self(alive.clone())
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.send_modify(|alive| *alive -= 1);
    }
}

/// Starts a worker's thread, which ends when it drains and its last connection has ended. Returns
/// what it counts.
pub fn start(start: Start) -> io::Result<Arc<Counters>> {
    let counters = Arc::<Counters>::default();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let name = format!("worker-{}", start.index);
    let counted = Arc::clone(&counters);
    thread::Builder::new().name(name).spawn(move || {
        LocalSet::new().block_on(&runtime, async move {
            let Start {
                index,
                listeners,
                shared,
                draining,
                alive,
            } = start;
            let worker = Rc::new(Worker {
                index,
                shared,
                counters: counted,
                draining,
                http: Engine::default(),
                open: Cell::new(0),
                one_ended: Notify::new(),
            });
            worker.run(listeners).await;
            drop(alive);
        });
    })?;
    Ok(counters)
}

impl Worker {
    /// Whether connections are to be ended in good order.
    pub fn is_draining(&self) -> bool {
        *self.draining.borrow()
    }

    /// Ends when connections are to be ended in good order.
    pub async fn drained(&self) {
        let mut draining = self.draining.clone();
        // Without a sender the process is ending anyway.
        let _ = draining.wait_for(|is_draining| *is_draining).await;
    }

    async fn run(self: Rc<Self>, listeners: Vec<std::net::TcpListener>) {
        let accepting = listeners
            .into_iter()
            .map(|listener| spawn_local(Rc::clone(&self).accept(listener)));
        for task in accepting.collect::<Vec<_>>() {
            // A task that panicked accepts no more either.
            let _ = task.await;
        }
        while self.open.get() > 0 {
            self.one_ended.notified().await;
        }
    }

    async fn accept(self: Rc<Self>, listener: std::net::TcpListener) {
        let listener = match TcpListener::from_std(listener) {
            Ok(listener) => listener,
            Err(error) => {
                tracing::error!(%error, worker = self.index, "cannot accept on a socket");
                return;
            }
        };
        let mut drained = std::pin::pin!(self.drained());
        loop {
            let accepted = tokio::select! {
                biased;
                () = &mut drained => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => self.take(stream, peer),
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    self.counters.count(Counter::AcceptFailed);
                    tracing::debug!(%error, "cannot accept");
                    sleep(AFTER_FAILURE).await;
                }
            }
        }
    }

    /// Begins to serve a connection, or closes it where it is one too many.
    fn take(self: &Rc<Self>, stream: TcpStream, peer: SocketAddr) {
        self.counters.count(Counter::Accepted);
        let serving = self.shared.now();
        let Routes {
            limits, proxies, ..
        } = &serving.routes;
        let admitted = self.shared.admission.admit(limits).and_then(|mut permit| {
            // Behind a proxy are many clients.
            if !proxies::is_proxy(proxies, peer.ip()) {
                permit.count_source(peer.ip(), limits)?;
            }
            Ok(permit)
        });
        let permit = match admitted {
            Ok(permit) => permit,
            Err(refusal) => return self.refuse(&stream, refusal),
        };
        let open = Open::new(Rc::clone(self));
        if proxies::hold(&proxies.proxy_protocol, peer.ip()) {
            spawn_local(async move { open.worker.serve_proxy(stream, peer, permit).await });
        } else {
            spawn_local(async move {
                open.worker.serve(stream, peer).await;
                drop(permit);
            });
        }
    }

    fn refuse(&self, stream: &TcpStream, refusal: Refusal) {
        self.counters.count(match refusal {
            Refusal::Total => Counter::RefusedLimit,
            Refusal::Source => Counter::RefusedSource,
        });
        reset(stream);
    }

    /// Serves a connection of a proxy that says by the PROXY protocol whom it is from.
    async fn serve_proxy(
        self: &Rc<Self>,
        mut stream: TcpStream,
        peer: SocketAddr,
        mut permit: Permit,
    ) {
        let limits = self.shared.now().routes.limits.clone();
        let patience = Duration::from_millis(limits.handshake_timeout_ms.into());
        let client = match timeout(patience, proxies::read_header(&mut stream)).await {
            Ok(Ok(client)) => client,
            failed => {
                tracing::debug!(%peer, ?failed, "no header of the PROXY protocol");
                self.counters.count(Counter::ProxyHeaderInvalid);
                return reset(&stream);
            }
        };
        if let Some(client) = client
            && let Err(refusal) = permit.count_source(client.ip(), &limits)
        {
            return self.refuse(&stream, refusal);
        }
        self.serve(stream, client.unwrap_or(peer)).await;
    }

    /// Serves a connection through its stages, each with memory of its own that is gone when the
    /// next one begins.
    async fn serve(self: &Rc<Self>, stream: TcpStream, peer: SocketAddr) {
        let Ok(dialled) = stream.local_addr() else {
            return;
        };
        let mut meta = ConnMeta {
            id: next_id(),
            peer,
            dialled,
            tls: None,
        };
        // Not kept for longer: a connection may outlive many snapshots.
        let serving = self.shared.now();
        let Some(port) = serving.routes.port(dialled) else {
            self.counters.count(Counter::RefusedUnpublished);
            reset(&stream);
            return;
        };
        if !port.is_tls {
            drop(serving);
            return serve_http(stream, meta, Rc::clone(self)).await;
        }
        let limit = Duration::from_millis(serving.routes.limits.handshake_timeout_ms.into());
        let handshake = timeout(limit, tls::accept(stream, &serving.tls, port));
        let accepted = Box::pin(handshake).await;
        drop(serving);
        let accepted = match accepted {
            Ok(Ok(accepted)) => accepted,
            Ok(Err(error)) => return self.count_failed_handshake(Some(&error), &meta),
            Err(_) => return self.count_failed_handshake(None, &meta),
        };
        self.counters.count(Counter::Handshakes);
        if accepted.meta.is_resumed {
            self.counters.count(Counter::HandshakesResumed);
        }
        meta.tls = Some(accepted.meta);
        let (stream, worker) = (accepted.stream, Rc::clone(self));
        match accepted.target {
            Some(target) if target.kind == ServiceKind::Tls => {
                Box::pin(crate::stream::relay(stream, meta, &target)).await;
            }
            _ => serve_http(stream, meta, worker).await,
        }
    }

    fn count_failed_handshake(&self, error: Option<&HandshakeError>, meta: &ConnMeta) {
        self.counters.count(Counter::HandshakeFailed);
        match error {
            None => self.counters.count(Counter::HandshakeTimeout),
            Some(HandshakeError::UnknownName) => self.counters.count(Counter::HandshakeUnknownName),
            Some(HandshakeError::NoName) => self.counters.count(Counter::HandshakeNoName),
            Some(HandshakeError::Failed(_)) => {}
        }
        tracing::debug!(connection = meta.id, peer = %meta.peer, ?error, "handshake failed");
    }
}

/// A connection that is open, so that a worker that drains knows when the last has ended.
struct Open {
    worker: Rc<Worker>,
}

impl Open {
    fn new(worker: Rc<Worker>) -> Self {
        worker.open.set(worker.open.get() + 1);
        Self { worker }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.worker.open.set(self.worker.open.get() - 1);
        self.worker.one_ended.notify_one();
    }
}

/// Lets the connection end with a reset, which tells the client at once and keeps nothing here.
fn reset(stream: &TcpStream) {
    // Where it fails, the connection is gone already.
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// Whether accepting failed for a client that was gone again: the next one is not concerned.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    )
}

fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
