//! A gateway between two links for live frames: nobody lives at their far ends, so neighbours are
//! written down.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, Result};
use rtnetlink::packet_route::neighbour::NeighbourState;

use crate::net_link::{Cidr, Netlink};
use crate::netns::{BpfFs, HostNs, NetNs, set_sysctl};
use crate::syscalls::{interface_index, link_address};

/// Clients are here, behind a router: the generator chooses the lower half of the address.
pub(super) const CLIENTS: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 0);
const ROUTER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
/// Instances, each with its own link address on the same link.
pub(super) const BACKENDS: u8 = 16;

/// Address of a backend by its number from 0.
pub(super) fn backend(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 66, 0, 10 + number)
}

/// Three namespaces: `cl1`–`cl0`, a gateway, `be0`–`be1`.
pub(super) struct Link {
    pub(super) client: NetNs,
    pub(super) gateway: HostNs,
    pub(super) sink: NetNs,
    /// Link addresses that the client's frames carry: destination, source.
    pub(super) macs: [[u8; 6]; 2],
    /// Index of `cl1` in the client's namespace.
    pub(super) ifindex: u32,
}

impl Link {
    pub(super) fn build() -> Result<Self> {
        let (client, sink) = (NetNs::new("client")?, NetNs::new("sink")?);
        let gateway = HostNs::new("gateway", BpfFs::Mounted)?;
        for end in [&client, &sink] {
            // Nothing but the generator may send, and IPv6 hosts talk by themselves.
            end.run(|| set_sysctl("net/ipv6/conf/all/disable_ipv6", "1"))?;
            end.run(|| set_sysctl("net/ipv6/conf/default/disable_ipv6", "1"))?;
        }
        let to = gateway.run(|| -> Result<[u8; 6]> {
            let net = Netlink::open()?;
            net.add_veth("cl0", &client, "cl1")?;
            net.add_veth("be0", &sink, "be1")?;
            net.add_address("cl0", Cidr::new("198.51.100.1/24"))?;
            net.add_address("be0", Cidr::new("10.66.0.1/24"))?;
            let clients = Cidr {
                address: CLIENTS.into(),
                len: 16,
            };
            net.add_route(clients, "cl0", Some(ROUTER.into()))?;
            set_sysctl("net/ipv4/ip_forward", "1")?;
            add_neighbours("cl0", &[(ROUTER.into(), [2, 0, 0, 0, 0, 2])])?;
            let backends: Vec<_> = (0..BACKENDS)
                .map(|number| (backend(number).into(), [2, 0, 0, 0, 1, 10 + number]))
                .collect();
            add_neighbours("be0", &backends)?;
            Ok(link_address("cl0")?)
        })?;
        let (from, ifindex) =
            client.run(|| -> Result<_> { Ok((link_address("cl1")?, interface_index("cl1")?)) })?;
        Ok(Self {
            client,
            gateway,
            sink,
            macs: [to, from],
            ifindex,
        })
    }
}

/// Makes link addresses known for good.
fn add_neighbours(interface: &str, neighbours: &[(IpAddr, [u8; 6])]) -> Result<()> {
    let index = interface_index(interface)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        for (address, mac) in neighbours {
            handle
                .neighbours()
                .add(index, *address)
                .link_layer_address(mac)
                .state(NeighbourState::Permanent)
                .replace()
                .execute()
                .await
                .with_context(|| format!("adding neighbour {address} on {interface}"))?;
        }
        Ok(())
    })
}
