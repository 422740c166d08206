//! A [`Site`] that is flooded with SYNs from a link of its own, while connections that were there before
//! carry as much as they can.
//!
//! Who sends a flood takes time of the same CPUs. So floods are compared that cost their sender the same:
//! of SYNs that XDP answers, of SYNs that it drops at once, and of SYNs that the kernel answers. They take
//! turns several times a second: whatever else the machine does is the same for all.

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};

use crate::agent::Config;
use crate::bench::report::median;
use crate::bench::traffic::live::{FRAME, Live, SINK};
use crate::client::Connection;
use crate::gateway::{PORT, SERVER_PORT, web_services};
use crate::https::Trust;
use crate::net_link::Netlink;
use crate::netns::NetNs;
use crate::packet_builder::{self, Segment};
use crate::pattern::CHUNK;
use crate::poll::{keep_pace, poll_until, retry};
use crate::redirect_site::Site;
use crate::resident::block_on;
use crate::syscalls::{interface_index, link_address};
use crate::topology::{Shape, Topology, VIP4};
use crate::web::PATIENCE;

/// Where lbterm takes TLS off for a server of the harness.
const TLS_PORT: u16 = 7443;
/// The host name of the group there.
const NAME: &str = "bulk.lb.internal";
/// Whom SYNs claim to come from, but for the lower half.
const CLIENTS: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 0);
/// How long a flood's turn is.
const TURN: Duration = Duration::from_millis(100);
/// SYNs of a turn: 200,000 a second.
const SYNS: u32 = 20_000;

/// Whose SYNs the gateway gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flood {
    /// For a port that is not published: dropped by XDP.
    Dropped,
    /// For port 80, which redirects: answered by XDP.
    Answered,
    /// For port 443: answered by the kernel, with cookies too.
    Kernels,
}

impl Flood {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Dropped, Self::Answered, Self::Kernels];

    const fn port(self) -> u16 {
        match self {
            Self::Dropped => 81,
            Self::Answered => 80,
            Self::Kernels => 443,
        }
    }

    const fn outcome(self) -> &'static str {
        match self {
            Self::Dropped => "drop_unpublished",
            Self::Answered => "answer_cookie",
            Self::Kernels => "pass_terminate",
        }
    }
}

/// What one turn has shown.
#[derive(Clone, Copy, Debug)]
pub struct Turn {
    /// Bytes a second of the connection that XDP forwards, and of the one that lbterm ends.
    pub rates: [f64; 2],
    /// SYNs that the gateway worked off.
    pub syns: u64,
}

/// What a flood left, by the median of its turns.
#[derive(Clone, Copy, Debug)]
pub struct Kept {
    /// Which one.
    pub flood: Flood,
    /// The part of what [`Flood::Dropped`] left in the same round, of both connections.
    pub parts: [f64; 2],
    /// Bytes a second, of both connections.
    pub rates: [f64; 2],
    /// The part of its SYNs that the gateway worked off; the rest found the interface's ring full.
    pub handled: f64,
}

/// The site and its connections, dropped in this order.
pub struct FloodedSite {
    streams: [Stream; 2],
    live: Live,
    /// One for each of [`Flood::ALL`].
    frames: [Vec<u8>; 3],
    attacker: NetNs,
    /// The site.
    pub site: Site,
}

impl FloodedSite {
    /// Everything running; nothing is sent yet.
    pub fn start() -> Result<Self> {
        let mut live = Live::load()?;
        let topology = Topology::build(Shape::Routed, 1)?;
        let attacker = NetNs::new("attacker")?;
        topology
            .gateway
            .run(|| Netlink::open()?.add_veth("cl1", &attacker, "eth0"))?;
        // What is answered ends there.
        attacker.run(|| live.attach(SINK, "eth0"))?;
        let site = Site::start_in(topology, |config: &mut Config| {
            config.client_interfaces.push("cl1".into());
            config.unpublished_ports = Some("drop");
        })?;
        site.wait_for_cookies()?;
        let receiver = site.gateway.topology.gateway.run(|| link_address("cl1"))?;
        let sender = attacker.run(|| link_address("eth0"))?;
        let frame =
            |flood: Flood| spoofed_syn(SocketAddr::new(VIP4, flood.port()), [receiver, sender]);
        Ok(Self {
            streams: streams(&site)?,
            live,
            frames: Flood::ALL.map(frame),
            attacker,
            site,
        })
    }

