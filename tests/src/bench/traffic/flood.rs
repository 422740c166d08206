//! Packets per second of stored flows, alone and between bursts of a flood.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;

use super::figures::Results;
use super::link::{BACKENDS, CLIENTS, Link, backend};
use super::live::{self, Expected, Live};
use super::packets::{
    DESTINATION_PORT, PORT, TCP, backend_name, from_client, publish, template, vip,
};
use super::{Measure, Options, Way};
use crate::agent::Agent;
use crate::gateway::instance;
use crate::packet_builder::Segment;

/// Backends below this number had all slots before, those from it on have them now.
const FORMER: u8 = BACKENDS / 2;
/// Every flow once.
const FLOWS: u32 = 1 << 16;
/// Frames of a burst: few, so that stored flows and flood meet in the caches.
const BURST: u32 = 8192;
/// Bursts of each kind in a round.
const BURSTS: u32 = 64;
/// Networks that the flood comes from in turn, each with as many flows as are stored.
const FLOOD_NETWORKS: u8 = 64;
/// Of so many packets one may go to the backends that had the slot before: flows of a bucket that
/// has no room.
const UNSTORED: u64 = 100;

/// A gateway whose group has handed all its slots over.
struct Flooded {
    _agent: Agent,
    link: Link,
    stored: Vec<u8>,
    /// One frame for each network.
    flood: Vec<Vec<u8>>,
}

/// Runs all rounds.
pub(super) fn measure(options: &Options, results: &mut Results) -> Result<()> {
    let chosen = options.chosen(&[Way::LbagentStored, Way::LbagentFlooded]);
    if chosen.is_empty() {
        return Ok(());
    }
    let mut live = Live::load()?;
    let gateway = Flooded::build(&mut live)?;
    let rounds = if options.quick { 2 } else { 6 };
    println!("{rounds} rounds of {BURSTS} bursts of {BURST} frames of stored flows, of as many");
    println!("SYNs of new ones, and of stored flows again");
    for round in 1..=rounds {
        for (way, rate) in gateway.round(&mut live)? {
            results.add(Measure::Packets, way, rate);
        }
        eprintln!("flood: round {round} of {rounds}");
    }
    Ok(())
}

impl Flooded {
    fn build(live: &mut Live) -> Result<Self> {
        let link = Link::build()?;
        link.client.run(|| live.attach(live::SINK, "cl1"))?;
        link.sink.run(|| live.attach(live::SINK, "be1"))?;
        let agent = publish(&link, "nat", DESTINATION_PORT, 0..FORMER)?;
        for number in FORMER..BACKENDS {
            let new = instance(&backend_name(number), "bench", &[backend(number).into()]);
            agent.call("POST", "/v1/instances", Some(&new))?;
        }
        let stop = |number| json!({ "name": backend_name(number), "drain_timeout_ms": -1 });
        let former: Vec<_> = (0..FORMER).map(stop).collect();
        agent.call("PUT", "/v1/instances/stop", Some(&json!(former)))?;

        let to = SocketAddr::new(vip()?.into(), PORT);
        let syn_from = |network: u8| {
            let clients = Ipv4Addr::new(172, network, 0, 0);
            template(&link, clients, to, Segment::Syn)
        };
        let gateway = Self {
            stored: template(&link, CLIENTS, to, Segment::Ack)?,
            flood: (0..FLOOD_NETWORKS).map(syn_from).collect::<Result<_>>()?,
            _agent: agent,
            link,
        };
        // Begun now, the flows belong to the new backends, which only their entries tell.
        let syn = template(&gateway.link, CLIENTS, to, Segment::Syn)?;
        for frame in [&syn, &gateway.stored] {
            gateway.send_stored(live, frame, FLOWS)?;
        }
        Ok(gateway)
    }

    fn send(&self, live: &mut Live, frame: &[u8], frames: u32) -> Result<Duration> {
        from_client(&self.link, || live.send(frame, self.link.ifindex, frames))
    }

    /// Sends frames of stored flows, and checks that they arrive where only their entries send them.
    fn send_stored(&self, live: &mut Live, frame: &[u8], frames: u32) -> Result<Duration> {
        live.expect(&Expected {
            protocol: TCP,
            destination: backend(0).octets(),
            leading: 3,
        })?;
        let took = self.send(live, frame, frames)?;
        let arrived = live.arrived()?;
        let [.., first_new] = backend(FORMER).octets();
        let former = arrived.stations.range(..first_new);
        let former: u64 = former.map(|(_, frames)| frames).sum();
        ensure!(
            former * UNSTORED <= arrived.frames() && arrived.others == 0,
            "{former} of {} frames of stored flows went to former backends, {} elsewhere",
            arrived.frames(),
            arrived.others
        );
        Ok(took)
    }

    /// Millions of packets a second of stored flows, behind others of them and behind the flood.
    fn round(&self, live: &mut Live) -> Result<[(Way, f64); 2]> {
        let (mut alone, mut flooded) = (Duration::ZERO, Duration::ZERO);
        for syn in self.flood.iter().cycle().take(BURSTS as usize) {
            alone += self.send_stored(live, &self.stored, BURST)?;
            self.send(live, syn, BURST)?;
            flooded += self.send_stored(live, &self.stored, BURST)?;
        }
        let frames = f64::from(BURSTS * BURST);
        let rate = |took: Duration| frames / took.as_secs_f64() / 1e6;
        Ok([
            (Way::LbagentStored, rate(alone)),
            (Way::LbagentFlooded, rate(flooded)),
        ])
    }
}
