//! The API's listeners, and who is at the other end of their connections.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::serve::Listener;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use nix::unistd::{Gid, Uid, User};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{info, warn};

use super::tls::{Certificate, TlsListener};
use super::{AgentError, http, notify};
use crate::api::{self, MetricsReaders, Peer};
use crate::config::ApiConfig;

/// How long a client may hold its connection open after the end was asked for.
const PATIENCE: Duration = Duration::from_secs(5);

/// Serves until a signal comes, which `stop` then tells. Requests under way are finished.
pub(super) async fn serve(
    config: &ApiConfig,
    context: api::Context,
    stop: watch::Sender<bool>,
) -> Result<(), AgentError> {
    let context = Arc::new(context);
    let router = api::router(Arc::clone(&context), api::Dialect::Current);
    // Nobody is served before all are bound: who is answered at one address finds the others, too.
    let mut servers = Vec::new();
    let certificate = config.tls.clone().map(Certificate::load).transpose()?;
    if let Some(address) = config.listen {
        listen_on(address, certificate.as_ref(), &mut servers, &router, &stop).await?;
    }
    if let Some(address) = config.metrics_listen {
        let router = api::metrics_router(Arc::clone(&context), readers_of(address));
        let listener = bind(address).await?;
        info!(%address, "metrics can be read");
        servers.push(http::serve(Plain(listener), router, stop.subscribe()).boxed());
    }
    if let Some(address) = config.listen_2024 {
        let router = api::router(context, api::Dialect::Of2024);
        listen_on(address, certificate.as_ref(), &mut servers, &router, &stop).await?;
    }
    if let Some(path) = &config.unix_socket {
        let listener = listen_on_path(path, config.unix_socket_group)?;
        info!(path = %path.display(), "the API listens");
        servers.push(http::serve(listener, router.clone(), stop.subscribe()).boxed());
    }
    let mut servers: JoinSet<()> = servers.into_iter().collect();
    notify::ready();
    wait_for_signal(certificate.as_deref()).await?;
    notify::stopping();
    stop.send_replace(true);
    let finished = async { while servers.join_next().await.is_some() {} };
    if tokio::time::timeout(PATIENCE, finished).await.is_err() {
        warn!("API connections are still open after {PATIENCE:?}; closing them");
    }
    if let Some(path) = &config.unix_socket {
        let _ = std::fs::remove_file(path);
    }
    info!("lbagent stops; the pinned data plane goes on forwarding");
    Ok(())
}

async fn bind(address: SocketAddr) -> Result<TcpListener, AgentError> {
    let failed = |source| AgentError::Listen {
        address: address.to_string(),
        source,
    };
    TcpListener::bind(address).await.map_err(failed)
}

/// Whom the configuration has let in: it was asked about addresses that other hosts can reach.
fn readers_of(address: SocketAddr) -> MetricsReaders {
    match address.ip().to_canonical().is_loopback() {
        true => MetricsReaders::ThisHost,
        false => MetricsReaders::Anybody,
    }
}

async fn listen_on(
    address: SocketAddr,
    certificate: Option<&Arc<Certificate>>,
    servers: &mut Vec<BoxFuture<'static, ()>>,
    router: &Router,
    stop: &watch::Sender<bool>,
) -> Result<(), AgentError> {
    let listener = bind(address).await?;
    info!(%address, tls = certificate.is_some(), "the API listens");
    if certificate.is_none() && !address.ip().to_canonical().is_loopback() {
        warn!(
            "TOKENS TRAVEL IN THE CLEAR: the API listens on {address} without TLS; set \
             api.tls_certificate and api.tls_key, or listen on 127.0.0.1"
        );
    }
    match certificate {
        None => {
            let serving = http::serve(Plain(listener), router.clone(), stop.subscribe());
            servers.push(serving.boxed());
        }
        Some(certificate) => {
            let listener = TlsListener::new(listener, Arc::clone(certificate))?;
            servers.push(http::serve(listener, router.clone(), stop.subscribe()).boxed());
        }
    }
    Ok(())
}

