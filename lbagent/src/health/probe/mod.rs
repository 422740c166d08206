//! Making one check.

mod http;
mod tcp;
mod tls;
mod udp;

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::desired::Check;
use lbagent_api::health::Probe;

/// One check to be made.
#[derive(Clone, Debug)]
pub(super) struct Job {
    pub(super) id: u64,
    pub(super) to: SocketAddr,
    pub(super) check: Arc<Check>,
}

/// How long a success took, or why the check failed.
pub(super) type Outcome = Result<Duration, Failure>;

/// Why a check failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) kind: FailureKind,
    /// For people.
    pub(super) text: String,
}

/// What failures are counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FailureKind {
    /// The time was over.
    Timeout,
    /// Nobody listens.
    Refused,
    /// There is no way to the instance.
    Unreachable,
    /// The connection ended before the answer.
    Closed,
    /// HTTP: another status.
    Status,
    /// Other bytes than expected.
    Content,
    /// TLS failed.
    Tls,
    /// HTTP: what came is none.
    Protocol,
    /// The gateway's own trouble; says nothing about the instance.
    Local,
}

impl FailureKind {
    pub(super) const ALL: [Self; 9] = [
        Self::Timeout,
        Self::Refused,
        Self::Unreachable,
        Self::Closed,
        Self::Status,
        Self::Content,
        Self::Tls,
        Self::Protocol,
        Self::Local,
    ];

    /// The word that counters have.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::Closed => "closed",
            Self::Status => "status",
            Self::Content => "content",
            Self::Tls => "tls",
            Self::Protocol => "protocol",
            Self::Local => "local",
        }
    }
}

impl Failure {
    pub(super) fn new(kind: FailureKind, text: impl Into<String>) -> Self {
        let text = text.into();
        Self { kind, text }
    }

    /// Why a system call of a check failed.
    fn of(doing: &str, error: &io::Error) -> Self {
        let kind = match error.raw_os_error() {
            Some(libc::ECONNREFUSED) => FailureKind::Refused,
            Some(libc::ECONNRESET | libc::EPIPE | libc::ECONNABORTED) => FailureKind::Closed,
            Some(libc::ETIMEDOUT) => FailureKind::Timeout,
            Some(
                libc::EMFILE
                | libc::ENFILE
                | libc::ENOBUFS
                | libc::ENOMEM
                | libc::EADDRNOTAVAIL
                | libc::EADDRINUSE
                | libc::EPERM
                | libc::EACCES
                | libc::EAGAIN,
            ) => FailureKind::Local,
            Some(_) => FailureKind::Unreachable,
            None => FailureKind::Closed,
        };
        Self::new(kind, format!("{doing}: {error}"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Whoever makes checks.
pub(super) trait Prober: Clone + Send + 'static {
    /// Makes a check; ends within its timeout.
    fn probe(&self, job: &Job) -> impl Future<Output = Outcome> + Send;
}

/// Makes checks over the network.
#[derive(Clone, Debug)]
pub(super) struct Network {
    tls: tls::Connectors,
}

impl Network {
    pub(super) fn new() -> Self {
        Self {
            tls: tls::Connectors::default(),
        }
    }
}

impl Prober for Network {
    async fn probe(&self, job: &Job) -> Outcome {
        let began = Instant::now();
        let limit = Limit::new(&job.check);
        match &job.check.probe {
            Probe::Tcp { send, expect } => {
                tcp::check(job.to, send.as_ref(), expect.as_ref(), limit).await?;
            }
            Probe::Udp { send, expect } => udp::check(job.to, send, expect.as_ref(), limit).await?,
            Probe::Http(http) => http::check(job.to, http, &self.tls, limit).await?,
        }
        Ok(began.elapsed())
    }
}

/// Until when a check may take.
#[derive(Clone, Copy, Debug)]
struct Limit {
    deadline: Instant,
    timeout_ms: u32,
}

impl Limit {
    fn new(check: &Check) -> Self {
        let timeout_ms = check.timeout_ms;
        let timeout = Duration::from_millis(timeout_ms.into());
        Self {
            deadline: Instant::now() + timeout,
            timeout_ms,
        }
    }

    /// Waits for one part of a check; `what` had not come when the time was over.
    async fn wait<T>(self, what: &str, part: impl Future<Output = T>) -> Result<T, Failure> {
        let ended = tokio::time::timeout_at(self.deadline, part).await;
        ended.map_err(|_| {
            let text = format!("{what} within {} ms", self.timeout_ms);
            Failure::new(FailureKind::Timeout, text)
        })
    }
}

/// Whether bytes hold others.
fn holds(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}

/// The beginning of what came, for people.
fn excerpt(bytes: &[u8]) -> String {
    const MOST: usize = 60;
    let shown = &bytes[..bytes.len().min(MOST)];
    let rest = if bytes.len() > MOST { "…" } else { "" };
    format!("\"{}{rest}\"", shown.escape_ascii())
}
