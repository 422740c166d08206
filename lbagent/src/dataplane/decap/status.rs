//! What is attached to an interface, with which settings, and what it did so far.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use lbagent_common::PacketCounter;
use lbagent_common::decap::{DecapOutcome, DecapSettings};
use netlink_packet_route::link::XdpAttached;

use super::host::open_netlink;
use super::{DecapError, DecapMaps, DecapPins};
use crate::dataplane::AttachedMode;
use crate::dataplane::clsact::{EGRESS, has_filter};
use crate::dataplane::interfaces::Interfaces;
use crate::dataplane::syscalls::pinned_link_ifindex;

/// An interface that decapsulates, or did until it vanished.
#[derive(Clone, Debug)]
pub struct DecapStatus {
    /// How `lb_decap` is attached; `None` when it is not.
    pub xdp: Option<AttachedMode>,
    /// How `lb_clamp` is attached; `None` when it is not.
    pub tc: Option<AttachedMode>,
    /// Encapsulations, port and MSS.
    pub settings: DecapSettings,
    /// Addresses by their `ROLE_*` bits.
    pub roles: BTreeMap<IpAddr, u32>,
    /// Packets and bytes by outcome.
    pub counters: Vec<(DecapOutcome, PacketCounter)>,
}

/// Reads an interface's state back; an error when there is none.
pub fn status(bpffs_dir: &Path, interface: &str) -> Result<DecapStatus, DecapError> {
    let reading = |what| move |source| DecapError::Host { what, source };
    let pins = DecapPins::new(bpffs_dir, interface);
    let maps = DecapMaps::open(&pins)?.ok_or_else(|| DecapError::NotAttached {
        interface: interface.to_owned(),
    })?;
    let mut netlink = open_netlink()?;
    let interfaces = Interfaces::read(&mut netlink).map_err(reading("interfaces"))?;
    let ifindex = interfaces.index(interface);
    let is_linked =
        |pin: &Path| ifindex.is_some() && pin.exists() && pinned_link_ifindex(pin).ok() == ifindex;
    let xdp = match interfaces.xdp(interface) {
        Some(XdpAttached::SocketBuffer) => AttachedMode::Generic,
        _ => AttachedMode::Native,
    };
    let tc = match ifindex {
        _ if is_linked(&pins.tc()) => Some(AttachedMode::Tcx),
        Some(ifindex)
            if has_filter(&mut netlink, ifindex, EGRESS).map_err(reading("TC filters"))? =>
        {
            Some(AttachedMode::Clsact)
        }
        _ => None,
    };
    Ok(DecapStatus {
        xdp: is_linked(&pins.xdp()).then_some(xdp),
        tc,
        settings: maps.settings()?,
        roles: maps.roles()?,
        counters: maps.counters()?,
    })
}