    /// Lets a flood have its turn.
    pub fn turn(&mut self, flood: Flood) -> Result<Turn> {
        let frame = &self.frames[flood as usize];
        let before = self.site.gateway.agent.outcome(flood.outcome())?;
        let moved = self.moved();
        let begun = Instant::now();
        let live = &mut self.live;
        self.attacker
            .run(|| live.send(frame, interface_index("eth0")?, SYNS))?;
        keep_pace(begun, TURN);
        let took = begun.elapsed().as_secs_f64();
        let now = self.moved();
        let rates = [0, 1].map(|index| (now[index] - moved[index]) as f64 / took);
        self.streams
            .iter_mut()
            .try_for_each(Stream::ensure_running)?;
        Ok(Turn {
            rates,
            syns: self.site.gateway.agent.outcome(flood.outcome())? - before,
        })
    }

    /// Lets all floods have so many turns each; tells what each left of what [`Flood::Dropped`] left of
    /// both connections, and the part of its SYNs that the gateway worked off.
    pub fn compare(&mut self, turns: usize) -> Result<Vec<Kept>> {
        let mut shown: [Vec<Turn>; 3] = Default::default();
        for number in 0..turns {
            // Each is first, second and last equally often.
            for place in 0..3 {
                let flood = Flood::ALL[(number + place) % 3];
                let turn = self.turn(flood)?;
                shown[flood as usize].push(turn);
            }
        }
        let [dropped, ..] = &shown;
        let kept = |flood: Flood| {
            let turns = &shown[flood as usize];
            let part = |stream: usize| {
                let pairs = turns.iter().zip(dropped);
                let mut parts: Vec<f64> = pairs
                    .map(|(turn, dropped)| turn.rates[stream] / dropped.rates[stream])
                    .collect();
                median(&mut parts).unwrap_or_default()
            };
            let rate = |stream: usize| {
                let mut rates: Vec<f64> = turns.iter().map(|turn| turn.rates[stream]).collect();
                median(&mut rates).unwrap_or_default()
            };
            let syns: u64 = turns.iter().map(|turn| turn.syns).sum();
            Kept {
                flood,
                parts: [part(0), part(1)],
                rates: [rate(0), rate(1)],
                handled: syns as f64 / (turns.len() as f64 * f64::from(SYNS)),
            }
        };
        Ok(Flood::ALL.map(kept).to_vec())
    }

    /// Ends both connections; fails if one did not carry what it should.
    pub fn finish(self) -> Result<()> {
        self.streams.into_iter().try_for_each(Stream::finish)
    }

    fn moved(&self) -> [u64; 2] {
        [0, 1].map(|index: usize| self.streams[index].moved.load(Ordering::Relaxed))
    }
}

/// A SYN that the generator makes many clients' of: it varies the lower half of the address and the port.
///
/// The frame is for the first of both link addresses, from the second.
pub fn spoofed_syn(to: SocketAddr, [receiver, sender]: [[u8; 6]; 2]) -> Vec<u8> {
    let from = SocketAddr::new(CLIENTS.into(), 0);
    let headers = packet_builder::tcp(from, to, Segment::Syn, &[]).len();
    let mut frame = packet_builder::tcp(from, to, Segment::Syn, &vec![0; FRAME - headers]);
    frame[..6].copy_from_slice(&receiver);
    frame[6..12].copy_from_slice(&sender);
    frame
}

/// A connection that gets as much as the way carries, read on a thread of its own.
struct Stream {
    moved: Arc<AtomicU64>,
    stopped: Arc<AtomicBool>,
    /// Until it was found to be over.
    thread: Option<JoinHandle<Result<()>>>,
}

impl Stream {
    fn start(
        label: &str,
        read: impl FnOnce(&AtomicU64, &AtomicBool) -> Result<()> + Send + 'static,
    ) -> Result<Self> {
        let (moved, stopped) = <(Arc<AtomicU64>, Arc<AtomicBool>)>::default();
        let theirs = (Arc::clone(&moved), Arc::clone(&stopped));
        let thread = std::thread::Builder::new().name(label.to_owned());
        Ok(Self {
            moved,
            stopped,
            thread: Some(thread.spawn(move || read(&theirs.0, &theirs.1))?),
        })
    }

