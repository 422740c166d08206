//! The host as far as decapsulation depends on it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};

use super::DecapError;
use crate::dataplane::host::addresses;
use crate::dataplane::netlink::Netlink;

/// Addresses and interfaces at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostView {
    /// Every address of the host but those of the loopback networks.
    pub addresses: BTreeSet<IpAddr>,
    /// Those of them that the loopback interface has: VIPs, on a backend.
    pub on_loopback: BTreeSet<IpAddr>,
    /// Index and MTU of each interface, by name.
    pub interfaces: BTreeMap<String, (u32, u32)>,
}

impl HostView {
    /// Asks the kernel.
    pub fn read() -> Result<Self, DecapError> {
        let mut netlink = open_netlink()?;
        let reading = |what| move |source| DecapError::Host { what, source };
        let links = netlink
            .dump(RouteNetlinkMessage::GetLink(LinkMessage::default()))
            .map_err(reading("interfaces"))?;
        let mut view = Self::default();
        let mut loopback = BTreeSet::new();
        for message in links {
            let RouteNetlinkMessage::NewLink(link) = message else {
                continue;
            };
            if link.header.flags.contains(LinkFlags::Loopback) {
                loopback.insert(link.header.index);
            }
            let (mut name, mut mtu) = (None, 0);
            for attribute in link.attributes {
                match attribute {
                    LinkAttribute::IfName(found) => name = Some(found),
                    LinkAttribute::Mtu(found) => mtu = found,
                    _ => {}
                }
            }
            if let Some(name) = name {
                view.interfaces.insert(name, (link.header.index, mtu));
            }
        }
        for address in addresses(&mut netlink).map_err(reading("addresses"))? {
            if address.ip.is_loopback() {
                continue;
            }
            view.addresses.insert(address.ip);
            if loopback.contains(&address.ifindex) {
                view.on_loopback.insert(address.ip);
            }
        }
        Ok(view)
    }
}

pub(super) fn open_netlink() -> Result<Netlink, DecapError> {
    Netlink::open().map_err(|source| DecapError::Host {
        what: "network (no netlink socket)",
        source,
    })
}
