//! Who takes connections to ports with handlers. Pure but for the sockets that it holds.
//!
//! Of several terminators the one that became ready last is *active*: new connections are steered to
//! it. When it goes, the one that was ready before it is active again. The sockets of a terminator
//! that speaks to the agent are held here too, so that its successor accepts on the same ones; of
//! another program's sockets nothing is held, or its end would not refuse connections.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use lbagent_api::terminator::{Fault, Report};
use lbagent_api::terminators::TerminatorState;
use tokio::sync::mpsc;

use super::foreign::Process;
use super::left_out::Refused;
use super::listener::Listener;

/// What a session is told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// Tell the terminator to drain.
    Drain,
}

/// Sockets of a terminator that speaks to the agent.
pub(super) type Listeners = Vec<Arc<Listener>>;

/// How a terminator came to be registered.
#[derive(Debug)]
pub(super) enum Kind {
    /// It speaks to the agent.
    Connected {
        listeners: Listeners,
        commands: mpsc::UnboundedSender<Command>,
    },
    /// Somebody named its process and port.
    Named { process: Arc<Process>, port: u16 },
}

/// A terminator.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) id: u32,
    pub(super) kind: Kind,
    /// What it is, as `lbterm 0.1.0`.
    pub(super) software: String,
    pub(super) pid: u32,
    /// When its process began, in the kernel's clock: the younger of two has the newer binary.
    pub(super) began: u64,
    pub(super) is_draining: bool,
    /// It served, and drains because its process is stopped or restarted: connections wait in its
    /// sockets for the next one.
    awaits_successor: bool,
    /// Place in the order in which terminators became ready; `None` until it is.
    ready: Option<u64>,
    /// The snapshot that it took last.
    pub(super) generation: Option<u64>,
    /// The snapshot that it refused last, if it has taken none since.
    pub(super) refused: Option<u64>,
    /// What was wrong with that.
    pub(super) faults: Vec<Fault>,
    pub(super) report: Option<Report>,
}

impl Entry {
    fn cookies(&self) -> impl Iterator<Item = u64> {
        let listeners = match &self.kind {
            Kind::Connected { listeners, .. } => listeners.as_slice(),
            Kind::Named { .. } => &[],
        };
        listeners.iter().map(|listener| listener.cookie)
    }

    /// Takes a report up, which tells of the groups whose numbers changed since the last one, and of
    /// those that went.
    pub(super) fn hear(&mut self, report: Report) {
        let known = self.report.get_or_insert_default();
        let Report {
            generation,
            connections,
            counters,
            requests_took,
            groups,
            gone,
        } = report;
        (known.generation, known.connections, known.counters) = (generation, connections, counters);
        known.requests_took = requests_took;
        let gone: BTreeSet<_> = gone.into_iter().collect();
        known.groups.retain(|group| !gone.contains(&group.uuid));
        for group in groups {
            match known.groups.binary_search_by_key(&group.uuid, |it| it.uuid) {
                Ok(index) => known.groups[index] = group,
                Err(index) => known.groups.insert(index, group),
            }
        }
    }

    /// Whether connections can go to its sockets: it serves, or its successor will.
    fn holds_connections(&self) -> bool {
        let is_connected = matches!(self.kind, Kind::Connected { .. });
        is_connected && (self.ready.is_some() || self.awaits_successor)
    }

    fn shares_sockets_with(&self, other: &Self) -> bool {
        self.cookies()
            .any(|cookie| other.cookies().any(|other| other == cookie))
    }

    pub(super) fn command(&self, command: Command) {
        if let Kind::Connected { commands, .. } = &self.kind {
            // A session that has ended needs no command.
            let _ = commands.send(command);
        }
    }
}

/// Sockets whose terminator has gone, for a successor.
#[derive(Debug)]
pub(super) struct Orphans {
    pub(super) listeners: Listeners,
    pub(super) until: Instant,
}

/// Where new connections go.
#[derive(Clone, Debug)]
pub(super) enum Target {
    /// Nowhere.
    None,
    /// To these sockets.
    Sockets(Listeners),
    /// To those of another program that listens on a port.
    Process(Arc<Process>, u16),
}

/// All terminators.
#[derive(Debug, Default)]
pub(super) struct Registry {
    entries: Vec<Entry>,
    pub(super) orphans: Option<Orphans>,
    last_id: u32,
    last_ready: u64,
}

impl Registry {
    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub(super) fn entry(&mut self, id: u32) -> Option<&mut Entry> {
        self.entries.iter_mut().find(|entry| entry.id == id)
    }

    /// Takes a terminator up; it is not ready yet. Returns its id.
    pub(super) fn enter(&mut self, kind: Kind, software: String, (pid, began): (u32, u64)) -> u32 {
        self.last_id += 1;
        self.entries.push(Entry {
            id: self.last_id,
            kind,
            software,
            pid,
            began,
            is_draining: false,
            awaits_successor: false,
            ready: None,
            generation: None,
            refused: None,
            faults: Vec::new(),
            report: None,
        });
        self.last_id
    }