    fn is_over(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Fails if it has ended, and tells why.
    fn ensure_running(&mut self) -> Result<()> {
        if !self.is_over() {
            return Ok(());
        }
        self.join()?;
        Err(anyhow!("a connection ended before it should"))
    }

    fn finish(mut self) -> Result<()> {
        self.stopped.store(true, Ordering::Relaxed);
        self.join()
    }

    fn join(&mut self) -> Result<()> {
        let thread = self.thread.take().context("it has ended before")?;
        thread.join().map_err(|_| anyhow!("the reader panicked"))?
    }
}

/// The server's command for more bytes than anybody waits for.
const ENDLESS: &str = "send 1000000000000000";

/// Both connections, carrying.
fn streams(site: &Site) -> Result<[Stream; 2]> {
    let gateway = &site.gateway;
    let backend = &gateway.topology.backends[0];
    gateway.create_service("raw", &web_services())?;
    gateway.attach("raw-1", "raw", &backend.addresses)?;
    let to = SocketAddr::new(VIP4, PORT);
    let connect = || Connection::open_within(to, None, PATIENCE);
    let mut forwarded = gateway.topology.client.run(connect)?;
    // Its flow is stored from now on.
    gateway.stop("raw-1", Duration::from_secs(3600))?;
    let forwarded = Stream::start("forwarded", move |moved, stopped| {
        forwarded.command(ENDLESS)?;
        let mut chunk = vec![0; CHUNK];
        while !stopped.load(Ordering::Relaxed) {
            let read = forwarded.stream().read(&mut chunk)?;
            ensure!(read > 0, "the forwarded connection ended");
            moved.fetch_add(read as u64, Ordering::Relaxed);
        }
        Ok(())
    })?;
    let tls = json!({
        "name": "bulk",
        "domains": [{ "name": "bulk" }],
        "services": [{ "port": TLS_PORT, "destination_port": SERVER_PORT, "handlers": ["tls"] }],
    });
    gateway.agent.call("POST", "/v1/services", Some(&tls))?;
    gateway.attach("bulk-1", "bulk", &backend.addresses)?;
    let (client, trust) = (
        gateway.topology.client.clone(),
        Trust::new(&site.browser.authority()?)?,
    );
    // lbterm hears of the group, and of its instance, a little later than the agent's client.
    retry("TLS", PATIENCE, || {
        block_on(&client, || greeted(&trust)).map(drop)
    })?;
    let terminated = Stream::start("terminated", move |moved, stopped| {
        block_on(&client, || download(&trust, moved, stopped))
    })?;
    let mut streams = [forwarded, terminated];
    for stream in &mut streams {
        poll_until("bytes", PATIENCE, || {
            stream.moved.load(Ordering::Relaxed) > 1 << 20 || stream.is_over()
        })?;
        stream.ensure_running()?;
    }
    Ok(streams)
}

/// A connection to the harness's server through lbterm, whose greeting has come.
async fn greeted(trust: &Trust) -> Result<BufReader<impl AsyncRead + AsyncWrite + Unpin>> {
    let to = SocketAddr::new(VIP4, TLS_PORT);
    let mut stream = BufReader::new(trust.connect(to, NAME).await?);
    let read = stream.read_line(&mut String::new()).await?;
    ensure!(read > 0, "the connection ended before the greeting");
    Ok(stream)
}

/// Reads what the harness's server sends through lbterm.
async fn download(trust: &Trust, moved: &AtomicU64, stopped: &AtomicBool) -> Result<()> {
    let mut stream = greeted(trust).await?;
    stream.write_all(format!("{ENDLESS}\n").as_bytes()).await?;
    let mut chunk = vec![0; CHUNK];
    while !stopped.load(Ordering::Relaxed) {
        let read = tokio::time::timeout(PATIENCE, stream.read(&mut chunk)).await??;
        ensure!(read > 0, "the terminated connection ended");
        moved.fetch_add(read as u64, Ordering::Relaxed);
    }
    Ok(())
}
