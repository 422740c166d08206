//! `lbagent decap`: makes a backend host take the gateway's outer header off (direct server
//! return), on interfaces that have no tunnel device.

mod host_check;
mod mss;
mod report;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use lbagent_common::Port;
use lbagent_common::decap::{DecapSettings, MAX_ADDRESSES, ROLE_HOST, ROLE_VIP};
use tokio::signal::unix::{SignalKind, signal};

use crate::dataplane::decap::{
    Attached, DecapError, DecapRequest, HostView, TcMode, attach, detach,
};
use crate::dataplane::{XdpMode, network_changes};

pub use self::host_check::check;
pub use self::mss::{Mss, MssSource};
pub use self::report::show;

/// The port that IANA assigned to GUE.
pub const GUE_PORT: u16 = 6080;
/// Where interfaces are pinned, each in a directory of its own.
pub const BPFFS_DIR: &str = "/sys/fs/bpf/lbagent";

/// A burst of changes of the network is answered once it is over for this long.
const SETTLED: Duration = Duration::from_millis(200);

/// Which encapsulations are taken off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// IP in IP: IPv4 and IPv6 in either
    Ipip,
    /// Generic UDP encapsulation, variants 0 and 1
    Gue,
    /// Both
    #[default]
    Both,
}

impl Mode {
    fn bits(self) -> u32 {
        match self {
            Self::Ipip => DecapSettings::MODE_IPIP,
            Self::Gue => DecapSettings::MODE_GUE,
            Self::Both => DecapSettings::MODE_IPIP | DecapSettings::MODE_GUE,
        }
    }
}

/// What was asked for on the command line.
#[derive(Clone, Debug)]
pub struct Options {
    /// Interfaces that encapsulated packets come in by.
    pub interfaces: Vec<String>,
    /// VIPs; those of the loopback interface if there are none.
    pub vips: BTreeSet<IpAddr>,
    /// Encapsulations.
    pub mode: Mode,
    /// UDP port of GUE.
    pub gue_port: u16,
    /// Where the MSS comes from.
    pub mss: MssSource,
    /// How to attach the XDP program.
    pub xdp_mode: XdpMode,
    /// How to attach the TC program.
    pub tc_mode: TcMode,
    /// Holds the pins.
    pub bpffs_dir: PathBuf,
}

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Nothing says which addresses are VIPs.
    #[error(
        "no VIP: lo has no address besides the loopback ones; add each VIP with \
         `ip address add VIP/32 dev lo` (IPv6: VIP/128), or name it with --vip"
    )]
    NoVip,
    /// More addresses than the map takes.
    #[error(
        "{count} addresses are more than the {MAX_ADDRESSES} that decapsulation can tell apart"
    )]
    TooMany {
        /// Addresses of the host and VIPs.
        count: usize,
    },
    /// The MTU leaves no room.
    #[error(
        "{interface} has an MTU of {mtu}, which leaves no room for encapsulated TCP; set --mss or \
         --mtu"
    )]
    Mtu {
        /// The interface.
        interface: String,
        /// Its MTU, or the one asked for.
        mtu: u32,
    },
    /// The kernel part failed.
    #[error(transparent)]
    Kernel(#[from] DecapError),
    /// The process cannot wait for changes.
    #[error("cannot watch the host's network")]
    Watch(#[source] std::io::Error),
}

impl RunError {
    /// Whether the command line is to blame.
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::NoVip | Self::TooMany { .. } | Self::Mtu { .. })
    }
}

/// One interface that decapsulates now.
#[derive(Clone, Debug)]
pub struct Done {
    /// Its name.
    pub interface: String,
    /// How.
    pub attached: Attached,
    /// What clients are told.
    pub mss: Mss,
    /// The VIPs.
    pub vips: BTreeSet<IpAddr>,
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Attached {
            xdp,
            xdp_reason,
            tc,
        } = &self.attached;
        let Mss { v4, v6 } = self.mss;
        let interface = &self.interface;
        let vips: Vec<_> = self.vips.iter().map(IpAddr::to_string).collect();
        write!(
            f,
            "{interface}: decapsulates packets for {} (XDP {xdp}, TC {tc}, MSS {v4} and {v6})",
            vips.join(", ")
        )?;
        match xdp_reason {
            Some(reason) => write!(f, "; {reason}"),
            None => Ok(()),
        }
    }
}

