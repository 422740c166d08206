//! A client, a way to the backends, and the backends: one station for each way.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;

use super::server::{ANSWER_PORT, BULK_PORT, Server};
use super::{Way, load, rivals};
use crate::agent::{Agent, Config};
use crate::bench::programs::{Program, cpus};
use crate::gateway::{instance, service};
use crate::net_link::{Cidr, Netlink};
use crate::netns::{NetNs, set_sysctl};
use crate::poll::retry;
use crate::syscalls::{Offload, set_offload};
use crate::topology::{Shape, Topology, VIP4};

/// Backends behind everything that balances.
pub(super) const BACKENDS: usize = 2;

/// The client and the backend of [`Way::Direct`].
const DIRECT: [&str; 2] = ["10.66.0.100/24", "10.66.0.11/24"];

/// Everything that one way needs. The fields are dropped in this order.
pub(super) struct Station {
    pub(super) way: Way,
    pub(super) client: NetNs,
    /// Where the client asks.
    pub(super) answer: SocketAddr,
    /// Where bytes flow.
    pub(super) bulk: SocketAddr,
    /// How many backends must answer.
    pub(super) backends: usize,
    _agent: Option<Agent>,
    _program: Option<Program>,
    _servers: Vec<Server>,
    _topology: Option<Topology>,
}

impl Station {
    /// Builds and starts it; returns when the client gets an answer.
    pub(super) fn start(way: Way) -> Result<Self> {
        let station = match way {
            Way::Direct => Self::direct(),
            _ => Self::through_gateway(way),
        };
        let station = station.with_context(|| format!("starting {}", way.name()))?;
        let brief = Duration::from_millis(1);
        retry(way.name(), Duration::from_secs(10), || {
            load::ask(&station.client, station.answer, 1, 1, brief)
        })?;
        Ok(station)
    }

    fn direct() -> Result<Self> {
        let (client, backend) = (NetNs::new("client")?, NetNs::new("backend")?);
        client.run(|| Netlink::open()?.add_veth("eth0", &backend, "eth0"))?;
        let [own, other] = DIRECT.map(Cidr::new);
        client.run(|| -> Result<()> {
            Netlink::open()?.add_address("eth0", own)?;
            // As in every topology: what the client sends looks as it does after a wire.
            set_offload("eth0", Offload::TxChecksum, false)?;
            Ok(set_offload("eth0", Offload::Gro, true)?)
        })?;
        backend.run(|| -> Result<()> {
            Netlink::open()?.add_address("eth0", other)?;
            Ok(set_offload("eth0", Offload::Gro, true)?)
        })?;
        let server = Server::start(&backend, 1, cpus())?;
        Ok(Self::new(Way::Direct, client, other.address, vec![server]))
    }

    fn through_gateway(way: Way) -> Result<Self> {
        let topology = Topology::build(Shape::Routed, BACKENDS)?;
        let serve = |(number, backend): (u8, &crate::topology::BackendHost)| {
            Server::start(&backend.ns, number, cpus())
        };
        let servers = (1..)
            .zip(&topology.backends)
            .map(serve)
            .collect::<Result<_>>()?;
        let to = match way {
            Way::Routed => topology.backends[0].addresses[0],
            _ => VIP4,
        };
        let mut station = Self::new(way, topology.client.clone(), to, servers);
        match way {
            Way::LbagentNat => station._agent = Some(publish(&topology)?),
            Way::Haproxy => station._program = Some(rivals::haproxy(&topology)?),
            Way::Nginx => station._program = Some(rivals::nginx(&topology)?),
            _ => topology.gateway.run(|| -> Result<()> {
                set_sysctl("net/ipv4/ip_forward", "1")?;
                // As network cards have it, and cheaper for the kernel's way.
                Ok(set_offload("cl0", Offload::Gro, true)?)
            })?,
        }
        if way == Way::Nftables {
            let backends: Vec<_> = topology.backends.iter().map(|b| b.addresses[0]).collect();
            let ports = [ANSWER_PORT, BULK_PORT].map(|port| (port, port));
            rivals::nftables(&topology.gateway, &backends, &ports)?;
        }
        if way != Way::Routed {
            station.backends = BACKENDS;
        }
        station._topology = Some(topology);
        Ok(station)
    }

    fn new(way: Way, client: NetNs, to: IpAddr, servers: Vec<Server>) -> Self {
        Self {
            way,
            client,
            answer: SocketAddr::new(to, ANSWER_PORT),
            bulk: SocketAddr::new(to, BULK_PORT),
            backends: 1,
            _agent: None,
            _program: None,
            _servers: servers,
            _topology: None,
        }
    }
}

/// The real daemon, with one service group.
fn publish(topology: &Topology) -> Result<Agent> {
    let agent = Agent::start(&topology.gateway, &Config::new(topology))?;
    let services = [ANSWER_PORT, BULK_PORT].map(|port| service(port, port, "tcp"));
    let backends = topology.backends.iter().map(|backend| {
        let address = backend.addresses[0];
        (backend.name.clone(), address)
    });
    publish_settled(&agent, &json!(services), "nat", backends)?;
    Ok(agent)
}

/// Publishes services of a group in a forwarding mode with these instances, all at once: a gateway whose backends have
/// not changed since they came. One by one, each would change slots of the former.
pub(super) fn publish_settled(
    agent: &Agent,
    services: &serde_json::Value,
    mode: &str,
    backends: impl Iterator<Item = (String, IpAddr)>,
) -> Result<()> {
    let body = json!({ "name": "bench", "services": services });
    agent.call("POST", "/v1/services", Some(&body))?;
    let policy = json!({ "policy": { "forwarding_mode": mode } });
    agent.call("PUT", "/v1/x/service-groups/bench/policy", Some(&policy))?;
    for (name, address) in backends {
        let body = instance(&name, "bench", &[address]);
        agent.call("POST", "/v1/instances", Some(&body))?;
    }
    let whole = agent.call("GET", "/v1/x/state", None)?["state"].clone();
    let mut empty = whole.clone();
    empty["instances"] = json!([]);
    agent.call("PUT", "/v1/x/state", Some(&empty))?;
    agent.call("PUT", "/v1/x/state", Some(&whole))?;
    Ok(())
}
