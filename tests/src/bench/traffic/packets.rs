//! Packets per second on one CPU: generator, gateway and sink take turns on it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::json;

use super::figures::Results;
use super::link::{BACKENDS, CLIENTS, Link, backend};
use super::live::{self, Expected, Live};
use super::stations::publish_settled;
use super::{Measure, Options, Way, rivals};
use crate::agent::{Agent, Config};
use crate::bench::programs::pin_to;
use crate::gateway::service;
use crate::packet_builder::{self, Segment};
use crate::syscalls::{Offload, interface_index, set_offload};
use crate::topology::VIP4;

const WAYS: [Way; 7] = [
    Way::XdpTx,
    Way::XdpForward,
    Way::Routed,
    Way::LbagentNat,
    Way::LbagentL2,
    Way::LbagentIpip,
    Way::Nftables,
];

/// Published port.
pub(super) const PORT: u16 = 80;
/// Port of the backends where it is rewritten.
pub(super) const DESTINATION_PORT: u16 = 8080;
/// IP protocols (IANA).
pub(super) const TCP: u8 = 6;
const IPIP: u8 = 4;

/// What to measure, and how much to send.
pub(super) struct Effort {
    ways: Vec<Way>,
    rounds: u32,
    frames: u32,
}

impl Effort {
    pub(super) fn of(options: &Options) -> Self {
        Self {
            ways: options.chosen(&WAYS),
            rounds: if options.quick { 3 } else { 9 },
            frames: 1_000_000,
        }
    }
}

/// A gateway to measure. The agent is dropped first.
struct Track {
    way: Way,
    _agent: Option<Agent>,
    link: Link,
    frame: Vec<u8>,
    expected: Expected,
    /// How many link addresses the frames must be sent to.
    stations: u8,
}

/// Runs all rounds.
pub(super) fn measure(effort: &Effort, results: &mut Results) -> Result<()> {
    if effort.ways.is_empty() {
        return Ok(());
    }
    let mut live = Live::load()?;
    let mut tracks = Vec::new();
    for way in &effort.ways {
        let track = Track::build(*way, &mut live)
            .and_then(|track| warm_up(&track, &mut live).map(|()| track));
        match track {
            Ok(track) => tracks.push(track),
            // A goal that is not measured counts as missed.
            Err(error) => println!("{} is not measured: {error:#}", way.name()),
        }
    }
    println!(
        "{} rounds of {} live frames, {BACKENDS} backends",
        effort.rounds, effort.frames
    );
    let mut lost: BTreeMap<Way, u64> = BTreeMap::new();
    for round in 1..=effort.rounds {
        for track in &tracks {
            let (frames, took) = track
                .run(&mut live, effort.frames)
                .with_context(|| track.way.name())?;
            let rate = frames as f64 / took.as_secs_f64() / 1e6;
            results.add(Measure::Packets, track.way, rate);
            *lost.entry(track.way).or_default() += u64::from(effort.frames) - frames;
        }
        eprintln!("packets: round {round} of {}", effort.rounds);
    }
    let sent = f64::from(effort.rounds) * f64::from(effort.frames);
    for (way, lost) in lost.into_iter().filter(|(_, lost)| *lost > 0) {
        let percent = lost as f64 / sent * 100.0;
        println!(
            "{}: {percent:.2} % of the frames did not arrive and do not count",
            way.name()
        );
    }
    Ok(())
}

impl Track {
    fn build(way: Way, live: &mut Live) -> Result<Self> {
        let link = Link::build()?;
        // A test run on behalf of an interface needs receive queues, which veth has only while a
        // native program is attached; and frames sent by XDP arrive only where there is one.
        link.client.run(|| live.attach(live::SINK, "cl1"))?;
        link.sink.run(|| live.attach(live::SINK, "be1"))?;
        let (to, port) = match way {
            Way::Routed => (backend(0), DESTINATION_PORT),
            _ => (vip()?, PORT),
        };
        let to_port = SocketAddr::new(to.into(), port);
        let frame = template(&link, CLIENTS, to_port, Segment::Ack)?;
        let mut track = Self {
            way,
            _agent: None,
            frame,
            expected: Expected {
                protocol: TCP,
                destination: to.octets(),
                leading: 4,
            },
            stations: 1,
            link,
        };
        match way {
            Way::XdpTx => track.link.gateway.run(|| live.attach(live::TX, "cl0"))?,
            Way::XdpForward => track
                .link
                .gateway
                .run(|| live.attach(live::FORWARD, "cl0"))?,
            Way::LbagentNat => track.publish("nat", DESTINATION_PORT)?,
            // Without NAT nobody can rewrite the port.
            Way::LbagentL2 => track.publish("dsr-l2", PORT)?,
            Way::LbagentIpip => track.publish("dsr-ipip", PORT)?,
            _ => track.link.gateway.run(|| -> Result<()> {
                // Frames sent by XDP arrive only with this.
                Ok(set_offload("cl0", Offload::Gro, true)?)
            })?,
        }
        if way == Way::Nftables {
            rivals::nftables(
                &track.link.gateway,
                &backends(),
                &[(PORT, DESTINATION_PORT)],
            )?;
        }
        if matches!(way, Way::LbagentIpip) {
            track.expected.protocol = IPIP;
        }
        if matches!(way, Way::LbagentNat | Way::LbagentIpip | Way::Nftables) {
            // No longer the VIP, but any backend.
            track.expected.destination = backend(0).octets();
            track.expected.leading = 3;
        }
        if !matches!(way, Way::XdpTx | Way::XdpForward | Way::Routed) {
            track.stations = BACKENDS;
        }
        Ok(track)
    }

