//! `lbagent run`: puts the tasks together and takes them apart.
//!
//! | task | reads | writes |
//! |---|---|---|
//! | drains | desired state, clock | desired state: `Draining` past its deadline becomes `Stopped` |
//! | empty groups | desired state, clock | desired state: groups whose `autokill` time is over go |
//! | reconciler | desired state, verdicts, host's network, data plane | data plane, its result (watch channel) |
//! | health, a thread | desired state, answers of instances | verdicts (watch channel) |
//! | terminators, one a connection | a terminator's words, snapshots | which sockets connections are steered to; its view (watch channel) |
//! | snapshots | desired state, verdicts | what terminators serve (watch channel) |
//! | network | kernel's notifications | wakes the reconciler |
//! | fragments | fragments that wait for the first one of their datagram | sends them on |
//! | monitor | sampled packets of the data plane, while somebody watches | which packets are sampled |
//! | API | everything above | desired state |
//!
//! A stop ends the API first and leaves the pinned data plane as it is.

mod deadlines;
mod http;
mod listen;
mod lock;
mod notify;
mod offline;
mod open;
mod open_store;
pub(crate) mod tls;
mod wake;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;
use tokio::sync::{Semaphore, watch};
use tracing::info;

use crate::api;
use crate::config::Config;
use crate::dataplane::{DataplaneError, InterfaceStatus, KernelDataplane, LoadError, ObjectStatus};
use crate::desired::{Desired, DesiredError, Digest, TokenError};
use crate::fragments;
use crate::health::{self, HealthHandle};
use crate::monitor::{Monitor, MonitorHandle};
use crate::plan::{GatewaySettings, Health, TerminatorView};
use crate::reconcile::{FillError, Reconciler, ReconcilerHandle, Timing, fill};
use crate::store::StoreError;
use crate::terminator::{self, TerminatorHandle};
use lock::Lock;

pub use offline::Offline;