/// Makes every interface decapsulate. Interfaces before one that fails stay attached; running it
/// again is safe.
pub fn start(options: &Options) -> Result<Vec<Done>, RunError> {
    let host = HostView::read()?;
    let requests = plan(options, &host)?;
    let run = |(request, mss): &(DecapRequest, Mss)| {
        let attached = attach(&options.bpffs_dir, request)?;
        Ok(Done {
            interface: request.interface.clone(),
            attached,
            mss: *mss,
            vips: vips(options, &host),
        })
    };
    requests.iter().map(run).collect()
}

/// Takes everything off every interface.
pub fn stop(options: &Options) -> Result<(), RunError> {
    for interface in &options.interfaces {
        let removed = detach(&options.bpffs_dir, interface)?;
        if removed.is_empty() {
            println!("nothing to remove: nothing is decapsulated on {interface}");
        }
        for line in removed {
            println!("removed {line}");
        }
    }
    Ok(())
}

/// Follows changes of addresses, MTUs and interfaces until SIGTERM or SIGINT. What is attached then
/// stays.
pub fn follow(options: &Options, mut report: impl FnMut(Done)) -> Result<(), RunError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(RunError::Watch)?;
    runtime.block_on(async {
        let mut changes = network_changes().map_err(RunError::Watch)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(RunError::Watch)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(RunError::Watch)?;
        let mut seen = HostView::read()?;
        start(options)?.into_iter().for_each(&mut report);
        loop {
            tokio::select! {
                _ = terminate.recv() => return Ok(()),
                _ = interrupt.recv() => return Ok(()),
                changed = changes.changed() => {
                    let gone = |_| std::io::Error::other("the watching thread ended");
                    changed.map_err(gone).map_err(RunError::Watch)?;
                }
            }
            tokio::time::sleep(SETTLED).await;
            changes.mark_unchanged();
            let now = HostView::read()?;
            if now == seen {
                continue;
            }
            seen = now;
            // An interface or a VIP may come back: what is there keeps working meanwhile.
            match start(options) {
                Ok(done) => done.into_iter().for_each(&mut report),
                Err(error) => {
                    tracing::error!(error = %chain(&error), "not brought up to date");
                }
            }
        }
    })
}

fn chain(error: &RunError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        source = inner.source();
    }
    text
}

/// The VIPs that were named, or those that the host shows.
pub fn vips(options: &Options, host: &HostView) -> BTreeSet<IpAddr> {
    if options.vips.is_empty() {
        host.on_loopback.clone()
    } else {
        options.vips.clone()
    }
}

/// What each interface is to do.
fn plan(options: &Options, host: &HostView) -> Result<Vec<(DecapRequest, Mss)>, RunError> {
    let vips = vips(options, host);
    if vips.is_empty() {
        return Err(RunError::NoVip);
    }
    let mut roles: BTreeMap<IpAddr, u32> = BTreeMap::new();
    for address in &host.addresses {
        *roles.entry(*address).or_default() |= ROLE_HOST;
    }
    for vip in &vips {
        *roles.entry(*vip).or_default() |= ROLE_VIP;
    }
    if roles.len() > MAX_ADDRESSES as usize {
        return Err(RunError::TooMany { count: roles.len() });
    }
    let request = |interface: &String| {
        let (_, mtu) = *host
            .interfaces
            .get(interface)
            .ok_or_else(|| DecapError::NoInterface {
                interface: interface.clone(),
            })?;
        let mss = options.mss.at(mtu).ok_or_else(|| RunError::Mtu {
            interface: interface.clone(),
            mtu: options.mss.mtu(mtu),
        })?;
        let settings = DecapSettings {
            modes: options.mode.bits(),
            gue_port: Port::new(options.gue_port),
            mss_v4: mss.v4,
            mss_v6: mss.v6,
            ..DecapSettings::default()
        };
        let request = DecapRequest {
            interface: interface.clone(),
            settings,
            roles: roles.clone(),
            xdp_mode: options.xdp_mode,
            tc_mode: options.tc_mode,
        };
        Ok((request, mss))
    };
    options.interfaces.iter().map(request).collect()
}

#[cfg(test)]
mod tests;
