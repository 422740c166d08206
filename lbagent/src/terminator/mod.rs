//! Who takes connections to ports with handlers: terminators, their listening sockets, and what they are
//! fed with.
//!
//! A terminator connects to a Unix socket ([`session`], one task each), hands its listening sockets over
//! and gets snapshots ([`publisher`], a task that follows desired state and verdicts). Another program is
//! named by process and port ([`foreign`]). [`registry`] says whose sockets the data plane is to use;
//! [`Shared::apply`] writes that, and tells the reconciler. Output: the places of `TERMINATORS`, and a
//! [`TerminatorView`] (watch channel).

mod authority;
mod foreign;
mod handle;
mod left_out;
mod listener;
mod publisher;
mod record;
mod registry;
mod session;
mod snapshot;
#[cfg(test)]
mod tests;

use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use lbagent_api::terminator::{FaultyObject, ListenerFamily};
use lbagent_common::{TERMINATOR_V4, TERMINATOR_V6};
use tokio::net::UnixListener;
use tokio::sync::watch;
use tracing::{info, warn};

use crate::config::TerminatorConfig;
use crate::desired::Desired;
use crate::plan::{Condition, GatewaySettings, Health, Object, Reason, Terminator, TerminatorView};
use crate::reconcile::ReconcilerHandle;
pub use foreign::ForeignError;
pub use handle::{TerminatorError, TerminatorHandle};
use left_out::Refused;
pub use listener::NotAListener;
use publisher::{Published, Publisher};
use record::Record;
use registry::{Registry, Target};

/// How long the sockets of a terminator that died are kept for its successor; as long a restarted
/// agent waits for one that lives before it lets go of its sockets.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is steered: by family, the kernel's name of the socket.
type Steered = [Option<u64>; 2];

/// What all tasks share.
pub(crate) struct Shared {
    registry: Mutex<Registry>,
    /// What the data plane was told; `None` before the first time.
    steered: tokio::sync::Mutex<Option<Steered>>,
    reconciler: ReconcilerHandle,
    view: watch::Sender<TerminatorView>,
    published: watch::Receiver<Option<Arc<Published>>>,
    floor: watch::Sender<u64>,
    refused: watch::Sender<Option<Refused>>,
    record: Record,
    user: Option<u32>,
    drain: Duration,
}

/// What [`start`] needs.
pub struct Inputs<'a> {
    /// The configuration.
    pub config: &'a TerminatorConfig,
    /// Holds the record of programs that were named.
    pub state_dir: &'a Path,
    /// Domain of the gateway's own certificate.
    pub metro_domain: &'a str,
    /// The configuration's part of the data plane.
    pub gateway: &'a GatewaySettings,
    /// What to serve, and the secrets for it.
    pub desired: &'a Arc<Desired>,
    /// Verdicts of health checks.
    pub health: watch::Receiver<Health>,
    /// Writes sockets into the data plane.
    pub reconciler: &'a ReconcilerHandle,
    /// Where the reconciler hears of terminators.
    pub view: watch::Sender<TerminatorView>,
}

/// Starts the tasks; they end with the runtime.
pub fn start(inputs: Inputs<'_>) -> io::Result<TerminatorHandle> {
    let config = inputs.config;
    let (publish, published) = watch::channel(None);
    let (floor, floors) = watch::channel(0);
    let settings = Settings {
        state_dir: inputs.state_dir,
        user: config.user,
        drain: config.drain,
    };
    let shared = Shared::new(
        settings,
        inputs.reconciler.clone(),
        inputs.view,
        (published, floor),
    );
    let shared = Arc::new(shared);
    if let Some(path) = &config.socket {
        let listener = listen(path, config.user)?;
        info!(path = %path.display(), "terminators may come");
        tokio::spawn(accept(listener, Arc::clone(&shared)));
    }
    let publisher = Publisher {
        desired: Arc::clone(inputs.desired),
        health: inputs.health,
        gateway: inputs.gateway.clone(),
        metro_domain: inputs.metro_domain.to_owned(),
        settings: config.serving.clone(),
        floor: floors,
        refused: shared.refused.subscribe(),
        published: publish,
    };
    tokio::spawn(publisher.run());
    tokio::spawn(follow(Arc::clone(&shared)));
    if config.development_ca {
        let desired = Arc::clone(inputs.desired);
        tokio::spawn(authority::keep(desired, inputs.metro_domain.to_owned()));
    }
    let handle = TerminatorHandle {
        shared: Arc::clone(&shared),
        desired: Arc::clone(inputs.desired),
        metro_domain: inputs.metro_domain.into(),
    };
    tokio::spawn(begin(handle.clone()));
    Ok(handle)
}

/// Takes up programs that a former agent knew, and later lets go of sockets that nobody came for.
async fn begin(handle: TerminatorHandle) {
    handle.restore().await;
    tokio::time::sleep(PATIENCE).await;
    handle.shared.apply().await;
}

/// Tells the reconciler what snapshots lack.
async fn follow(shared: Arc<Shared>) {
    let mut published = shared.published.clone();
    while published.changed().await.is_ok() {
        let steered = shared.steered.lock().await;
        shared.tell(steered.unwrap_or_default());
    }
}

