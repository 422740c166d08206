//! One terminator that speaks to the agent, from its first word to its last.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use lbagent_api::terminator::link::{self, LinkError};
use lbagent_api::terminator::{
    FromAgent, FromTerminator, Hello, ListenerFamily, Listeners, PROTOCOL_VERSION, Welcome,
};
use nix::unistd::Uid;
use tokio::net::UnixStream;
use tokio::net::unix::UCred;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::{info, warn};

use super::Shared;
use super::foreign;
use super::listener::{Listener, NotAListener};
use super::registry::{self, Command, Kind};

/// The agent's side of the connection.
type Link = link::Link<FromAgent, FromTerminator>;

/// How long a terminator may take for its first words.
const INTRODUCTION: Duration = Duration::from_secs(10);

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum SessionError {
    /// The connection is over.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The terminator is not taken.
    #[error("refused: {0}")]
    Refused(String),
}

/// Root, the agent's own user, and the configured one.
pub(super) fn is_known(uid: Uid, configured: Option<u32>) -> bool {
    uid.is_root() || uid == Uid::effective() || configured == Some(uid.as_raw())
}

/// Serves a terminator until it goes.
pub(super) async fn serve(shared: Arc<Shared>, stream: UnixStream, peer: UCred) {
    let pid = peer
        .pid()
        .and_then(|pid| u32::try_from(pid).ok())
        .unwrap_or(0);
    let mut link = Link::from(stream);
    let uid = Uid::from_raw(peer.uid());
    let outcome = if is_known(uid, shared.user) {
        run(&shared, &mut link, pid).await
    } else {
        Err(SessionError::Refused(format!(
            "user {uid} may not be the terminator; name it as terminator.user in the agent's \
             configuration"
        )))
    };
    match outcome {
        Ok(()) | Err(SessionError::Link(LinkError::Closed)) => {}
        Err(error) => {
            warn!(pid, %error, "a terminator's connection ended");
            let reason = match error {
                SessionError::Refused(reason) => reason,
                error => error.to_string(),
            };
            // Best effort: it may not listen any more.
            let _ = link.send(&FromAgent::Refused { reason }, &[]).await;
        }
    }
}

async fn run(shared: &Arc<Shared>, link: &mut Link, pid: u32) -> Result<(), SessionError> {
    let hello = match timeout(INTRODUCTION, link.receive()).await {
        Ok(Ok(FromTerminator::Hello(hello))) => hello,
        Ok(Ok(_)) => return Err(refused("the first message has to be `hello`")),
        Ok(Err(error)) => return Err(error.into()),
        Err(_) => return Err(refused("no `hello` came in time")),
    };
    if hello.protocol != PROTOCOL_VERSION {
        return Err(refused(format!(
            "it speaks version {} of the protocol, this agent version {PROTOCOL_VERSION}; \
             install both of one release",
            hello.protocol
        )));
    }
    let listeners = introduce(shared, link, &hello).await?;
    let began = foreign::began(pid).unwrap_or(0);
    let (commands, commanded) = mpsc::unbounded_channel();
    let kind = Kind::Connected {
        listeners,
        commands,
    };
    let id = shared.with(|registry| {
        let id = registry.enter(kind, hello.software.clone(), (pid, began));
        if let Some(entry) = registry.entry(id) {
            entry.generation = hello.generation;
        }
        id
    });
    info!(id, pid, software = hello.software, "a terminator came");
    if let Some(generation) = hello.generation {
        // It serves already: the agent is the newcomer.
        shared.raise_floor(generation);
        shared.with(|registry| registry.ready(id));
        shared.apply().await;
    }
    let mut session = Session {
        shared,
        id,
        commanded,
    };
    let outcome = session.talk(link).await;
    shared.gone(id).await;
    info!(id, pid, "a terminator has gone");
    outcome
}