    fn publish(&mut self, mode: &str, destination_port: u16) -> Result<()> {
        let all = 0..BACKENDS;
        self._agent = Some(publish(&self.link, mode, destination_port, all)?);
        Ok(())
    }

    /// Sends frames and returns how many have arrived, and in what time.
    fn run(&self, live: &mut Live, frames: u32) -> Result<(u64, Duration)> {
        live.expect(&self.expected)?;
        if self.way == Way::XdpForward {
            let next = self.link.gateway.run(|| interface_index("be0"))?;
            live.set_next(next)?;
        }
        let took = from_client(&self.link, || {
            live.send(&self.frame, self.link.ifindex, frames)
        })?;
        let arrived = live.arrived()?;
        ensure!(
            arrived.others == 0,
            "{} frames arrived with another destination than expected",
            arrived.others
        );
        ensure!(
            arrived.stations.len() == usize::from(self.stations),
            "{} frames arrived for {} link addresses, expected {}",
            arrived.frames(),
            arrived.stations.len(),
            self.stations
        );
        Ok((arrived.frames(), took))
    }
}

/// Runs this on the CPU of all measurements, in the client's namespace.
pub(super) fn from_client<T: Send>(
    link: &Link,
    send: impl FnOnce() -> Result<T> + Send,
) -> Result<T> {
    // The thread that is pinned must not be the one that everything else starts from.
    thread::scope(|scope| {
        let sent = scope.spawn(|| {
            pin_to(0)?;
            let _guard = link.client.enter()?;
            send()
        });
        sent.join()
            .map_err(|_| anyhow!("the sending thread panicked"))?
    })
}

/// Lets every flow be seen a few times, and checks that frames go where they should.
fn warm_up(track: &Track, live: &mut Live) -> Result<()> {
    const FRAMES: u32 = 4 << 16;
    let (arrived, _) = track.run(live, FRAMES)?;
    ensure!(
        arrived * 10 > u64::from(FRAMES) * 9,
        "only {arrived} of {FRAMES} frames arrived"
    );
    Ok(())
}

/// Starts the real daemon, with one service group of these backends.
pub(super) fn publish(
    link: &Link,
    mode: &str,
    destination_port: u16,
    numbers: Range<u8>,
) -> Result<Agent> {
    let config = Config {
        vips: vec![VIP4],
        xdp_mode: Some("native"),
        limits: [("slots", 1 << 16)].into(),
        ..Config::between("cl0", vec!["be0".into()])
    };
    let agent = Agent::start(&link.gateway, &config)?;
    let services = json!([service(PORT, destination_port, "tcp")]);
    let named = numbers.map(|number| (backend_name(number), backend(number).into()));
    publish_settled(&agent, &services, mode, named)?;
    Ok(agent)
}

/// The instance at [`backend`].
pub(super) fn backend_name(number: u8) -> String {
    format!("backend-{}", number + 1)
}

fn backends() -> Vec<IpAddr> {
    (0..BACKENDS).map(|number| backend(number).into()).collect()
}

pub(super) fn vip() -> Result<Ipv4Addr> {
    match VIP4 {
        IpAddr::V4(vip) => Ok(vip),
        IpAddr::V6(vip) => Err(anyhow!("{vip} is no IPv4 address")),
    }
}

/// A segment, its flow still zero.
pub(super) fn template(
    link: &Link,
    clients: Ipv4Addr,
    to: SocketAddr,
    segment: Segment,
) -> Result<Vec<u8>> {
    let from = SocketAddr::new(clients.into(), 0);
    let headers = packet_builder::tcp(from, to, segment, &[]).len();
    let payload = vec![0x5a; live::FRAME - headers];
    let mut frame = packet_builder::tcp(from, to, segment, &payload);
    let [destination, source] = link.macs;
    frame[..6].copy_from_slice(&destination);
    frame[6..12].copy_from_slice(&source);
    Ok(frame)
}