/// Plain HTTP over TCP.
struct Plain(TcpListener);

impl Listener for Plain {
    type Io = tokio::net::TcpStream;
    type Addr = Peer;

    async fn accept(&mut self) -> (Self::Io, Peer) {
        (Listener::accept(&mut self.0).await.0, Peer::Tcp)
    }

    fn local_addr(&self) -> io::Result<Peer> {
        Ok(Peer::Tcp)
    }
}

/// A Unix socket that tells who connects.
struct Local {
    socket: UnixListener,
    group: Option<Gid>,
}

impl Listener for Local {
    type Io = UnixStream;
    type Addr = Peer;

    async fn accept(&mut self) -> (Self::Io, Peer) {
        let (stream, _) = Listener::accept(&mut self.socket).await;
        let peer = match stream.peer_cred() {
            Ok(credentials) => {
                let (uid, gid) = (credentials.uid(), credentials.gid());
                peer(Uid::from_raw(uid), Gid::from_raw(gid), self.group)
            }
            // The kernel knows them for every connected socket.
            Err(_) => Peer::Stranger { uid: u32::MAX },
        };
        (stream, peer)
    }

    fn local_addr(&self) -> io::Result<Peer> {
        Ok(Peer::Operator {
            uid: Uid::effective().as_raw(),
        })
    }
}

/// Root, the agent's own user and members of the group operate the gateway. The socket's
/// permissions keep others out already; this holds also where somebody has changed them.
fn peer(uid: Uid, gid: Gid, group: Option<Gid>) -> Peer {
    let is_member = |group| gid == group || groups(uid, gid).contains(&group);
    if uid.is_root() || uid == Uid::effective() || group.is_some_and(is_member) {
        Peer::Operator { uid: uid.as_raw() }
    } else {
        Peer::Stranger { uid: uid.as_raw() }
    }
}

fn groups(uid: Uid, gid: Gid) -> Vec<Gid> {
    let name = match User::from_uid(uid) {
        Ok(Some(user)) => std::ffi::CString::new(user.name).ok(),
        _ => None,
    };
    name.and_then(|name| nix::unistd::getgrouplist(&name, gid).ok())
        .unwrap_or_default()
}

/// Binds a Unix socket, in the place of one that a killed agent left behind. Its owner may connect,
/// and the members of the group if there is one.
fn listen_on_path(path: &Path, group: Option<u32>) -> Result<Local, AgentError> {
    let failed = |source| AgentError::Listen {
        address: path.display().to_string(),
        source,
    };
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(failed)?;
    }
    // Anything but a socket, and a socket that somebody answers on, is left alone: binding to it
    // fails, and says so.
    let is_socket =
        std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    if is_socket && std::os::unix::net::UnixStream::connect(path).is_err() {
        std::fs::remove_file(path).map_err(failed)?;
    }
    let socket = UnixListener::bind(path).map_err(failed)?;
    std::os::unix::fs::chown(path, None, group).map_err(failed)?;
    let mode = if group.is_some() { 0o660 } else { 0o600 };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(failed)?;
    Ok(Local {
        socket,
        group: group.map(Gid::from_raw),
    })
}

async fn wait_for_signal(certificate: Option<&Certificate>) -> Result<(), AgentError> {
    let listen = |kind| {
        signal(kind).map_err(|source| AgentError::Host {
            what: "listen for signals",
            source,
        })
    };
    let (mut terminate, mut interrupt, mut hangup) = (
        listen(SignalKind::terminate())?,
        listen(SignalKind::interrupt())?,
        listen(SignalKind::hangup())?,
    );
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            _ = hangup.recv() => match certificate {
                Some(certificate) => certificate.reload(),
                None => warn!("SIGHUP changes nothing: restart lbagent to read its configuration again"),
            },
        }
    }
}
