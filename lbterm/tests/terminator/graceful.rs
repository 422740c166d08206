//! Ends and upgrades.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use lbagent_api::terminator::{FromAgent, ServiceKind, Snapshot};
use nix::sys::signal::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::agent::{Agent, SOON, Session, Sockets};
use crate::client::{self, Client};
use crate::instances;
use crate::pki::Authority;
use crate::process::Lbterm;
use crate::snapshots::{group, snapshot};

const NAME: &str = "a.example.com";

struct World {
    agent: Agent,
    lbterm: Lbterm,
    session: Session,
    sockets: Sockets,
    address: SocketAddr,
    client: Client,
    snapshot: Snapshot,
}

impl World {
    async fn new(arguments: &[&str]) -> Self {
        let agent = Agent::start();
        let lbterm = Lbterm::start_with(&agent, arguments);
        let (mut session, sockets) = agent.meet_first().await;
        let address = sockets.ipv4();
        let authority = Authority::new();
        let echo = instances::echo().await;
        let group = group(NAME, ServiceKind::Tls, address, &[echo]);
        let snapshot = snapshot(1, &[group], &[&authority.issue(&[NAME])]);
        session.publish(&snapshot).await;
        Self {
            agent,
            lbterm,
            session,
            sockets,
            address,
            client: Client::new(&authority),
            snapshot,
        }
    }

    /// Takes whoever connects next as the successor, as the agent does.
    async fn succeed(&mut self, deadline: Duration) -> Session {
        let mut successor = self.agent.meet().await;
        assert!(!successor.hello.has_listeners);
        successor.welcome(&self.sockets).await;
        successor.publish(&self.snapshot).await;
        let deadline_ms = deadline.as_millis().try_into().unwrap();
        self.session.say(FromAgent::Drain { deadline_ms }).await;
        self.session.draining().await;
        std::mem::replace(&mut self.session, successor)
    }
}

/// Connects, exchanges bytes and closes, over and over; any failure ends it.
struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    tasks: Vec<JoinHandle<()>>,
}

