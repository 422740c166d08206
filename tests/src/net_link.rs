//! Interfaces, addresses and routes of a namespace, by netlink: tests need no `ip` binary.

use std::collections::BTreeSet;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;

use anyhow::{Context, Result};
use futures_util::TryStreamExt;
use netlink_packet_route::address::{AddressAttribute, AddressFlags};
use netlink_packet_route::link::{InfoData, InfoVeth, LinkAttribute, LinkMessage};
use netlink_packet_route::route::{RouteAttribute, RouteMessage, RouteScope};
use netlink_packet_route::rule::RuleAction;
use rtnetlink::{
    Handle, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder,
    RouteNextHopBuilder, RuleAddRequest, new_connection,
};
use tokio::runtime::{Builder, Runtime};

use crate::netns::NetNs;
use crate::syscalls::interface_index;

/// An address with its prefix length, written `10.0.0.1/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cidr {
    /// The address.
    pub address: IpAddr,
    /// Its prefix length.
    pub len: u8,
}

impl Cidr {
    /// The address on its own.
    pub fn host(address: IpAddr) -> Self {
        Self {
            address,
            len: if address.is_ipv4() { 32 } else { 128 },
        }
    }

    /// Parses `address/len`; meant for constants, so anything else is a mistake in the test.
    #[track_caller]
    pub fn new(text: &str) -> Self {
        let (address, len) = text.split_once('/').expect("address/len");
        Self {
            address: address.parse().expect("address"),
            len: len.parse().expect("len"),
        }
    }
}

impl std::fmt::Display for Cidr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.len)
    }
}

/// A netlink socket in the namespace of the thread that opened it.
#[derive(Debug)]
pub struct Netlink {
    runtime: Runtime,
    handle: Handle,
}

impl Netlink {
    /// Opens the socket.
    pub fn open() -> Result<Self> {
        let runtime = Builder::new_current_thread().enable_io().build()?;
        let (connection, handle, _) = {
            let _context = runtime.enter();
            new_connection().context("opening a netlink socket")?
        };
        runtime.spawn(connection);
        Ok(Self { runtime, handle })
    }

    fn wait<T>(
        &self,
        what: impl FnOnce() -> String,
        request: impl Future<Output = Result<T, rtnetlink::Error>>,
    ) -> Result<T> {
        self.runtime.block_on(request).with_context(what)
    }

    /// Makes a veth pair: one end here, the other in `peer_ns`. Both are up.
    pub fn add_veth(&self, name: &str, peer_ns: &NetNs, peer: &str) -> Result<()> {
        let far_end = LinkMessageBuilder::<LinkUnspec>::new()
            .name(peer)
            .setns_by_fd(peer_ns.file().as_raw_fd())
            .build();
        let pair = LinkVeth::new(name, peer).set_info_data(InfoData::Veth(InfoVeth::Peer(far_end)));
        let request = self.handle.link().add(pair.build()).execute();
        self.wait(
            || format!("making veth {name} to {}:{peer}", peer_ns.label()),
            request,
        )?;
        self.set_up(name)?;
        peer_ns.run(|| Self::open()?.set_up(peer))
    }

    /// Makes a bridge and sets it up.
    pub fn add_bridge(&self, name: &str) -> Result<()> {
        // Ports forward at once; snooping would lose neighbour discovery until a querier appears.
        let bridge = LinkBridge::new(name)
            .forward_delay(0)
            .mcast_snooping(false)
            .build();
        self.wait(
            || format!("making bridge {name}"),
            self.handle.link().add(bridge).execute(),
        )?;
        self.set_up(name)
    }

    /// Makes an interface a port of a bridge.
    pub fn add_port(&self, bridge: &str, port: &str) -> Result<()> {
        let message = LinkUnspec::new_with_name(port)
            .controller(interface_index(bridge)?)
            .build();
        let request = self.handle.link().set(message).execute();
        self.wait(|| format!("adding {port} to bridge {bridge}"), request)
    }

    /// Sets an interface up.
    pub fn set_up(&self, name: &str) -> Result<()> {
        self.change(
            name,
            "setting up",
            LinkUnspec::new_with_name(name).up().build(),
        )
    }

