//! The neighbours that ways lead through: the kernel is to know their link addresses.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

use netlink_packet_core::NLM_F_CREATE;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourExtFlags, NeighbourFlags, NeighbourMessage,
    NeighbourState,
};
use netlink_packet_route::route::RouteProtocol;

use super::host::{OWN_PROTOCOL, delete, family};
use super::netlink::Netlink;
use super::ways::Way;
use super::{DataplaneError, host};

/// The neighbours that the kernel keeps resolved for the agent.
#[derive(Debug, Default)]
pub(super) struct Neighbours {
    kept: BTreeSet<(u32, IpAddr)>,
    /// Those that need not be asked for again until the others are let go: many thousands of
    /// addresses may lie behind one router.
    asked: BTreeSet<(u32, IpAddr)>,
}

impl Neighbours {
    /// Takes over those of a former agent.
    pub(super) fn read(netlink: &mut Netlink) -> io::Result<Self> {
        let kept = own(netlink)?.iter().filter_map(identity).collect();
        Ok(Self {
            kept,
            asked: BTreeSet::new(),
        })
    }

    /// Has the kernel resolve an address now and keep it resolved, agent or no agent. Kernels
    /// before 5.16 resolve it once.
    pub(super) fn keep(
        &mut self,
        netlink: &mut Netlink,
        ifindex: u32,
        next_hop: IpAddr,
    ) -> Result<(), DataplaneError> {
        if !self.asked.insert((ifindex, next_hop)) || is_permanent(netlink, ifindex, next_hop) {
            return Ok(());
        }
        netlink
            .request(
                RouteNetlinkMessage::NewNeighbour(kept_message(ifindex, next_hop)),
                NLM_F_CREATE,
            )
            .map_err(|error| {
                self.asked.remove(&(ifindex, next_hop));
                match error.raw_os_error() {
                    Some(libc::ENOBUFS) => DataplaneError::NeighboursFull,
                    _ => host::failed("resolve", next_hop)(error),
                }
            })?;
        self.kept.insert((ifindex, next_hop));
        Ok(())
    }

    /// Lets go of the neighbours that no way leads through any more.
    pub(super) fn release_others<'a>(
        &mut self,
        netlink: &mut Netlink,
        ways: impl Iterator<Item = (&'a IpAddr, &'a Way)>,
    ) {
        self.asked.clear();
        let next_hop = |(ip, way): (&IpAddr, &Way)| (way.path.ifindex, way.next_hop(*ip));
        let needed: BTreeSet<_> = ways.map(next_hop).collect();
        for (ifindex, next_hop) in self.kept.difference(&needed) {
            let message = RouteNetlinkMessage::DelNeighbour(message(*ifindex, *next_hop));
            if let Err(error) = delete(netlink, message) {
                tracing::debug!(%next_hop, %error, "cannot remove a neighbour");
            }
        }
        self.kept = self.kept.intersection(&needed).copied().collect();
    }
}

/// Removes every neighbour that an agent had the kernel keep; returns which.
pub(crate) fn remove_ours(netlink: &mut Netlink) -> io::Result<Vec<String>> {
    let mut removed = Vec::new();
    for (ifindex, ip) in own(netlink)?.iter().filter_map(identity) {
        delete(
            netlink,
            RouteNetlinkMessage::DelNeighbour(message(ifindex, ip)),
        )?;
        removed.push(format!("neighbour {ip} of interface {ifindex}"));
    }
    Ok(removed)
}

fn own(netlink: &mut Netlink) -> io::Result<Vec<NeighbourMessage>> {
    let messages = netlink.dump(RouteNetlinkMessage::GetNeighbour(
        NeighbourMessage::default(),
    ))?;
    Ok(messages
        .into_iter()
        .filter_map(|message| match message {
            RouteNetlinkMessage::NewNeighbour(message) => Some(message),
            _ => None,
        })
        .filter(|message| {
            // An operator who fixes the address of such a neighbour takes it over: it keeps the
            // protocol number, but the kernel no longer resolves it.
            let own = NeighbourAttribute::Protocol(RouteProtocol::Other(OWN_PROTOCOL));
            let kept = NeighbourAttribute::ExtFlags(NeighbourExtFlags::Managed);
            message.attributes.contains(&own) && message.attributes.contains(&kept)
        })
        .collect())
}

/// Which interface's neighbour a message is about.
pub(super) fn identity(message: &NeighbourMessage) -> Option<(u32, IpAddr)> {
    message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => {
                Some((message.header.ifindex, IpAddr::V4(*ip)))
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => {
                Some((message.header.ifindex, IpAddr::V6(*ip)))
            }
            _ => None,
        })
}

/// The link address that frames to a neighbour get now; `None` while the kernel has none, or has
/// found that nobody answers there.
pub(super) fn usable_link_address(message: &NeighbourMessage) -> Option<[u8; 6]> {
    use NeighbourState::{Delay, Noarp, Permanent, Probe, Reachable, Stale};
    let is_valid = matches!(
        message.header.state,
        Reachable | Stale | Delay | Probe | Permanent | Noarp
    );
    let link = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            NeighbourAttribute::LinkLayerAddress(link) => Some(link),
            _ => None,
        })?;
    link.as_slice().try_into().ok().filter(|_| is_valid)
}

/// An operator's fixed neighbour would lose its address if the kernel were told to keep it.
fn is_permanent(netlink: &mut Netlink, ifindex: u32, ip: IpAddr) -> bool {
    let found = netlink.request(RouteNetlinkMessage::GetNeighbour(message(ifindex, ip)), 0);
    found
        .unwrap_or_default()
        .iter()
        .any(|message| match message {
            RouteNetlinkMessage::NewNeighbour(message) => {
                matches!(
                    message.header.state,
                    NeighbourState::Permanent | NeighbourState::Noarp
                )
            }
            _ => false,
        })
}

fn message(ifindex: u32, ip: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(ip);
    message.header.ifindex = ifindex;
    message.attributes = vec![NeighbourAttribute::Destination(ip.into())];
    message
}

fn kept_message(ifindex: u32, ip: IpAddr) -> NeighbourMessage {
    let mut message = message(ifindex, ip);
    message.header.flags = NeighbourFlags::Use;
    message.attributes.extend([
        NeighbourAttribute::Protocol(RouteProtocol::Other(OWN_PROTOCOL)),
        NeighbourAttribute::ExtFlags(NeighbourExtFlags::Managed),
    ]);
    message
}
