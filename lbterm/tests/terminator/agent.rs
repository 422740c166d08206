//! A fake agent: the other side of the real Unix socket.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lbagent_api::terminator::link::{Link, LinkError};
use lbagent_api::terminator::{
    Fault, FromAgent, FromTerminator, Hello, ListenerFamily, Listeners, PROTOCOL_VERSION, Report,
    Snapshot, Welcome,
};

use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio::time::timeout;

/// How long what should happen at once may take on a machine that is busy.
pub const SOON: Duration = Duration::from_secs(30);

/// Listens for terminators.
pub struct Agent {
    directory: TempDir,
    listener: Option<UnixListener>,
}

impl Agent {
    /// Begins to listen.
    pub fn start() -> Self {
        let mut agent = Self::away();
        agent.come();
        agent
    }

    /// Does not listen yet.
    pub fn away() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            listener: None,
        }
    }

    /// Begins to listen, again or for the first time.
    pub fn come(&mut self) {
        let _ = std::fs::remove_file(self.socket());
        self.listener = Some(UnixListener::bind(self.socket()).unwrap());
    }

    /// Listens no more.
    pub fn go(&mut self) {
        self.listener = None;
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("terminator.sock")
    }

    /// A directory that goes with the agent.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Waits for a terminator and its greeting.
    pub async fn meet(&self) -> Session {
        let listener = self.listener.as_ref().expect("the agent is away");
        let (stream, _) = timeout(SOON, listener.accept())
            .await
            .expect("a terminator")
            .unwrap();
        let mut link = Link::from(stream);
        let FromTerminator::Hello(hello) = link.receive().await.unwrap() else {
            panic!("it does not greet");
        };
        Session {
            link,
            hello,
            known: Report::default(),
        }
    }

    /// Waits for a terminator that brings its own sockets, and takes a duplicate of each.
    pub async fn meet_first(&self) -> (Session, Sockets) {
        let mut session = self.meet().await;
        session.welcome(&Sockets::default()).await;
        let sockets = session.listeners().await;
        (session, sockets)
    }
}

/// A connection with one terminator.
pub struct Session {
    link: Link<FromAgent, FromTerminator>,
    /// How it introduced itself.
    pub hello: Hello,
    /// What it has reported so far, put together.
    known: Report,
}

impl Session {
    /// Takes the terminator, and gives it these sockets.
    pub async fn welcome(&self, sockets: &Sockets) {
        let welcome = FromAgent::Welcome(Welcome {
            protocol: PROTOCOL_VERSION,
            listeners: Listeners {
                sockets: sockets.0.iter().map(|(family, _)| *family).collect(),
            },
        });
        let fds: Vec<_> = sockets.0.iter().map(|(_, socket)| socket.as_fd()).collect();
        self.link.send(&welcome, &fds).await.unwrap();
    }

    /// Says anything.
    pub async fn say(&self, message: FromAgent) {
        self.link.send(&message, &[]).await.unwrap();
    }

    /// Waits for the terminator's own sockets.
    pub async fn listeners(&mut self) -> Sockets {
        let named = self
            .wait("listeners", |message| match message {
                FromTerminator::Listeners(named) => Some(named.sockets.clone()),
                _ => None,
            })
            .await;
        let sockets = self.link.take_fds().into_iter().map(TcpListener::from);
        let sockets = Sockets(named.into_iter().zip(sockets).collect());
        assert!(!sockets.0.is_empty());
        sockets
    }

    /// Hands out a snapshot; the answer is what is wrong with it.
    pub async fn offer(&mut self, snapshot: &Snapshot) -> Vec<Fault> {
        self.say(FromAgent::Snapshot(Box::new(snapshot.clone())))
            .await;
        let verdict = self
            .wait("a verdict", |message| match message {
                FromTerminator::Verdict(verdict) => Some(verdict.clone()),
                _ => None,
            })
            .await;
        assert_eq!(verdict.generation, snapshot.generation);
        verdict.faults
    }

    /// Hands out a snapshot that is in force from now on.
    pub async fn publish(&mut self, snapshot: &Snapshot) {
        assert_eq!(self.offer(snapshot).await, []);
    }

    /// Waits until what was reported so far is as expected.
    pub async fn report(&mut self, what: &str, is_expected: impl Fn(&Report) -> bool) -> Report {
        let began = Instant::now();
        // What is known from before may be of before what the test has just done.
        loop {
            let report = self.wait(what, |message| match message {
                FromTerminator::Report(report) => Some(report.clone()),
                _ => None,
            });
            let report = report.await;
            let mut groups = std::mem::take(&mut self.known.groups);
            groups.retain(|known| report.groups.iter().all(|group| group.uuid != known.uuid));
            groups.retain(|known| !report.gone.contains(&known.uuid));
            groups.extend(report.groups.iter().cloned());
            self.known = Report { groups, ..report };
            if is_expected(&self.known) {
                return self.known.clone();
            }
            let is_late = began.elapsed() > 2 * SOON;
            assert!(!is_late, "waited for {what} in vain: {:?}", self.known);
        }
    }

    /// Waits until it says that it accepts no more.
    pub async fn draining(&mut self) {
        self.wait("the news that it drains", |message| {
            matches!(message, FromTerminator::Draining).then_some(())
        })
        .await;
    }

    /// Waits until the terminator has closed the connection.
    pub async fn closed(&mut self) {
        let end = async {
            loop {
                match self.link.receive().await {
                    Ok(_) => {}
                    Err(LinkError::Closed) => return,
                    Err(error) => panic!("{error}"),
                }
            }
        };
        timeout(SOON, end).await.expect("the end of the connection");
    }

    async fn wait<T>(&mut self, what: &str, take: impl Fn(&FromTerminator) -> Option<T>) -> T {
        let mut last = None;
        let wait = async {
            loop {
                let message = self.link.receive().await.unwrap();
                if let Some(taken) = take(&message) {
                    return taken;
                }
                last = Some(message);
            }
        };
        match timeout(SOON, wait).await {
            Ok(taken) => taken,
            Err(_) => panic!("waited for {what} in vain; the last message was {last:?}"),
        }
    }
}

/// What the agent keeps of listening sockets.
#[derive(Default)]
pub struct Sockets(pub Vec<(ListenerFamily, TcpListener)>);

impl Sockets {
    /// The address of the IPv4 group.
    pub fn ipv4(&self) -> SocketAddr {
        self.address(ListenerFamily::Ipv4)
            .expect("a socket for IPv4")
    }

    /// The address of the first socket of a family.
    pub fn address(&self, family: ListenerFamily) -> Option<SocketAddr> {
        let (_, socket) = self.0.iter().find(|(it, _)| *it == family)?;
        Some(socket.local_addr().unwrap())
    }

    /// Sockets on ports of their own, as of a predecessor, one for each address.
    pub fn open(count: usize) -> Self {
        let open = |_| {
            let socket = TcpListener::bind("127.0.0.1:0").unwrap();
            (ListenerFamily::Ipv4, socket)
        };
        Self((0..count).map(open).collect())
    }

    /// Their addresses.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let address = |(_, socket): &(_, TcpListener)| socket.local_addr().unwrap();
        self.0.iter().map(address).collect()
    }
}