impl Load {
    fn start(client: &Client, address: SocketAddr) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let done = Arc::<AtomicU64>::default();
        let run = |_| {
            let (stop, done, client) = (Arc::clone(&stop), Arc::clone(&done), client.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    client.exchange(address, NAME).await.unwrap();
                    done.fetch_add(1, Ordering::Relaxed);
                }
            })
        };
        let tasks = (0..4).map(run).collect();
        Self { stop, done, tasks }
    }

    /// Waits until so many more are done.
    async fn go_on(&self, more: u64) {
        let until = self.done.load(Ordering::Relaxed) + more;
        while self.done.load(Ordering::Relaxed) < until {
            let failed = self.tasks.iter().any(JoinHandle::is_finished);
            assert!(!failed, "an exchange failed");
            tokio::task::yield_now().await;
        }
    }

    async fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.unwrap();
        }
        self.done.load(Ordering::Relaxed)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn replacing_the_process_refuses_and_breaks_nothing() {
    let mut world = World::new(&["--workers", "2"]).await;
    let mut kept = world.client.connect(world.address, NAME).await.unwrap();
    client::echo(&mut kept, b"first").await.unwrap();
    let load = Load::start(&world.client, world.address);
    for round in 0..5 {
        load.go_on(40).await;
        // Whoever upgrades may have more or fewer workers.
        let workers = ["1", "2", "3"][round % 3];
        let successor = Lbterm::start_with(&world.agent, &["--workers", workers]);
        let _predecessor = world.succeed(Duration::from_secs(60)).await;
        let mut old = std::mem::replace(&mut world.lbterm, successor);
        client::echo(&mut kept, b"through the old one")
            .await
            .unwrap();
        drop(kept);
        // Its last connection has ended, so it need not wait for the deadline.
        assert!(old.ended().await.success(), "{}", old.log());
        kept = world.client.connect(world.address, NAME).await.unwrap();
        client::echo(&mut kept, b"through the new one")
            .await
            .unwrap();
    }
    load.go_on(40).await;
    assert!(load.stop().await >= 240);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminator_that_dies_loses_no_connection_that_waits() {
    let mut world = World::new(&["--workers", "2"]).await;
    world.lbterm.signal(Signal::SIGKILL);
    world.lbterm.ended().await;
    // The agent holds the sockets, so clients can connect; the handshake waits for the next one.
    let address = world.address;
    let waiting: Vec<_> = (0..20)
        .map(|_| {
            let client = world.client.clone();
            tokio::spawn(async move { client.exchange(address, NAME).await })
        })
        .collect();
    world.lbterm = Lbterm::start(&world.agent);
    let mut session = world.agent.meet().await;
    session.welcome(&world.sockets).await;
    session.publish(&world.snapshot).await;
    for waiting in waiting {
        waiting.await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hang_up_starts_a_successor_from_the_file_on_disk() {
    let mut world = World::new(&["--workers", "2"]).await;
    let load = Load::start(&world.client, world.address);
    load.go_on(20).await;
    world.lbterm.signal(Signal::SIGHUP);
    world.succeed(Duration::from_secs(60)).await;
    assert!(
        world.lbterm.ended().await.success(),
        "{}",
        world.lbterm.log()
    );
    load.go_on(20).await;
    load.stop().await;
    // The successor's process is nobody's child any more; this ends it.
    world.session.say(FromAgent::Drain { deadline_ms: 0 }).await;
    world.session.closed().await;
}

#[tokio::test]
async fn sigterm_finishes_what_there_is_and_a_second_one_does_not() {
    let mut world = World::new(&["--workers", "2", "--drain-timeout", "600"]).await;
    let mut open = world.client.connect(world.address, NAME).await.unwrap();
    client::echo(&mut open, b"before").await.unwrap();
    world.lbterm.signal(Signal::SIGTERM);
    world.session.draining().await;
    client::echo(&mut open, b"after").await.unwrap();
    drop(open);
    assert!(
        world.lbterm.ended().await.success(),
        "{}",
        world.lbterm.log()
    );

    let mut world = World::new(&["--workers", "2", "--drain-timeout", "600"]).await;
    let mut open = world.client.connect(world.address, NAME).await.unwrap();
    client::echo(&mut open, b"before").await.unwrap();
    world.lbterm.signal(Signal::SIGTERM);
    world.session.draining().await;
    world.lbterm.signal(Signal::SIGTERM);
    assert!(
        world.lbterm.ended().await.success(),
        "{}",
        world.lbterm.log()
    );
    client::echo(&mut open, b"too late").await.unwrap_err();
}

#[tokio::test]
async fn the_deadline_ends_what_does_not_end_by_itself() {
    let mut world = World::new(&["--workers", "2", "--drain-timeout", "1.5"]).await;
    let mut open = world.client.connect(world.address, NAME).await.unwrap();
    client::echo(&mut open, b"before").await.unwrap();
    let began = Instant::now();
    world.lbterm.signal(Signal::SIGTERM);
    assert!(world.lbterm.ended().await.success());
    assert!(
        began.elapsed() >= Duration::from_millis(1500),
        "{:?}",
        began.elapsed()
    );
    assert!(
        world
            .lbterm
            .log()
            .contains("the time to finish is over open=1")
    );
}

#[tokio::test]
async fn systemd_is_told_when_it_serves() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notify");
    let notices = tokio::net::UnixDatagram::bind(&path).unwrap();
    let agent = Agent::start();
    let mut command = crate::process::command();
    let mut child = command
        .arg("--socket")
        .arg(agent.socket())
        .env("NOTIFY_SOCKET", &path)
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let (mut session, _sockets) = agent.meet_first().await;
    session.publish(&snapshot(1, &[], &[])).await;
    let mut text = vec![0; 200];
    let length = notices.recv(&mut text).await.unwrap();
    let expected = format!("READY=1\nMAINPID={}", child.id());
    assert_eq!(String::from_utf8_lossy(&text[..length]), expected);
    session.say(FromAgent::Drain { deadline_ms: 1000 }).await;
    assert!(child.wait().unwrap().success());
}

#[tokio::test]
async fn a_successor_goes_on_with_the_access_log() {
    let agent = Agent::start();
    let log = agent.directory().join("access.log");
    let log_option = format!("--access-log={}", log.display());
    let mut lbterm = Lbterm::start_with(&agent, &["--workers", "1", &log_option]);
    let (mut session, sockets) = agent.meet_first().await;
    let origin = instances::http().await;
    let group = group(NAME, ServiceKind::Http, sockets.ipv4(), &[origin]);
    let wanted = snapshot(1, &[group], &[]);
    session.publish(&wanted).await;
    get(sockets.ipv4(), "/first").await;
    lbterm.signal(Signal::SIGHUP);
    let mut successor = agent.meet().await;
    successor.welcome(&sockets).await;
    successor.publish(&wanted).await;
    session
        .say(FromAgent::Drain {
            deadline_ms: 60_000,
        })
        .await;
    assert!(lbterm.ended().await.success(), "{}", lbterm.log());
    get(sockets.ipv4(), "/second").await;
    successor
        .say(FromAgent::Drain {
            deadline_ms: 60_000,
        })
        .await;
    successor.closed().await;
    let lines = std::fs::read_to_string(&log).unwrap();
    let lines: Vec<_> = lines.lines().collect();
    assert!(
        lines.len() == 2 && lines[0].contains("/first") && lines[1].contains("/second"),
        "{lines:?}"
    );
}

#[tokio::test]
async fn the_access_log_is_sampled_on_demand() {
    let agent = Agent::start();
    let log = agent.directory().join("access.log");
    let log_option = format!("--access-log={}", log.display());
    let options = ["--workers", "1", &log_option, "--access-log-sample=0"];
    let mut lbterm = Lbterm::start_with(&agent, &options);
    let (mut session, sockets) = agent.meet_first().await;
    let origin = instances::http().await;
    let group = group(NAME, ServiceKind::Http, sockets.ipv4(), &[origin]);
    session.publish(&snapshot(1, &[group], &[])).await;
    get(sockets.ipv4(), "/before").await;
    for (signal, said, path) in [
        (Signal::SIGUSR1, "one_of=1", "/asked-for"),
        (Signal::SIGUSR2, "one_of=0", "/after"),
    ] {
        lbterm.signal(signal);
        let heard = async {
            while !lbterm.log().contains(said) {
                tokio::task::yield_now().await;
            }
        };
        timeout(SOON, heard).await.expect(said);
        get(sockets.ipv4(), path).await;
    }
    lbterm.signal(Signal::SIGTERM);
    assert!(lbterm.ended().await.success(), "{}", lbterm.log());
    let lines = std::fs::read_to_string(&log).unwrap();
    assert!(
        lines.lines().count() == 1 && lines.contains("/asked-for"),
        "{lines}"
    );
}

/// One request, which is answered with 200.
async fn get(address: SocketAddr, path: &str) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: {NAME}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}
