//! Steady traffic that must not lose a packet, whatever happens to the agent meanwhile.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};

use crate::client::{Connection, udp_socket_here};
use crate::gateway::PORT;
use crate::netns::NetNs;
use crate::poll::{SOON, keep_pace, poll_until};
use crate::topology::VIPS;

/// Flows to each VIP, by each transport.
const FLOWS: usize = 16;
/// Pause between two datagrams.
const PACE: Duration = Duration::from_micros(500);
/// Datagrams of one flow without an answer at most. All flows' together fit the queues of devices and
/// sockets, also when a backend or the kernel gets no CPU for a while: what is lost then would be lost by
/// the load itself.
const OPEN: usize = 4;
/// Pause between two echoes by TCP.
const TCP_PACE: Duration = Duration::from_millis(2);

/// Paced UDP datagrams with sequence numbers, each of which must be answered once and by the backend
/// that answered its flow first; and TCP connections that echo all the time.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    udp: JoinHandle<Result<u64>>,
    tcp: JoinHandle<Result<u64>>,
}

/// What went through.
#[derive(Clone, Copy, Debug)]
pub struct Carried {
    /// Datagrams, all of them answered.
    pub datagrams: u64,
    /// Echoes by TCP.
    pub echoes: u64,
}

impl Load {
    /// Opens the flows from a namespace, to [`PORT`] of all VIPs, and keeps them busy.
    pub fn start(ns: &NetNs) -> Result<Self> {
        let (stop, answered) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let to = |vip: IpAddr| SocketAddr::new(vip, PORT);
        let (mut flows, mut connections) = (Vec::new(), Vec::new());
        for vip in VIPS {
            for _ in 0..FLOWS {
                flows.push(ns.run(|| Flow::open(to(vip)))?);
                let mut connection = Connection::open(ns, to(vip))?;
                connection.command("echo")?;
                connections.push(connection);
            }
        }
        let (udp_stop, tcp_stop) = (Arc::clone(&stop), Arc::clone(&stop));
        let count = Arc::clone(&answered);
        let spawn = thread::Builder::new;
        Ok(Self {
            stop,
            answered,
            udp: spawn()
                .name("load udp".into())
                .spawn(move || send_datagrams(flows, &udp_stop, &count))?,
            tcp: spawn()
                .name("load tcp".into())
                .spawn(move || echo_all(connections, &tcp_stop))?,
        })
    }

    /// Waits until much more of the traffic has passed: every flow several times.
    pub fn wait_for_more(&self) -> Result<()> {
        let before = self.answered.load(Ordering::Relaxed);
        let more = poll_until("more answers to the load", SOON, || {
            self.udp.is_finished()
                || self.tcp.is_finished()
                || self.answered.load(Ordering::Relaxed) > before + 200
        });
        more.context("datagrams were lost, or nobody answers")?;
        ensure!(!self.udp.is_finished(), "the datagrams ended early");
        ensure!(!self.tcp.is_finished(), "a connection broke");
        Ok(())
    }

    /// Stops sending and demands that nothing was lost, moved or reset.
    pub fn finish(self) -> Result<Carried> {
        self.stop.store(true, Ordering::Relaxed);
        let join = |thread: JoinHandle<Result<u64>>| {
            thread
                .join()
                .map_err(|_| anyhow!("a thread of the load panicked"))?
        };
        let (datagrams, echoes) = (join(self.udp), join(self.tcp));
        Ok(Carried {
            datagrams: datagrams.context("datagrams")?,
            echoes: echoes.context("echoes by TCP")?,
        })
    }
}

/// One flow of datagrams.
struct Flow {
    socket: UdpSocket,
    sent: u64,
    /// Sequence numbers without an answer, and when they were sent.
    open: BTreeMap<u64, Instant>,
    backend: Option<String>,
}

impl Flow {
    fn open(to: SocketAddr) -> Result<Self> {
        let socket = udp_socket_here(to, None)?;
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            sent: 0,
            open: BTreeMap::new(),
            backend: None,
        })
    }

    fn send(&mut self) -> Result<()> {
        let number = self.sent;
        self.open.insert(number, Instant::now());
        self.sent += 1;
        self.socket
            .send(&number.to_be_bytes())
            .map(drop)
            .with_context(|| format!("datagram {number}"))
    }

    /// Takes every answer that is there; returns how many.
    fn receive(&mut self) -> Result<u64> {
        let mut count = 0;
        let mut buffer = [0; 512];
        loop {
            let length = match self.socket.recv(&mut buffer) {
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(count),
                Err(error) => return Err(error).context("receiving"),
            };
            let (greeting, number) = buffer[..length]
                .split_last_chunk::<8>()
                .context("a short answer")?;
            let number = u64::from_be_bytes(*number);
            ensure!(
                self.open.remove(&number).is_some(),
                "answer {number} came twice"
            );
            let name = String::from_utf8_lossy(greeting);
            let name = name.split(' ').next().unwrap_or_default().to_owned();
            match &self.backend {
                Some(first) => ensure!(*first == name, "the flow moved from {first} to {name}"),
                None => self.backend = Some(name),
            }
            count += 1;
        }
    }
}

fn send_datagrams(mut flows: Vec<Flow>, stop: &AtomicBool, answered: &AtomicU64) -> Result<u64> {
    let start = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        for flow in &mut flows {
            // From one to the next: what was late is not made up for by a burst.
            let turn = Instant::now();
            if flow.open.len() < OPEN {
                flow.send()?;
            }
            keep_pace(turn, PACE);
            answered.fetch_add(flow.receive()?, Ordering::Relaxed);
        }
    }
    let missing = |flows: &[Flow]| flows.iter().map(|flow| flow.open.len()).sum::<usize>();
    let settled = poll_until("the last answers", SOON, || {
        let received = flows
            .iter_mut()
            .try_for_each(|flow| flow.receive().map(drop));
        received.is_err() || missing(&flows) == 0
    });
    if settled.is_err() || missing(&flows) > 0 {
        let when = |flow: &Flow| {
            let sent = flow.open.values().map(|sent| sent.duration_since(start));
            sent.collect::<Vec<_>>()
        };
        let lost: Vec<_> = flows.iter().flat_map(when).collect();
        bail!("{} datagrams lost; sent at {lost:?}", lost.len());
    }
    Ok(flows.iter().map(|flow| flow.sent).sum())
}

fn echo_all(mut connections: Vec<Connection>, stop: &AtomicBool) -> Result<u64> {
    let start = Instant::now();
    let mut echoes = 0;
    while !stop.load(Ordering::Relaxed) {
        for connection in &mut connections {
            connection
                .echo("still there?")
                .with_context(|| format!("connection to {}", connection.greeting.name))?;
            echoes += 1;
            keep_pace(start, TCP_PACE * echoes as u32);
        }
    }
    Ok(echoes)
}
