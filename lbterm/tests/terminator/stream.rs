//! `tls` alone: bytes, ends, timeouts, and which instance they go to.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use lbagent_api::terminator::{Group, InstanceState, Report, ServiceKind, Snapshot};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use crate::agent::{Agent, SOON, Session};
use crate::client::{self, Client};
use crate::instances;
use crate::pki::Authority;
use crate::process::Lbterm;
use crate::snapshots::{group, snapshot};

const NAME: &str = "a.example.com";

/// A terminator with one `tls` group.
struct World {
    _agent: Agent,
    lbterm: Lbterm,
    session: Session,
    address: SocketAddr,
    client: Client,
    snapshot: Snapshot,
}

impl World {
    async fn new(instances: &[SocketAddr], change: impl FnOnce(&mut Group)) -> Self {
        let agent = Agent::start();
        let lbterm = Lbterm::start(&agent);
        let (mut session, sockets) = agent.meet_first().await;
        let address = sockets.ipv4();
        let authority = Authority::new();
        let mut group = group(NAME, ServiceKind::Tls, address, instances);
        change(&mut group);
        let snapshot = snapshot(1, &[group], &[&authority.issue(&[NAME])]);
        session.publish(&snapshot).await;
        Self {
            _agent: agent,
            lbterm,
            session,
            address,
            client: Client::new(&authority),
            snapshot,
        }
    }

    async fn connect(&self) -> TlsStream<TcpStream> {
        let stream = self.client.connect(self.address, NAME).await;
        stream.unwrap_or_else(|error| panic!("{error}\n{}", self.lbterm.log()))
    }

    async fn group_counter(&mut self, name: &str, expected: u64) -> Report {
        let is_there = |report: &Report| {
            report
                .groups
                .first()
                .and_then(|group| group.counters.get(name))
                == Some(&expected)
        };
        self.session.report(name, is_there).await
    }
}

/// Bytes that come again only after a long time, so that a piece that is lost, twice or at another
/// place shows.
struct Pattern(u64);

impl Pattern {
    fn fill(&mut self, bytes: &mut [u8]) {
        for eight in bytes.chunks_mut(8) {
            // xorshift64*
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            let word = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes();
            eight.copy_from_slice(&word[..eight.len()]);
        }
    }
}

const PIECE: usize = 64 << 10;

async fn send(mut to: impl AsyncWrite + Unpin, seed: u64, pieces: usize) {
    let mut pattern = Pattern(seed);
    let mut piece = vec![0; PIECE];
    for _ in 0..pieces {
        pattern.fill(&mut piece);
        to.write_all(&piece).await.unwrap();
    }
    to.shutdown().await.unwrap();
}