/// Why the agent ended, or did not start. The data plane, if there is one, goes on forwarding.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Another agent has this state directory.
    #[error("another lbagent is already running{} on {}; stop it, or give this one its own state_dir and bpffs_dir", pid.map_or(String::new(), |pid| format!(" (pid {pid})")), path.display())]
    Running {
        /// Its process.
        pid: Option<u32>,
        /// The directory.
        path: PathBuf,
    },
    /// The process may not do what an agent does.
    #[error("missing {}; run lbagent as root, or give it these capabilities as packaging/lbagent.service does", missing.join(", "))]
    Privileges {
        /// Capabilities that it lacks.
        missing: Vec<&'static str>,
    },
    /// The state directory cannot be used.
    #[error("cannot use the state directory {}", path.display())]
    StateDir {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store's content cannot be used.
    #[error(transparent)]
    Desired(#[from] DesiredError),
    /// The copy that is made before a migration cannot be made.
    #[error("cannot copy the store to {} before it is migrated; nothing was changed", path.display())]
    Backup {
        /// The copy.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The state document to begin with cannot be used.
    #[error("cannot import the state document {}", path.display())]
    Import {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: anyhow::Error,
    },
    /// The state document cannot be written.
    #[error("cannot write the state document {}", path.display())]
    Export {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No token was made.
    #[error(transparent)]
    NoToken(TokenError),
    /// The data plane could not be set up.
    #[error(transparent)]
    Dataplane(#[from] LoadError),
    /// The maps of an upgraded data plane could not be filled, so it was not attached.
    #[error(transparent)]
    Fill(#[from] FillError),
    /// The configuration wants what the kernel cannot do.
    #[error(
        "{setting} is \"on\", which this kernel cannot do; set it to \"auto\" to leave this to the kernel and to \
         the terminator"
    )]
    NoCookies {
        /// What asks for it.
        setting: &'static str,
        /// What the kernel lacks.
        #[source]
        source: DataplaneError,
    },
    /// The API, or the socket of terminators, cannot listen.
    #[error("cannot listen on {address}")]
    Listen {
        /// Address or path.
        address: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The token file cannot be used.
    #[error("cannot read the token file {}", path.display())]
    Token {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The certificate of the API cannot be used.
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
    /// Something that every host has is missing.
    #[error("cannot {what}")]
    Host {
        /// What was tried.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Runs until a signal asks for the end. An empty store is filled from the document at
/// `import_state` before the data plane is attached. `started` is called once the first pass is over.
pub fn run(config: Config, import_state: Option<&Path>, started: fn()) -> Result<(), AgentError> {
    require_privileges()?;
    let lock = Lock::take(&config.state_dir)?;
    // Before the runtime: this opens netlink sockets of its own and may take a second.
    let (desired, dataplane) = open::open(&config, import_state)?;
    let (dataplane, object) = take_over(&config, &desired, dataplane)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(cannot("start the runtime"))?;
    let outcome = runtime.block_on(serve(config, desired, (dataplane, object), started));
    // The store is closed before the lock goes, so that the next agent finds it free.
    drop(runtime);
    drop(lock);
    outcome
}

/// Attaches the data plane. New maps that replace those of attached programs are filled before: up to
/// the last step, packets flow as before.
fn take_over(
    config: &Config,
    desired: &Desired,
    mut dataplane: KernelDataplane,
) -> Result<(KernelDataplane, Option<ObjectStatus>), AgentError> {
    if dataplane.must_be_filled() {
        let gateway = config.gateway_settings(desired.hash_seed());
        let steps = fill(&mut dataplane, desired.current(), gateway)?;
        info!(steps, "filled the maps of the new data plane");
    }
    if let Some(setting) = config.needs_cookies() {
        let failed = |source| AgentError::NoCookies { setting, source };
        dataplane.check_cookies().map_err(failed)?;
    }
    dataplane.attach()?;
    let object = ObjectStatus::read(&config.open_options());
    Ok((dataplane, object))
}

fn cannot(what: &'static str) -> impl FnOnce(io::Error) -> AgentError {
    move |source| AgentError::Host { what, source }
}

/// Everything that an agent and a detach need from the kernel, by capability.
pub fn require_privileges() -> Result<(), AgentError> {
    let missing = lock::missing_capabilities();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(AgentError::Privileges { missing })
    }
}

async fn serve(
    config: Config,
    desired: Arc<Desired>,
    (mut dataplane, object): (KernelDataplane, Option<ObjectStatus>),
    started: fn(),
) -> Result<(), AgentError> {
    let gateway = config.gateway_settings_in_doubt(desired.hash_seed(), dataplane.doubts());
    let interfaces = dataplane.interfaces();
    let changes = dataplane.network_changes();
    let events = dataplane.events();
    let held = dataplane.held_fragments()?;
    log_start(&interfaces.borrow(), object.as_ref());
    let (stop, stopped) = watch::channel(false);
    let carried = health::carried(&desired.current(), &dataplane);
    let checks = (carried, stopped.clone());
    let (health, verdicts) = health::start(desired.subscribe(), gateway.clone(), checks)
        .map_err(cannot("start the health checks"))?;
    let (view, terminators) = watch::channel(TerminatorView::default());
    let (reconciler, handle) = Reconciler::new(
        Box::new(dataplane),
        gateway.clone(),
        desired.subscribe(),
        verdicts.clone(),
        terminators,
        Timing::default(),
    )
    .map_err(cannot("start the data plane's thread"))?;
    let mut results = handle.subscribe();
    let reconciling = tokio::spawn(reconciler.run());
    tokio::spawn(async move {
        // The agent may end before.
        if results.wait_for(|result| result.pass > 0).await.is_ok() {
            started();
        }
    });
    let terminator = start_terminators(&config, &gateway, &desired, verdicts, (&handle, view))?;
    let waking = tokio::spawn(wake::on_changes(changes, handle.clone()));
    let draining = tokio::spawn(deadlines::end_drains(Arc::clone(&desired)));
    let emptying = tokio::spawn(deadlines::delete_empty_groups(Arc::clone(&desired)));
    let (fragments, holding) = fragments::start(held, stopped.clone());
    let (monitor, monitoring) =
        Monitor::start(events, &handle, desired.subscribe(), stopped.clone());
    let context = api_context(
        &config,
        gateway,
        desired,
        (handle, monitor, fragments, health, terminator),
        (interfaces, object),
        stopped,
    )?;
    let served = listen::serve(&config.api, context, stop).await;
    // Ends soon by itself, because the API has stopped; with it, so does the sampling.
    let _ = tokio::time::timeout(Duration::from_secs(2), monitoring).await;
    for task in [reconciling, waking, draining, emptying, holding] {
        task.abort();
    }
    served
}

fn start_terminators(
    config: &Config,
    gateway: &GatewaySettings,
    desired: &Arc<Desired>,
    health: watch::Receiver<Health>,
    (reconciler, view): (&ReconcilerHandle, watch::Sender<TerminatorView>),
) -> Result<TerminatorHandle, AgentError> {
    let inputs = terminator::Inputs {
        config: &config.terminator,
        state_dir: &config.state_dir,
        metro_domain: &config.api.metro_domain,
        gateway,
        desired,
        health,
        reconciler,
        view,
    };
    let socket = config.terminator.socket.as_ref();
    let address = || socket.map_or_else(String::new, |path| path.display().to_string());
    terminator::start(inputs).map_err(|source| AgentError::Listen {
        address: address(),
        source,
    })
}

/// One line that says what runs here. How each program came to be attached is logged by the data
/// plane.
fn log_start(interfaces: &[InterfaceStatus], object: Option<&ObjectStatus>) {
    let attached = |status: &InterfaceStatus| match status.mode {
        Some(mode) => format!("{} ({:?}, {mode:?})", status.interface, status.hook),
        None => format!("{} ({:?}, not attached)", status.interface, status.hook),
    };
    info!(
        version = env!("CARGO_PKG_VERSION"),
        object = object.map(|object| tracing::field::display(&object.active)),
        previous = object
            .and_then(|object| object.previous.as_ref())
            .map(tracing::field::display),
        interfaces = interfaces
            .iter()
            .map(attached)
            .collect::<Vec<_>>()
            .join(", "),
        "lbagent has its data plane"
    );
}

type Handles = (
    ReconcilerHandle,
    MonitorHandle,
    Arc<fragments::Counters>,
    HealthHandle,
    TerminatorHandle,
);

fn api_context(
    config: &Config,
    gateway: GatewaySettings,
    desired: Arc<Desired>,
    (reconciler, monitor, fragments, health, terminator): Handles,
    (interfaces, object): (watch::Receiver<Vec<InterfaceStatus>>, Option<ObjectStatus>),
    stopped: watch::Receiver<bool>,
) -> Result<api::Context, AgentError> {
    let token = config.api.token_file.as_ref().map(|path| {
        std::fs::read_to_string(path)
            .map(|text| Digest::of(text.trim().as_bytes()))
            .map_err(|source| AgentError::Token {
                path: path.clone(),
                source,
            })
    });
    Ok(api::Context {
        gateway,
        metro_domain: config.api.metro_domain.clone(),
        reserved_names: Arc::new(config.api.reserved_names.clone()),
        private_domain: config.api.private_domain.clone(),
        token: token.transpose()?,
        tcp_without_token: config.api.loopback_without_token,
        refusals: api::Refusals::default(),
        requests: Default::default(),
        desired,
        reconciler,
        monitor,
        fragments,
        health,
        terminator,
        interfaces,
        object,
        subscribers: Arc::new(Semaphore::new(api::MAX_SUBSCRIBERS)),
        stopped,
        started_at: OffsetDateTime::now_utc(),
    })
}