/// Agrees on the listening sockets.
async fn introduce(
    shared: &Shared,
    link: &mut Link,
    hello: &Hello,
) -> Result<registry::Listeners, SessionError> {
    let offered = match hello.has_listeners {
        true => registry::Listeners::new(),
        false => shared.with(|registry| registry.offer()),
    };
    let families = offered.iter().map(|listener| listener.family);
    let welcome = FromAgent::Welcome(Welcome {
        protocol: PROTOCOL_VERSION,
        listeners: Listeners {
            sockets: families.collect(),
        },
    });
    let fds: Vec<_> = offered.iter().map(|listener| listener.fd.as_fd()).collect();
    link.send(&welcome, &fds).await?;
    if !offered.is_empty() {
        return Ok(offered);
    }
    let listeners = match timeout(INTRODUCTION, link.receive()).await {
        Ok(Ok(FromTerminator::Listeners(listeners))) => listeners,
        Ok(Ok(_)) => return Err(refused("`listeners` has to follow a welcome without any")),
        Ok(Err(error)) => return Err(error.into()),
        Err(_) => return Err(refused("no `listeners` came in time")),
    };
    examine(link, &listeners.sockets)
}

/// The listening sockets that came with a frame.
fn examine(
    link: &mut Link,
    families: &[ListenerFamily],
) -> Result<registry::Listeners, SessionError> {
    let fds = link.take_fds();
    if fds.is_empty() || fds.len() != families.len() {
        return Err(refused(format!(
            "{} descriptors came with a list of {} listening sockets",
            fds.len(),
            families.len()
        )));
    }
    let named = fds.into_iter().zip(families).enumerate();
    let examined = named.map(|(index, (fd, family))| {
        let wrong = |error: NotAListener| refused(format!("descriptor {}: {error}", index + 1));
        let listener = Listener::examine(fd).map_err(wrong)?;
        if listener.family == *family {
            Ok(Arc::new(listener))
        } else {
            let text = "is of another family than it is said to be";
            Err(refused(format!("descriptor {} {text}", index + 1)))
        }
    });
    examined.collect()
}

fn refused(reason: impl Into<String>) -> SessionError {
    SessionError::Refused(reason.into())
}

/// A terminator that is taken.
struct Session<'a> {
    shared: &'a Arc<Shared>,
    id: u32,
    commanded: mpsc::UnboundedReceiver<Command>,
}

impl Session<'_> {
    async fn talk(&mut self, link: &mut Link) -> Result<(), SessionError> {
        let mut snapshots = self.shared.published.clone();
        snapshots.mark_changed();
        loop {
            // Every branch is cancel-safe; what is sent is sent outside of them.
            tokio::select! {
                Ok(()) = snapshots.changed() => {
                    let latest = snapshots.borrow_and_update().clone();
                    if let Some(latest) = latest {
                        link.send_frame(&latest.frame, &[]).await?;
                    }
                }
                Some(Command::Drain) = self.commanded.recv() => {
                    let deadline_ms = self.shared.drain.as_millis();
                    let deadline_ms = u64::try_from(deadline_ms).unwrap_or(u64::MAX);
                    link.send(&FromAgent::Drain { deadline_ms }, &[]).await?;
                }
                message = link.receive() => self.hear(message?).await?,
            }
        }
    }

    async fn hear(&self, message: FromTerminator) -> Result<(), SessionError> {
        let id = self.id;
        match message {
            FromTerminator::Verdict(verdict) => {
                for fault in &verdict.faults {
                    warn!(id, object = ?fault.object, reason = fault.reason, "a terminator refuses a snapshot");
                }
                self.shared.with(|registry| {
                    let is_served = verdict.faults.is_empty();
                    if let Some(entry) = registry.entry(id) {
                        entry.refused = (!is_served).then_some(verdict.generation);
                        entry.faults = verdict.faults;
                        if is_served {
                            entry.generation = Some(verdict.generation);
                        }
                    }
                    if is_served {
                        registry.ready(id);
                    }
                });
                self.shared.apply().await;
            }
            FromTerminator::Report(report) => self.shared.with(|registry| {
                if let Some(entry) = registry.entry(id) {
                    entry.hear(report);
                }
            }),
            FromTerminator::Draining => {
                info!(id, "a terminator drains: it accepts no more");
                self.shared.with(|registry| registry.draining(id));
                self.shared.apply().await;
            }
            FromTerminator::Hello(_) | FromTerminator::Listeners(_) => {
                return Err(refused("introductions come once"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_are_not_known() {
        let stranger = Uid::effective().as_raw() + 4_242;
        assert!(!is_known(Uid::from_raw(stranger), None));
        assert!(!is_known(Uid::from_raw(stranger), Some(stranger + 1)));
        assert!(is_known(Uid::from_raw(stranger), Some(stranger)));
        assert!(is_known(Uid::effective(), None) && is_known(Uid::from_raw(0), None));
    }
}