    /// Sets an interface down.
    pub fn set_down(&self, name: &str) -> Result<()> {
        self.change(
            name,
            "setting down",
            LinkUnspec::new_with_name(name).down().build(),
        )
    }

    /// Gives an interface another link address.
    pub fn set_link_address(&self, name: &str, address: [u8; 6]) -> Result<()> {
        let message = LinkUnspec::new_with_name(name).address(address.to_vec());
        self.change(name, "changing the link address of", message.build())
    }

    /// Sets the largest IP packet that an interface sends.
    pub fn set_mtu(&self, name: &str, mtu: u32) -> Result<()> {
        self.change(
            name,
            "setting the MTU of",
            LinkUnspec::new_with_name(name).mtu(mtu).build(),
        )
    }

    fn change(&self, name: &str, what: &str, message: LinkMessage) -> Result<()> {
        let request = self.handle.link().set(message).execute();
        self.wait(|| format!("{what} interface {name}"), request)
    }

    /// Removes an interface.
    pub fn delete_link(&self, name: &str) -> Result<()> {
        let request = self.handle.link().del(interface_index(name)?).execute();
        self.wait(|| format!("deleting interface {name}"), request)
    }

    /// Gives an interface an address, usable at once.
    pub fn add_address(&self, name: &str, cidr: Cidr) -> Result<()> {
        let index = interface_index(name)?;
        let mut request = self.handle.address().add(index, cidr.address, cidr.len);
        if cidr.address.is_ipv6() {
            let nodad = AddressAttribute::Flags(AddressFlags::Nodad);
            request.message_mut().attributes.push(nodad);
        }
        self.wait(|| format!("adding {cidr} to {name}"), request.execute())
    }

    /// Routes `to` out of an interface, straight or through a gateway that need not share a prefix.
    pub fn add_route(&self, to: Cidr, name: &str, via: Option<IpAddr>) -> Result<()> {
        let message = route(to, interface_index(name)?, via)?;
        let request = self.handle.route().add(message).execute();
        self.wait(|| format!("routing {to} by {name}"), request)
    }

    /// Routes everything of both families through these gateways.
    pub fn add_default_routes(&self, name: &str, gateways: &[IpAddr]) -> Result<()> {
        for gateway in gateways {
            let any: IpAddr = match gateway {
                IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
            };
            self.add_route(
                Cidr {
                    address: any,
                    len: 0,
                },
                name,
                Some(*gateway),
            )?;
        }
        Ok(())
    }

    /// Routes `to` through these gateways, each with its weight, instead of those before.
    pub fn replace_route(&self, to: Cidr, gateways: &[(IpAddr, u8)]) -> Result<()> {
        let next_hop = |(gateway, weight): &(IpAddr, u8)| {
            let family = if gateway.is_ipv4() {
                RouteNextHopBuilder::new_ipv4()
            } else {
                RouteNextHopBuilder::new_ipv6()
            };
            // The kernel counts weights from 0.
            Ok(family.via(*gateway)?.weight(weight - 1).build())
        };
        let message = RouteMessageBuilder::<IpAddr>::new()
            .destination_prefix(to.address, to.len)
            .with_context(|| format!("route to {to}"))?
            .multipath(gateways.iter().map(next_hop).collect::<Result<_>>()?)
            .build();
        let request = self.handle.route().add(message).replace().execute();
        self.wait(|| format!("routing {to} by {gateways:?}"), request)
    }

    /// Sends IPv4 packets from a network to the main table: a rule that looks at the source.
    pub fn add_source_rule(&self, network: Ipv4Addr, len: u8) -> Result<()> {
        let request = self.source_rule(network, len).execute();
        self.wait(|| format!("adding a rule for {network}/{len}"), request)
    }

    /// Removes such a rule.
    pub fn delete_source_rule(&self, network: Ipv4Addr, len: u8) -> Result<()> {
        let message = self.source_rule(network, len).message_mut().clone();
        let request = self.handle.rule().del(message).execute();
        self.wait(|| format!("removing the rule for {network}/{len}"), request)
    }