async fn accept(listener: UnixListener, shared: Arc<Shared>) {
    loop {
        let accepted = match listener.accept().await {
            Ok((stream, _)) => stream.peer_cred().map(|peer| (stream, peer)),
            Err(error) => Err(error),
        };
        match accepted {
            Ok((stream, peer)) => {
                tokio::spawn(session::serve(Arc::clone(&shared), stream, peer));
            }
            Err(error) => {
                warn!(%error, "cannot take a terminator's connection");
                // Descriptors that are missing now may be there soon.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Binds the socket, in the place of one that a killed agent left behind. Its owner may connect, and so
/// may root; that is the terminator's user, if there is one.
fn listen(path: &Path, user: Option<u32>) -> io::Result<UnixListener> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let is_socket =
        std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    if is_socket && std::os::unix::net::UnixStream::connect(path).is_err() {
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    std::os::unix::fs::chown(path, user, None)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// The part of the configuration that holds as long as the agent runs.
struct Settings<'a> {
    state_dir: &'a Path,
    user: Option<u32>,
    drain: Duration,
}

impl Shared {
    fn new(
        settings: Settings<'_>,
        reconciler: ReconcilerHandle,
        view: watch::Sender<TerminatorView>,
        (published, floor): (watch::Receiver<Option<Arc<Published>>>, watch::Sender<u64>),
    ) -> Self {
        Self {
            registry: Mutex::default(),
            steered: tokio::sync::Mutex::new(None),
            reconciler,
            view,
            published,
            floor,
            refused: watch::Sender::default(),
            record: Record::new(settings.state_dir),
            user: settings.user,
            drain: settings.drain,
        }
    }

    fn with<T>(&self, look: impl FnOnce(&mut Registry) -> T) -> T {
        // Changes are whole, or panicked before they began.
        look(&mut self.registry.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The next snapshot's generation is above this one.
    fn raise_floor(&self, generation: u64) {
        self.floor.send_if_modified(|floor| {
            let is_higher = *floor < generation;
            *floor = (*floor).max(generation);
            is_higher
        });
    }

    /// A terminator has gone; its sockets are let go of after a while.
    async fn gone(self: &Arc<Self>, id: u32) {
        self.with(|registry| registry.leave(id, Instant::now() + PATIENCE));
        self.apply().await;
        let has_orphans = self.with(|registry| registry.orphans.is_some());
        if has_orphans {
            let shared = Arc::clone(self);
            tokio::spawn(async move {
                tokio::time::sleep(PATIENCE).await;
                if shared.with(|registry| registry.expire(Instant::now())) {
                    warn!("no successor of the terminator came: its sockets are let go of");
                    shared.apply().await;
                }
            });
        }
    }

    /// Has the data plane steer to whoever is active, and tells the reconciler who that is.
    async fn apply(&self) {
        let mut steered = self.steered.lock().await;
        let target = self.with(|registry| registry.target());
        let mut applied = steered.unwrap_or_default();
        let copied = match &target {
            Target::Process(process, port) => process.listeners(*port).unwrap_or_default(),
            Target::Sockets(_) | Target::None => Vec::new(),
        };
        for (index, family) in [
            (TERMINATOR_V4, ListenerFamily::Ipv4),
            (TERMINATOR_V6, ListenerFamily::Ipv6),
        ] {
            let found = match &target {
                Target::Sockets(held) => listener::find(held, family).map(AsRef::as_ref),
                Target::Process(..) => listener::find(&copied, family),
                Target::None => None,
            };
            let cookie = found.map(|listener| listener.cookie);
            let place = &mut applied[index as usize];
            if steered.is_some() && *place == cookie {
                continue;
            }
            let socket = found.map(|listener| listener.fd.try_clone()).transpose();
            let told = match socket {
                Ok(socket) => self.reconciler.set_terminator(index, socket).await,
                Err(error) => {
                    warn!(%error, ?family, "cannot copy a terminator's socket");
                    continue;
                }
            };
            match told {
                Ok(()) => *place = cookie,
                Err(error) => {
                    let error = anyhow::Error::from(error);
                    warn!(
                        error = format!("{error:#}"),
                        ?family,
                        "cannot steer to a terminator"
                    );
                    *place = None;
                }
            }
        }
        *steered = Some(applied);
        self.tell(applied);
    }

    fn tell(&self, steered: Steered) {
        let refused = self.with(|registry| registry.refused());
        self.refused.send_if_modified(|current| {
            let is_new = *current != refused;
            *current = refused;
            is_new
        });
        let left_out = match &*self.published.borrow() {
            Some(published) => published.left_out.clone(),
            None => Vec::new(),
        };
        let faults = self.with(|registry| {
            let faults = registry.active().map(|active| active.faults.clone());
            // A newcomer that refuses its first snapshot never becomes active.
            let newest = registry.entries().last().map(|entry| entry.faults.clone());
            [faults, newest]
                .into_iter()
                .flatten()
                .flatten()
                .collect::<Vec<_>>()
        });
        let mut faults: Vec<Condition> = left_out
            .into_iter()
            .chain(faults)
            .map(|fault| {
                let object = match fault.object {
                    FaultyObject::Gateway => Object::Gateway,
                    FaultyObject::ServiceGroup(uuid) => Object::ServiceGroup(uuid),
                    FaultyObject::Instance(uuid) => Object::Instance(uuid),
                    FaultyObject::Certificate(uuid) => Object::Certificate(uuid),
                };
                let reason = fault.reason;
                Condition::new(object, Reason::RefusedByTerminator { reason })
            })
            .collect();
        faults.sort();
        faults.dedup();
        let [v4, v6] = steered.map(|cookie| cookie.is_some());
        let view = TerminatorView {
            takes: Terminator { v4, v6 },
            faults: Arc::new(faults),
        };
        self.view.send_if_modified(|current| {
            let is_new = *current != view;
            *current = view;
            is_new
        });
    }
}