    /// The sockets that a terminator without any may go on with: of the one that connections go to, of
    /// one that has gone, or of any that speaks to the agent.
    pub(super) fn offer(&self) -> Listeners {
        let entries = || self.entries.iter().rev();
        let listeners = |entry: &Entry| match &entry.kind {
            Kind::Connected { listeners, .. } => Some(listeners.clone()),
            Kind::Named { .. } => None,
        };
        let serving = entries().filter(|entry| entry.holds_connections());
        let newest = serving.max_by_key(|entry| entry.ready).and_then(listeners);
        let orphans = self.orphans.as_ref();
        newest
            .or_else(|| orphans.map(|orphans| orphans.listeners.clone()))
            .or_else(|| entries().find_map(listeners))
            .unwrap_or_default()
    }

    /// A terminator can serve. It becomes the active one, and those that accept on the same sockets
    /// are told to drain; unless a younger process does so already: then it is the one to drain.
    pub(super) fn ready(&mut self, id: u32) {
        let Some(index) = self.entries.iter().position(|entry| entry.id == id) else {
            return;
        };
        if self.entries[index].ready.is_some() || self.entries[index].is_draining {
            return;
        }
        self.orphans = None;
        let newcomer = &self.entries[index];
        let began = newcomer.began;
        let twins: Vec<usize> = (0..self.entries.len())
            .filter(|other| *other != index && self.entries[*other].ready.is_some())
            .filter(|other| newcomer.shares_sockets_with(&self.entries[*other]))
            .collect();
        if twins.iter().any(|twin| self.entries[*twin].began > began) {
            self.drain(id);
            return;
        }
        for twin in twins {
            self.drain(self.entries[twin].id);
        }
        self.last_ready += 1;
        self.entries[index].ready = Some(self.last_ready);
    }

    /// No new connections go to a terminator any more; one that speaks to the agent is told to
    /// finish. Whether there is one.
    pub(super) fn drain(&mut self, id: u32) -> bool {
        let Some(entry) = self.entry(id) else {
            return false;
        };
        entry.command(Command::Drain);
        entry.is_draining = true;
        entry.awaits_successor = false;
        entry.ready = None;
        true
    }

    /// A terminator accepts no more: it was told to drain, or its process is told to end.
    pub(super) fn draining(&mut self, id: u32) {
        if let Some(entry) = self.entry(id)
            && !entry.is_draining
        {
            entry.is_draining = true;
            entry.awaits_successor = entry.ready.take().is_some();
        }
    }

    /// A terminator has gone. If no other one that speaks to the agent serves, and nobody told it to go,
    /// its sockets are kept until a moment: connections wait in them for its successor, also while that
    /// prepares or a predecessor drains.
    pub(super) fn leave(&mut self, id: u32, until: Instant) {
        let Some(index) = self.entries.iter().position(|entry| entry.id == id) else {
            return;
        };
        let gone = self.entries.remove(index);
        if let Kind::Connected { listeners, .. } = gone.kind
            && (gone.ready.is_some() || gone.awaits_successor)
            && !self.entries.iter().any(Entry::holds_connections)
        {
            self.orphans = Some(Orphans { listeners, until });
        }
    }

    /// Lets go of sockets that nobody came for. Whether there were any.
    pub(super) fn expire(&mut self, now: Instant) -> bool {
        let is_over = |orphans: &mut Orphans| orphans.until <= now;
        self.orphans.take_if(is_over).is_some()
    }

    pub(super) fn active(&self) -> Option<&Entry> {
        let ready = self.entries.iter().filter(|entry| entry.ready.is_some());
        ready.max_by_key(|entry| entry.ready)
    }

    /// The refusal that counts: of the active terminator, or of a newcomer while none is fed. What one
    /// serves is not taken from it because another one cannot serve it.
    pub(super) fn refused(&self) -> Option<Refused> {
        let is_fed = |entry: &&Entry| matches!(entry.kind, Kind::Connected { .. });
        let active = self.active().filter(is_fed);
        let judge = active.or_else(|| self.entries.iter().rfind(is_fed))?;
        Some(Refused {
            generation: judge.refused?,
            faults: judge.faults.clone(),
        })
    }

    /// Where new connections go.
    pub(super) fn target(&self) -> Target {
        let awaiting = self.entries.iter().rev().find(|it| it.awaits_successor);
        match (self.active().or(awaiting), &self.orphans) {
            (Some(entry), _) => match &entry.kind {
                Kind::Connected { listeners, .. } => Target::Sockets(listeners.clone()),
                Kind::Named { process, port } => Target::Process(Arc::clone(process), *port),
            },
            (None, Some(orphans)) => Target::Sockets(orphans.listeners.clone()),
            (None, None) => Target::None,
        }
    }

    pub(super) fn state(&self, entry: &Entry) -> TerminatorState {
        if entry.is_draining {
            TerminatorState::Draining
        } else if entry.ready.is_none() {
            TerminatorState::Preparing
        } else if self.active().is_some_and(|active| active.id == entry.id) {
            TerminatorState::Active
        } else {
            TerminatorState::Standby
        }
    }
}
