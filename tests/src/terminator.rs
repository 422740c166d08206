//! A terminator that speaks the agent's protocol and serves nobody: each connection is told where it
//! arrived, as `NAME LOCAL PEER`, and closed. It stands for lbterm where only steering is looked at.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Result, ensure};
use lbagent_api::terminator::{
    DEFAULT_TERMINATOR_SOCKET, Fault, FaultyObject, FromAgent, FromTerminator, Hello,
    ListenerFamily, Listeners, PROTOCOL_VERSION, Report, Snapshot, Verdict,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::frames::{receive, send};
use crate::netns::HostNs;
use crate::poll::{SOON, poll_for};

/// How often the threads look whether they are to end.
const TICK: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 20_000_000,
};

/// What the threads share.
#[derive(Debug, Default)]
struct State {
    latest: Mutex<Option<Snapshot>>,
    /// What the next verdicts say of the objects that a snapshot has.
    faults: Mutex<Vec<Fault>>,
    drained: AtomicBool,
    /// Accept no more.
    stopped: AtomicBool,
    /// Speak to the agent no more.
    left: AtomicBool,
}

/// A terminator on a host.
#[derive(Debug)]
pub struct FakeTerminator {
    state: Arc<State>,
    threads: Vec<JoinHandle<()>>,
    /// Whether the agent gave it its sockets.
    pub was_given_sockets: bool,
}

impl FakeTerminator {
    /// Comes to the agent of a host, and takes or makes a listening socket for each family.
    pub fn start(host: &HostNs, name: &str) -> Result<Self> {
        host.run(|| Self::start_here(name, Vec::new()))
    }

    /// As [`FakeTerminator::start`], whose snapshots are refused at first.
    pub fn start_refusing(host: &HostNs, name: &str, faults: Vec<Fault>) -> Result<Self> {
        host.run(|| Self::start_here(name, faults))
    }

    fn start_here(name: &str, faults: Vec<Fault>) -> Result<Self> {
        let mut stream = UnixStream::connect(DEFAULT_TERMINATOR_SOCKET)?;
        let hello = Hello {
            protocol: PROTOCOL_VERSION,
            software: format!("fake {name}"),
            workers: 1,
            generation: None,
            has_listeners: false,
        };
        send(&stream, &FromTerminator::Hello(hello), &[])?;
        let (welcome, fds) = receive(&mut stream)?;
        let FromAgent::Welcome(welcome) = welcome else {
            anyhow::bail!("no welcome: {welcome:?}");
        };
        ensure!(welcome.listeners.sockets.len() == fds.len(), "{welcome:?}");
        let was_given_sockets = !fds.is_empty();
        let listeners: Vec<TcpListener> = match was_given_sockets {
            true => fds.into_iter().map(TcpListener::from).collect(),
            false => own_listeners(&stream)?,
        };
        let state = Arc::new(State::default());
        *lock(&state.faults) = faults;
        let mut threads = Vec::new();
        for listener in listeners {
            listener.set_nonblocking(true)?;
            let (state, name) = (Arc::clone(&state), name.to_owned());
            threads.push(std::thread::spawn(move || accept(&listener, &state, &name)));
        }
        let shared = Arc::clone(&state);
        threads.push(std::thread::spawn(move || {
            if let Err(error) = speak(stream, &shared) {
                eprintln!("the agent's connection: {error:#}");
            }
        }));
        Ok(Self {
            state,
            threads,
            was_given_sockets,
        })
    }

    /// The snapshot that came last, once one has come that is as wanted.
    pub fn snapshot_where(
        &self,
        what: &str,
        is_wanted: impl Fn(&Snapshot) -> bool,
    ) -> Result<Snapshot> {
        poll_for(what, SOON, || {
            let latest = lock(&self.state.latest).clone();
            latest.filter(&is_wanted)
        })
    }

    /// What the verdicts on later snapshots say of the objects that they have.
    pub fn refuse(&self, faults: Vec<Fault>) {
        *lock(&self.state.faults) = faults;
    }

    /// Whether the agent told it to drain.
    pub fn was_drained(&self) -> bool {
        self.state.drained.load(Ordering::Relaxed)
    }

    /// Ends as a process does that is killed: sockets and connection are closed.
    pub fn end(self) {
        self.state.stopped.store(true, Ordering::Relaxed);
        self.state.left.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("the terminator's thread");
        }
    }
}