    fn source_rule(&self, network: Ipv4Addr, len: u8) -> RuleAddRequest<Ipv4Addr> {
        let rule = self.handle.rule().add().v4().source_prefix(network, len);
        rule.table_id(254)
            .priority(1000)
            .action(RuleAction::ToTable)
    }

    /// Every link, address and route as text, for comparing a namespace before and after. Link-local
    /// addresses, multicast routes and counters are left out: they come and go on their own.
    pub fn describe(&self) -> Result<BTreeSet<String>> {
        let mut lines = self.describe_links()?;
        lines.extend(self.describe_addresses()?);
        lines.extend(self.describe_routes(RouteMessageBuilder::<Ipv4Addr>::new().build())?);
        lines.extend(self.describe_routes(RouteMessageBuilder::<Ipv6Addr>::new().build())?);
        Ok(lines)
    }

    fn describe_links(&self) -> Result<BTreeSet<String>> {
        let links: Vec<LinkMessage> = self.wait(
            || "listing links".into(),
            self.handle.link().get().execute().try_collect(),
        )?;
        let describe = |link: LinkMessage| {
            let mut name = String::new();
            let mut rest = Vec::new();
            for attribute in link.attributes {
                match attribute {
                    LinkAttribute::IfName(found) => name = found,
                    LinkAttribute::Mtu(_) | LinkAttribute::Xdp(_) => {
                        rest.push(format!("{attribute:?}"));
                    }
                    _ => {}
                }
            }
            format!("link {name} {}", rest.join(" "))
        };
        Ok(links.into_iter().map(describe).collect())
    }

    fn describe_addresses(&self) -> Result<BTreeSet<String>> {
        let request = self
            .handle
            .address()
            .get()
            .execute()
            .try_collect::<Vec<_>>();
        let addresses = self.wait(|| "listing addresses".into(), request)?;
        let describe = |message: netlink_packet_route::address::AddressMessage| {
            let address = message
                .attributes
                .iter()
                .find_map(|attribute| match attribute {
                    AddressAttribute::Address(address) => Some(*address),
                    _ => None,
                })?;
            let passing = matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
            let header = &message.header;
            (!passing).then(|| {
                format!(
                    "address {address}/{} on {}",
                    header.prefix_len, header.index
                )
            })
        };
        Ok(addresses.into_iter().filter_map(describe).collect())
    }

    fn describe_routes(&self, family: RouteMessage) -> Result<BTreeSet<String>> {
        let request = self
            .handle
            .route()
            .get(family)
            .execute()
            .try_collect::<Vec<_>>();
        let routes = self.wait(|| "listing routes".into(), request)?;
        let describe = |message: RouteMessage| {
            let mut rest = Vec::new();
            for attribute in &message.attributes {
                match attribute {
                    RouteAttribute::Destination(_)
                    | RouteAttribute::Oif(_)
                    | RouteAttribute::Gateway(_)
                    | RouteAttribute::Table(_) => rest.push(format!("{attribute:?}")),
                    _ => {}
                }
            }
            let text = format!(
                "route {:?}/{} {}",
                message.header.kind,
                message.header.destination_prefix_length,
                rest.join(" ")
            );
            // fe80::/10 and ff00::/8, in the notation of `RouteAddress`.
            let passing = text.contains("(fe80:") || text.contains("(ff00:");
            (!passing).then_some(text)
        };
        Ok(routes.into_iter().filter_map(describe).collect())
    }
}

fn route(to: Cidr, index: u32, via: Option<IpAddr>) -> Result<RouteMessage> {
    let builder = RouteMessageBuilder::<IpAddr>::new()
        .destination_prefix(to.address, to.len)
        .with_context(|| format!("route to {to}"))?
        .output_interface(index);
    let builder = match via {
        Some(gateway) => builder.gateway(gateway).context("gateway")?.onlink(),
        None if to.address.is_ipv4() => builder.scope(RouteScope::Link),
        None => builder,
    };
    Ok(builder.build())
}
