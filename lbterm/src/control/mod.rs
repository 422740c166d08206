//! Client of the agent: takes snapshots, tells verdicts and reports, and goes on with the last
//! snapshot while the agent is away.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lbagent_api::terminator::link::{self, LinkError};
use lbagent_api::terminator::{
    FromAgent, FromTerminator, Hello, PROTOCOL_VERSION, Snapshot, Verdict, Welcome,
};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tracing::{info, warn};

use crate::chain;
use crate::crew::Crew;
use crate::listen::{AdoptError, Sockets};
use crate::notify;
use crate::report::Reporter;
use crate::serving::Shared;

/// The terminator's side of the connection.
type Link = link::Link<FromTerminator, FromAgent>;

/// How long to wait between attempts to reach the agent, doubled up to the longest.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LONGEST: Duration = Duration::from_secs(5);

/// How long the agent may take to answer a greeting.
const WELCOME_TIMEOUT: Duration = Duration::from_secs(10);

/// How often a report is sent.
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// Why a connection to the agent, or an attempt at one, is over.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// There is no connection.
    #[error("cannot connect to the agent at {}", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The agent's socket is not for this user.
    #[error(
        "this user may not use the agent's socket {}: name it in the agent's configuration, as terminator.user",
        path.display()
    )]
    NotPermitted {
        /// The socket.
        path: PathBuf,
    },
    /// The connection is over.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The agent does not take this terminator.
    #[error("the agent refuses this terminator: {0}")]
    Refused(String),
    /// The agent says something else than the protocol asks for.
    #[error("the agent does not speak version {PROTOCOL_VERSION} of the protocol: {0}")]
    Protocol(String),
    /// The listening sockets of the predecessor cannot be used.
    #[error("cannot take over the predecessor's listening sockets")]
    Adopt(#[from] AdoptError),
    /// Listening sockets or workers cannot be made.
    #[error("cannot begin to accept connections")]
    Begin(#[source] io::Error),
}

/// The agent's client.
pub struct Control {
    /// The agent's socket.
    pub socket: PathBuf,
    /// What all threads share.
    pub shared: Arc<Shared>,
    /// Who accepts.
    pub crew: Arc<Crew>,
}

impl Control {
    /// Connects again and again, and does what the agent says. Never ends by itself.
    pub async fn run(self) {
        let mut pause = RETRY_FIRST;
        let mut last_told = String::new();
        loop {
            let began = Instant::now();
            let Err(error) = self.session().await;
            if *self.crew.draining().borrow() {
                // The agent that comes next has to do with the successor alone.
                return std::future::pending().await;
            }
            // An agent that is away is told once, not with each attempt.
            let text = chain(&error);
            if text != last_told {
                warn!(error = %text, "no agent; what is in force goes on, trying again");
                last_told = text;
            }
            if began.elapsed() > RETRY_LONGEST {
                pause = RETRY_FIRST;
                last_told.clear();
            }
            // Many terminators of one agent shall not all come at once.
            sleep(pause.mul_f64(0.75 + fastrand::f64() / 2.0)).await;
            pause = (pause * 2).min(RETRY_LONGEST);
        }
    }

    /// One connection, from greeting to end.
    async fn session(&self) -> Result<std::convert::Infallible, SessionError> {
        let connected = Link::open(&self.socket).await;
        let mut link = connected.map_err(|source| {
            let path = self.socket.clone();
            match source.kind() {
                io::ErrorKind::PermissionDenied => SessionError::NotPermitted { path },
                _ => SessionError::Connect { path, source },
            }
        })?;
        self.greet(&mut link).await?;
        let mut draining = self.crew.draining();
        let mut ticks = interval(REPORT_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut reporter = Reporter::default();
        let mut has_told_draining = false;
        loop {
            tokio::select! {
                message = link.receive() => self.follow(&link, message?).await?,
                _ = ticks.tick() => {
                    let report = reporter.report(&self.shared, &self.crew.counters(), Instant::now());
                    link.send(&FromTerminator::Report(report), &[]).await?;
                }
                _ = draining.wait_for(|is_draining| *is_draining), if !has_told_draining => {
                    has_told_draining = true;
                    link.send(&FromTerminator::Draining, &[]).await?;
                }
            }
        }
    }

    async fn greet(&self, link: &mut Link) -> Result<(), SessionError> {
        let hello = FromTerminator::Hello(Hello {
            protocol: PROTOCOL_VERSION,
            software: concat!("lbterm ", env!("CARGO_PKG_VERSION")).to_owned(),
            workers: self.crew.size(),
            generation: self.shared.now().routes.generation,
            has_listeners: self.crew.sockets().is_some(),
        });
        link.send(&hello, &[]).await?;
        let answer = timeout(WELCOME_TIMEOUT, link.receive()).await;
        let answer = answer
            .map_err(|_| SessionError::Protocol("no answer to the greeting".to_owned()))??;
        let welcome = match answer {
            FromAgent::Welcome(welcome) => welcome,
            FromAgent::Refused { reason } => return Err(SessionError::Refused(reason)),
            FromAgent::Snapshot(_) | FromAgent::Drain { .. } => {
                return Err(SessionError::Protocol(
                    "it does not begin with a greeting".to_owned(),
                ));
            }
        };
        if welcome.protocol != PROTOCOL_VERSION {
            let other = format!("it speaks version {}", welcome.protocol);
            return Err(SessionError::Protocol(other));
        }
        self.take_sockets(link, &welcome)?;
        if welcome.listeners.sockets.is_empty()
            && let Some(sockets) = self.crew.sockets()
        {
            let listeners = FromTerminator::Listeners(sockets.describe());
            link.send(&listeners, &sockets.fds()).await?;
        }
        info!(agent = %self.socket.display(), "connected to the agent");
        Ok(())
    }

    /// The first sockets count: those that connections are steered to already.
    fn take_sockets(&self, link: &mut Link, welcome: &Welcome) -> Result<(), SessionError> {
        let came = link.take_fds();
        if self.crew.sockets().is_some() {
            return Ok(());
        }
        let sockets = if welcome.listeners.sockets.is_empty() {
            Sockets::open(self.crew.size()).map_err(SessionError::Begin)?
        } else {
            Sockets::adopt(&welcome.listeners, came)?
        };
        self.crew.equip(sockets);
        Ok(())
    }

    async fn follow(&self, link: &Link, message: FromAgent) -> Result<(), SessionError> {
        match message {
            FromAgent::Snapshot(snapshot) => {
                let verdict = self.judge(&snapshot)?;
                link.send(&FromTerminator::Verdict(verdict), &[]).await?;
            }
            FromAgent::Drain { deadline_ms } => {
                self.crew.drain(Duration::from_millis(deadline_ms));
            }
            FromAgent::Refused { reason } => return Err(SessionError::Refused(reason)),
            FromAgent::Welcome(_) => {
                return Err(SessionError::Protocol("it greets twice".to_owned()));
            }
        }
        Ok(())
    }

    fn judge(&self, snapshot: &Snapshot) -> Result<Verdict, SessionError> {
        let generation = snapshot.generation;
        let is_first = self.shared.now().routes.generation.is_none();
        let faults = match self.shared.replace(snapshot) {
            Ok(()) => Vec::new(),
            Err(faults) => faults,
        };
        if faults.is_empty() {
            tracing::debug!(generation, "a snapshot is in force");
            self.crew.begin().map_err(SessionError::Begin)?;
            if is_first {
                info!(generation, "serving");
                notify::ready();
            }
        }
        for fault in &faults {
            warn!(generation, object = ?fault.object, reason = %fault.reason, "snapshot refused");
        }
        Ok(Verdict { generation, faults })
    }
}