async fn expect(mut from: impl AsyncRead + Unpin, seed: u64, pieces: usize) {
    let mut pattern = Pattern(seed);
    let mut expected = vec![0; PIECE];
    let mut piece = vec![0; PIECE];
    for number in 0..pieces {
        pattern.fill(&mut expected);
        from.read_exact(&mut piece).await.unwrap();
        assert!(piece == expected, "piece {number} differs");
    }
    assert_eq!(
        from.read(&mut piece).await.unwrap(),
        0,
        "more than was sent"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn both_ways_carry_their_bytes_to_the_end_whichever_ends_first() {
    let (address, mut connections) = instances::by_hand().await;
    let mut world = World::new(&[address], |_| {}).await;
    let mut in_all = [0; 2];
    // 320 MB one way while the other one has ended long ago, and both at once.
    for (up, down) in [
        (5_000, 10),
        (10, 5_000),
        (2_000, 2_000),
        (0, 1),
        (1, 0),
        (0, 0),
    ] {
        let stream = world.connect().await;
        let instance = connections.recv().await.unwrap();
        let (from_client, to_client) = tokio::io::split(stream);
        let (from_instance, to_instance) = instance.into_split();
        let tasks = [
            tokio::spawn(send(to_client, 1, up)),
            tokio::spawn(expect(from_instance, 1, up)),
            tokio::spawn(send(to_instance, 2, down)),
            tokio::spawn(expect(from_client, 2, down)),
        ];
        for task in tasks {
            timeout(4 * SOON, task).await.expect("an end").unwrap();
        }
        in_all[0] += up * PIECE;
        in_all[1] += down * PIECE;
    }
    // The last stream has no bytes: its end is what tells that all are counted.
    let have_ended = |report: &Report| {
        let mut instances = report.groups.iter().flat_map(|group| &group.instances);
        instances.any(|instance| instance.served == 6 && instance.in_flight == 0)
    };
    let report = world.session.report("six ends", have_ended).await;
    let counters = &report.groups[0].counters;
    assert_eq!(counters["bytes_in"], in_all[0] as u64);
    assert_eq!(counters["bytes_out"], in_all[1] as u64);
    assert_eq!(counters["streams"], 6);
    let instance = &report.groups[0].instances[0];
    assert_eq!(instance.failed, 0);
}

#[tokio::test]
async fn a_receiver_that_does_not_read_holds_its_sender_back() {
    let (address, mut connections) = instances::by_hand().await;
    let world = World::new(&[address], |_| {}).await;
    let mut stream = world.connect().await;
    let mut instance = connections.recv().await.unwrap();
    // The sender gets as far as the kernels' buffers and what lbterm keeps, and no farther.
    let piece = vec![7; PIECE];
    let mut sent = 0;
    while let Ok(written) = timeout(Duration::from_secs(1), stream.write(&piece)).await {
        sent += written.unwrap();
        assert!(sent < 256 << 20, "nothing holds the sender back");
    }
    let mut received = 0;
    let mut buffer = vec![0; PIECE];
    while received < sent {
        let more = timeout(SOON, instance.read(&mut buffer))
            .await
            .expect("more bytes")
            .unwrap();
        assert!(more > 0, "{received} of {sent}");
        received += more;
        // What rustls has sealed and not sent yet.
        let _ = timeout(Duration::from_millis(1), stream.flush()).await;
    }
}

#[tokio::test]
async fn an_end_without_close_notify_is_a_reset_for_the_instance() {
    let (address, mut connections) = instances::by_hand().await;
    let world = World::new(&[address], |_| {}).await;
    let mut stream = world.connect().await;
    stream.write_all(b"half of").await.unwrap();
    stream.flush().await.unwrap();
    let mut instance = connections.recv().await.unwrap();
    instance.read_exact(&mut [0; 7]).await.unwrap();
    // Only the TCP connection ends: somebody may have cut it.
    let (mut tcp, _tls) = stream.into_inner();
    tcp.shutdown().await.unwrap();
    let error = timeout(SOON, instance.read(&mut [0; 1]))
        .await
        .expect("an end")
        .unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn an_instance_that_breaks_off_does_not_look_complete() {
    let (address, mut connections) = instances::by_hand().await;
    let mut world = World::new(&[address], |_| {}).await;
    let mut stream = world.connect().await;
    let instance = connections.recv().await.unwrap();
    socket2::SockRef::from(&instance)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(instance);
    let error = timeout(SOON, stream.read(&mut [0; 1]))
        .await
        .expect("an end")
        .unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
    let failed = |report: &Report| {
        let instances = report.groups.first().map(|group| &group.instances);
        instances.is_some_and(|instances| instances.iter().any(|it| it.failed == 1))
    };
    world.session.report("a failure", failed).await;
}

#[tokio::test]
async fn silence_ends_a_connection_and_bytes_keep_it() {
    let echo = instances::echo().await;
    let idle = Duration::from_millis(1500);
    let set = |group: &mut Group| group.services[0].policy.idle_timeout_ms = 1500;
    let mut world = World::new(&[echo], set).await;
    let mut stream = world.connect().await;
    let began = Instant::now();
    let mut last = began;
    while began.elapsed() < idle * 2 {
        // Before it, so that lbterm's clock begins later, whenever this task goes on.
        last = Instant::now();
        client::echo(&mut stream, b"x").await.unwrap();
    }
    // An end in good order, because nothing was on the way.
    let read = timeout(SOON, stream.read(&mut [0; 1]))
        .await
        .expect("an end")
        .unwrap();
    assert_eq!(read, 0);
    assert!(last.elapsed() >= idle, "{:?}", last.elapsed());
    world.group_counter("idle_timeout", 1).await;
}

#[tokio::test]
async fn the_next_address_and_another_instance_are_tried() {
    let echo = instances::echo().await;
    let with_dead_address = |group: &mut Group| {
        // Nobody listens there at the same port.
        group.instances[0]
            .addresses
            .insert(0, "127.0.0.9".parse().unwrap());
    };
    let mut world = World::new(&[echo], with_dead_address).await;
    let mut stream = world.connect().await;
    client::echo(&mut stream, b"by the second address")
        .await
        .unwrap();
    let report = world.group_counter("connect_failed", 1).await;
    assert_eq!(report.groups[0].instances[0].failed, 0);

    // Two dead instances and one that lives: whoever is tried first, the living one answers.
    let with_dead_instances = |group: &mut Group| {
        let mut dead = group.instances[0].clone();
        for (last, uuid) in [(8, uuid::Uuid::new_v4()), (9, uuid::Uuid::new_v4())] {
            dead.uuid = uuid;
            dead.addresses = vec![std::net::IpAddr::from([127, 0, 0, last])];
            group.instances.push(dead.clone());
        }
    };
    let mut world = World::new(&[echo], with_dead_instances).await;
    for _ in 0..30 {
        let mut stream = world.connect().await;
        client::echo(&mut stream, b"by the living one")
            .await
            .unwrap();
    }
    let report = world.session.report("ejected instances", |report| {
        let groups = report.groups.iter();
        groups
            .flat_map(|group| &group.instances)
            .filter(|it| it.is_ejected)
            .count()
            == 2
    });
    report.await;
}

#[tokio::test]
async fn nobody_there_ends_the_connection() {
    let nobody = instances::nobody().await;
    let mut world = World::new(&[nobody], |_| {}).await;
    let mut stream = world.connect().await;
    let read = timeout(SOON, stream.read(&mut [0; 1]))
        .await
        .expect("an end");
    assert!(!matches!(read, Ok(more) if more > 0));
    world.group_counter("unreachable", 1).await;

    world.snapshot.generation = 2;
    world.snapshot.groups[0].instances[0].state = InstanceState::Draining;
    let snapshot = world.snapshot.clone();
    world.session.publish(&snapshot).await;
    let mut stream = world.connect().await;
    let read = timeout(SOON, stream.read(&mut [0; 1]))
        .await
        .expect("an end");
    assert!(!matches!(read, Ok(more) if more > 0));
    world.group_counter("no_instance", 1).await;
}

#[tokio::test]
async fn connecting_takes_no_longer_than_allowed() {
    /// Whoever has no answer by then meets a full queue, not a busy machine.
    const FULL: Duration = Duration::from_secs(2);
    // The kernel drops further SYNs, as a host that is gone would.
    let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    full.bind(&any.into()).unwrap();
    full.listen(0).unwrap();
    let address = full.local_addr().unwrap().as_socket().unwrap();
    let mut waiting = Vec::new();
    while let Ok(connected) = timeout(FULL, TcpStream::connect(address)).await {
        waiting.push(connected.unwrap());
        assert!(waiting.len() < 100, "the queue does not fill");
    }
    let set = |group: &mut Group| group.services[0].policy.connect_timeout_ms = 500;
    let mut world = World::new(&[address], set).await;
    let began = Instant::now();
    let mut stream = world.connect().await;
    let _ = timeout(SOON, stream.read(&mut [0; 1]))
        .await
        .expect("an end");
    assert!(began.elapsed() >= Duration::from_millis(500));
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    world.group_counter("unreachable", 1).await;
}

#[tokio::test]
async fn the_hard_limit_of_an_instance_is_not_exceeded() {
    let echo = instances::echo().await;
    let mut world = World::new(&[echo], |group| {
        group.soft_limit = 1;
        group.hard_limit = 2;
    })
    .await;
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut stream = world.connect().await;
        client::echo(&mut stream, b"in").await.unwrap();
        open.push(stream);
    }
    let mut third = world.connect().await;
    let read = timeout(SOON, third.read(&mut [0; 1]))
        .await
        .expect("an end");
    assert!(!matches!(read, Ok(more) if more > 0));
    let report = world.group_counter("over_hard_limit", 1).await;
    assert_eq!(report.groups[0].counters["over_soft_limit"], 1);
    assert_eq!(report.groups[0].instances[0].in_flight, 2);
    // A new snapshot does not forget who is there.
    world.snapshot.generation = 2;
    let snapshot = world.snapshot.clone();
    world.session.publish(&snapshot).await;
    let mut fourth = world.connect().await;
    let read = timeout(SOON, fourth.read(&mut [0; 1]))
        .await
        .expect("an end");
    assert!(!matches!(read, Ok(more) if more > 0));
    open.clear();
    let is_empty = |report: &Report| report.groups[0].instances[0].in_flight == 0;
    world.session.report("an end of both", is_empty).await;
    let mut stream = world.connect().await;
    client::echo(&mut stream, b"again").await.unwrap();
}

#[tokio::test]
async fn an_instance_can_be_told_who_the_client_is() {
    let (address, mut connections) = instances::by_hand().await;
    let set = |group: &mut Group| group.services[0].policy.send_proxy = true;
    let world = World::new(&[address], set).await;
    let mut stream = world.connect().await;
    stream.write_all(b"first bytes").await.unwrap();
    stream.flush().await.unwrap();
    let me = stream.get_ref().0.local_addr().unwrap();
    let mut instance = connections.recv().await.unwrap();
    let mut head = [0; 16];
    instance.read_exact(&mut head).await.unwrap();
    let length = usize::from(u16::from_be_bytes([head[14], head[15]]));
    let mut bytes = head.to_vec();
    bytes.resize(16 + length, 0);
    instance.read_exact(&mut bytes[16..]).await.unwrap();
    let header = ppp::v2::Header::try_from(&bytes[..]).unwrap();
    let (SocketAddr::V4(me), SocketAddr::V4(dialled)) = (me, world.address) else {
        panic!("IPv4");
    };
    let expected = ppp::v2::IPv4::new(*me.ip(), *dialled.ip(), me.port(), dialled.port());
    assert_eq!(header.addresses, ppp::v2::Addresses::from(expected));
    let mut first = [0; 11];
    instance.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"first bytes");
}