/// Unbound from all addresses that anybody would dial.
fn own_listeners(stream: &UnixStream) -> Result<Vec<TcpListener>> {
    let listeners = ["127.0.0.1:0", "[::1]:0"].map(TcpListener::bind);
    let listeners = listeners.into_iter().collect::<io::Result<Vec<_>>>()?;
    let sockets = vec![ListenerFamily::Ipv4, ListenerFamily::Ipv6];
    let fds: Vec<_> = listeners.iter().map(AsFd::as_fd).collect();
    let message = FromTerminator::Listeners(Listeners { sockets });
    send(stream, &message, &fds)?;
    Ok(listeners)
}

fn accept(listener: &TcpListener, state: &State, name: &str) {
    while !state.stopped.load(Ordering::Relaxed) {
        let mut watched = [PollFd::new(listener, PollFlags::IN)];
        if poll(&mut watched, Some(&TICK)).unwrap_or(0) == 0 {
            continue;
        }
        // Another process that has the socket may have been quicker.
        let Ok((mut stream, peer)) = listener.accept() else {
            continue;
        };
        let told = stream.local_addr().and_then(|local| {
            stream.set_nonblocking(false)?;
            writeln!(stream, "{name} {local} {peer}")
        });
        if let Err(error) = told {
            eprintln!("{name}: {peer}: {error}");
        }
    }
}

fn speak(mut stream: UnixStream, state: &State) -> Result<()> {
    while !state.left.load(Ordering::Relaxed) {
        let mut watched = [PollFd::new(&stream, PollFlags::IN)];
        if poll(&mut watched, Some(&TICK))? == 0 {
            continue;
        }
        let Ok((message, _)) = receive(&mut stream) else {
            // The agent was stopped.
            return Ok(());
        };
        match message {
            FromAgent::Snapshot(snapshot) => {
                let mut faults = lock(&state.faults).clone();
                faults.retain(|fault| is_in(fault.object, &snapshot));
                let verdict = Verdict {
                    generation: snapshot.generation,
                    faults,
                };
                let report = Report {
                    generation: Some(snapshot.generation),
                    connections: 7,
                    ..Report::default()
                };
                *lock(&state.latest) = Some(*snapshot);
                send(&stream, &FromTerminator::Verdict(verdict), &[])?;
                send(&stream, &FromTerminator::Report(report), &[])?;
            }
            FromAgent::Drain { .. } => {
                state.drained.store(true, Ordering::Relaxed);
                state.stopped.store(true, Ordering::Relaxed);
                send(&stream, &FromTerminator::Draining, &[])?;
            }
            FromAgent::Welcome(_) | FromAgent::Refused { .. } => {}
        }
    }
    Ok(())
}

fn is_in(object: FaultyObject, snapshot: &Snapshot) -> bool {
    let mut groups = snapshot.groups.iter();
    match object {
        FaultyObject::Gateway => true,
        FaultyObject::ServiceGroup(uuid) => groups.any(|it| it.uuid == uuid),
        FaultyObject::Instance(uuid) => {
            groups.any(|group| group.instances.iter().any(|it| it.uuid == uuid))
        }
        FaultyObject::Certificate(uuid) => snapshot.certificates.iter().any(|it| it.uuid == uuid),
    }
}

/// What a terminator said of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// The terminator.
    pub name: String,
    /// What it was dialled at.
    pub local: SocketAddr,
    /// Who dialled, as it saw.
    pub peer: SocketAddr,
    /// Who dialled.
    pub client: SocketAddr,
}

/// Connects from this thread's namespace, and asks where that arrived.
pub fn arrive(to: SocketAddr) -> Result<Arrival> {
    let patience = Duration::from_secs(5);
    let mut stream = std::net::TcpStream::connect_timeout(&to, patience)?;
    stream.set_read_timeout(Some(patience))?;
    let client = stream.local_addr()?;
    let mut line = String::new();
    stream.read_to_string(&mut line)?;
    let words: Vec<&str> = line.split_whitespace().collect();
    let [name, local, peer] = words[..] else {
        anyhow::bail!("{to} said {line:?}");
    };
    Ok(Arrival {
        name: name.to_owned(),
        local: local.parse()?,
        peer: peer.parse()?,
        client,
    })
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
