//! What clients cannot do to it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use lbagent_api::terminator::{Report, ServiceKind, Snapshot};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::agent::{Agent, SOON, Session};
use crate::client::{self, Client};
use crate::instances;
use crate::pki::Authority;
use crate::process::Lbterm;
use crate::snapshots::{group, snapshot};

const NAME: &str = "a.example.com";

struct World {
    _agent: Agent,
    lbterm: Lbterm,
    session: Session,
    address: SocketAddr,
    client: Client,
}

impl World {
    async fn new(change: impl FnOnce(&mut Snapshot)) -> Self {
        let agent = Agent::start();
        let lbterm = Lbterm::start(&agent);
        let (mut session, sockets) = agent.meet_first().await;
        let address = sockets.ipv4();
        let authority = Authority::new();
        let echo = instances::echo().await;
        let group = group(NAME, ServiceKind::Tls, address, &[echo]);
        let mut snapshot = snapshot(1, &[group], &[&authority.issue(&[NAME])]);
        change(&mut snapshot);
        session.publish(&snapshot).await;
        Self {
            _agent: agent,
            lbterm,
            session,
            address,
            client: Client::new(&authority),
        }
    }

    async fn counter(&mut self, name: &str, expected: u64) {
        let is_there = |report: &Report| report.counters.get(name) == Some(&expected);
        self.session.report(name, is_there).await;
    }
}

#[tokio::test]
async fn connections_beyond_a_limit_are_turned_away() {
    for (name, set) in [
        (
            "refused_limit",
            (|snapshot| snapshot.limits.connections = 2) as fn(&mut Snapshot),
        ),
        ("refused_source", |snapshot| {
            snapshot.limits.connections_per_source = 2
        }),
    ] {
        let mut world = World::new(set).await;
        let mut open = Vec::new();
        for _ in 0..2 {
            let mut stream = world.client.connect(world.address, NAME).await.unwrap();
            client::echo(&mut stream, b"in").await.unwrap();
            open.push(stream);
        }
        world.client.connect(world.address, NAME).await.unwrap_err();
        world.counter(name, 1).await;
        // Those that are in are not concerned, and whoever goes makes room.
        for stream in &mut open {
            client::echo(stream, b"still in").await.unwrap();
        }
        open.clear();
        world
            .session
            .report("room", |report| report.connections == 0)
            .await;
        world.client.exchange(world.address, NAME).await.unwrap();
    }
}

#[tokio::test]
async fn a_handshake_takes_no_longer_than_allowed() {
    let mut world = World::new(|snapshot| snapshot.limits.handshake_timeout_ms = 800).await;
    // Silence, the begin of a record, and one byte after the other.
    let began = Instant::now();
    let mut silent = TcpStream::connect(world.address).await.unwrap();
    let mut begun = TcpStream::connect(world.address).await.unwrap();
    begun.write_all(&[22, 3, 1, 2, 0, 1, 0]).await.unwrap();
    for stream in [&mut silent, &mut begun] {
        let read = timeout(SOON, stream.read(&mut [0; 1]))
            .await
            .expect("an end");
        assert!(!matches!(read, Ok(more) if more > 0));
    }
    assert!(
        began.elapsed() >= Duration::from_millis(800),
        "{:?}",
        began.elapsed()
    );
    world.counter("handshake_timeout", 2).await;
}

#[tokio::test]
async fn garbage_instead_of_a_handshake_ends_the_connection() {
    let mut world = World::new(|_| {}).await;
    let garbage: [&[u8]; 4] = [
        b"GET / HTTP/1.1\r\n\r\n",
        &[22, 3, 1, 255, 255, 1],
        &[0; 2000],
        &[21, 3, 3, 0, 2, 2, 40],
    ];
    for bytes in garbage {
        let mut stream = TcpStream::connect(world.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        // An alert, or nothing but the end.
        let _ = timeout(SOON, stream.read_to_end(&mut answer))
            .await
            .expect("an end");
        assert!(answer.len() < 20, "{answer:?}");
    }
    world.counter("handshake_failed", 4).await;
    world.client.exchange(world.address, NAME).await.unwrap();
}

#[tokio::test]
async fn it_has_given_up_what_it_does_not_need() {
    let world = World::new(|_| {}).await;
    assert_eq!(world.lbterm.status("NoNewPrivs:"), "1");
    let log = world.lbterm.log();
    let is_told = log.contains("access to files is given up") || log.contains("has no landlock");
    assert!(is_told, "{log}");
}
