//! `cargo xtask bench traffic`: connections, latency, bulk and packets per second through lbagent
//! and through what else a Debian host could use in its place.
//!
//! Each way has namespaces, backends and clients of its own. The ways take turns in every round, so
//! that a machine that gets slower or faster does so for all of them; ratios compare figures of the
//! same round, and what is printed is their median.

mod end_to_end;
mod figures;
mod flood;
mod link;
pub mod live;
mod load;
mod packets;
mod rivals;
mod server;
mod stations;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;

use figures::{Goal, Results};

/// The ways from a client to a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Way {
    /// No gateway: the client's link ends at the backend.
    Direct,
    /// A gateway that routes, with nothing to balance.
    Routed,
    /// XDP sends the frame back to where it came from: the cost of devices and generator.
    XdpTx,
    /// XDP sends the frame to the other side as it is: likewise.
    XdpForward,
    /// lbagent in mode `nat`.
    LbagentNat,
    /// lbagent in mode `dsr-l2`.
    LbagentL2,
    /// lbagent in mode `dsr-ipip`.
    LbagentIpip,
    /// lbagent in mode `nat`, flows that are stored because their slots changed hands.
    LbagentStored,
    /// The same, between bursts of SYNs of other flows to the same port.
    LbagentFlooded,
    /// nftables, destination NAT with connection tracking.
    Nftables,
    /// HAProxy in TCP mode.
    Haproxy,
    /// nginx's stream module.
    Nginx,
}

impl Way {
    /// As the tables and the JSON name it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Routed => "ip_forward",
            Self::XdpTx => "xdp_tx",
            Self::XdpForward => "xdp_forward",
            Self::LbagentNat => "lbagent nat",
            Self::LbagentL2 => "lbagent dsr-l2",
            Self::LbagentIpip => "lbagent dsr-ipip",
            Self::LbagentStored => "lbagent stored",
            Self::LbagentFlooded => "lbagent flooded",
            Self::Nftables => "nftables dnat",
            Self::Haproxy => "haproxy tcp",
            Self::Nginx => "nginx stream",
        }
    }
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Measure {
    /// New connections a second, every CPU busy.
    Connections,
    /// Microseconds until the answer, 99 of 100, meanwhile.
    BusyP99,
    /// Microseconds until the answer, the median, one connection at a time.
    AloneP50,
    /// Microseconds until the answer, 99 of 100, one connection at a time.
    AloneP99,
    /// Gigabits a second from the client to the backend.
    Upload,
    /// Gigabits a second from the backend to the client.
    Download,
    /// Millions of packets a second on one CPU.
    Packets,
}

impl Measure {
    const ALL: [Self; 7] = [
        Self::Connections,
        Self::BusyP99,
        Self::AloneP50,
        Self::AloneP99,
        Self::Upload,
        Self::Download,
        Self::Packets,
    ];

    /// As the JSON names it.
    fn name(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::BusyP99 => "busy_p99",
            Self::AloneP50 => "alone_p50",
            Self::AloneP99 => "alone_p99",
            Self::Upload => "upload",
            Self::Download => "download",
            Self::Packets => "packets",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Connections => "new connections, every CPU busy",
            Self::BusyP99 => "connect, request and answer, 99th percentile, every CPU busy",
            Self::AloneP50 => "connect, request and answer, median, one at a time",
            Self::AloneP99 => "connect, request and answer, 99th percentile, one at a time",
            Self::Upload => "bulk from client to backend, one stream",
            Self::Download => "bulk from backend to client, one stream",
            Self::Packets => "packets of 60 bytes, 64 k flows, one CPU",
        }
    }

    fn unit(self) -> &'static str {
        match self {
            Self::Connections => "k/s",
            Self::BusyP99 | Self::AloneP50 | Self::AloneP99 => "µs",
            Self::Upload | Self::Download => "Gbit/s",
            Self::Packets => "M/s",
        }
    }

    /// The columns of ratios.
    fn references(self) -> &'static [Way] {
        match self {
            Self::Packets => &[Way::Routed, Way::Nftables],
            _ => &[Way::Direct, Way::Nftables, Way::Haproxy],
        }
    }
}

const GOALS: &[Goal] = &[
    Goal::new(Measure::Connections, Way::LbagentNat, 1.0, Way::Nftables),
    Goal::new(Measure::Connections, Way::LbagentNat, 1.3, Way::Haproxy),
    Goal::new(Measure::Packets, Way::LbagentNat, 5.0, Way::Nftables),
    Goal::new(Measure::Packets, Way::LbagentL2, 5.0, Way::Nftables),
    Goal::new(Measure::Packets, Way::LbagentIpip, 5.0, Way::Nftables),
    Goal::new(
        Measure::Packets,
        Way::LbagentFlooded,
        0.9,
        Way::LbagentStored,
    ),
];

/// How to measure and where to write.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Fewer and shorter rounds.
    pub quick: bool,
    /// Fail when a goal is missed.
    pub check: bool,
    /// Where the figures go.
    pub json: Option<PathBuf>,
    /// Measure only ways whose name contains this: for profiles.
    pub only: Option<String>,
}

impl Options {
    /// Those of the ways that are asked for.
    fn chosen(&self, ways: &[Way]) -> Vec<Way> {
        let only = self.only.as_deref().unwrap_or("");
        let chosen = ways.iter().filter(|way| way.name().contains(only));
        chosen.copied().collect()
    }
}

/// Measures and reports. Returns whether the run is good: goals count only when asked for.
pub fn run(options: &Options) -> Result<bool> {
    let start = Instant::now();
    let mut results = Results::default();
    packets::measure(&packets::Effort::of(options), &mut results)?;
    flood::measure(options, &mut results)?;
    end_to_end::measure(&end_to_end::Effort::of(options), &mut results)?;
    print!("{}", results.tables(GOALS));
    println!("took {} s", start.elapsed().as_secs());
    if let Some(path) = &options.json {
        results.write_json(path)?;
    }
    match results.missed(GOALS) {
        Some(line) if options.check => {
            println!("{line}");
            Ok(false)
        }
        _ => Ok(true),
    }
}
