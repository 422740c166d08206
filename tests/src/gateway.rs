//! A whole running scenario: a topology, servers on its backends, the daemon, and services.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::agent::{Agent, Config};
use crate::client::{self, Transport};
use crate::kernel;
use crate::poll::{SOON, poll_until};
use crate::server::{Server, Spread};
use crate::topology::{BackendHost, Shape, Topology, VIPS};

/// The port that services of the tests are published on.
pub const PORT: u16 = 5432;
/// The port that the servers listen on.
pub const SERVER_PORT: u16 = 7000;
/// A second one.
pub const OTHER_SERVER_PORT: u16 = 7001;

/// A running gateway. The fields are dropped in this order: the daemon first.
#[derive(Debug)]
pub struct Gateway {
    /// The daemon.
    pub agent: Agent,
    /// Servers of the backends, in their order.
    pub servers: Vec<Server>,
    /// The network.
    pub topology: Topology,
}

impl Gateway {
    /// Starts everything but services.
    pub fn start(shape: Shape, backends: usize) -> Result<Self> {
        Self::start_with(shape, backends, |_| {})
    }

    /// As [`Gateway::start`], with a changed configuration.
    pub fn start_with(
        shape: Shape,
        backends: usize,
        configure: impl FnOnce(&mut Config),
    ) -> Result<Self> {
        Self::start_in(Topology::build(shape, backends)?, configure)
    }

    /// As [`Gateway::publish`], on a network that is there already.
    pub fn publish_on(topology: Topology) -> Result<Self> {
        let gateway = Self::start_in(topology, |_| {})?;
        gateway.publish_web()?;
        Ok(gateway)
    }

    /// As [`Gateway::start_with`], on a network that is there already.
    pub fn start_in(topology: Topology, configure: impl FnOnce(&mut Config)) -> Result<Self> {
        let ports = [SERVER_PORT, OTHER_SERVER_PORT];
        let serve =
            |backend: &BackendHost| Server::start(&backend.ns, &backend.name, &ports, &ports);
        let servers = topology.backends.iter().map(serve).collect::<Result<_>>()?;
        let mut config = Config::new(&topology);
        configure(&mut config);
        let agent = Agent::start(&topology.gateway, &config)?;
        Ok(Self {
            agent,
            servers,
            topology,
        })
    }

    /// Starts everything, publishes [`PORT`] for TCP and UDP as service group `web`, and attaches
    /// all backends to it.
    pub fn publish(shape: Shape, backends: usize) -> Result<Self> {
        let gateway = Self::start(shape, backends)?;
        gateway.publish_web()?;
        Ok(gateway)
    }

    /// Publishes [`PORT`] for TCP and UDP as service group `web` and attaches all backends to it.
    pub fn publish_web(&self) -> Result<()> {
        self.create_service("web", &web_services())?;
        let attach = |backend: &BackendHost| self.attach(&backend.name, "web", &backend.addresses);
        self.topology.backends.iter().try_for_each(attach)
    }

    /// Creates a service group.
    pub fn create_service(&self, name: &str, services: &Value) -> Result<Value> {
        let body = json!({ "name": name, "services": services });
        self.agent.call("POST", "/v1/services", Some(&body))
    }

    /// Creates a running instance in a service group.
    pub fn attach(&self, name: &str, group: &str, addresses: &[IpAddr]) -> Result<()> {
        let body = instance(name, group, addresses);
        self.agent
            .call("POST", "/v1/instances", Some(&body))
            .map(drop)
    }

    /// The UUID of an instance.
    pub fn uuid(&self, instance: &str) -> Result<String> {
        let data = self
            .agent
            .call("GET", &format!("/v1/instances?name={instance}"), None)?;
        let uuid = data["instances"][0]["uuid"].as_str();
        Ok(uuid
            .with_context(|| format!("no instance {instance} in {data}"))?
            .to_owned())
    }

    /// Stops an instance: no new connections, and none at all after the drain time.
    pub fn stop(&self, instance: &str, drain: Duration) -> Result<()> {
        let path = format!("/v1/instances/{}/stop", self.uuid(instance)?);
        let body = json!({ "drain_timeout_ms": drain.as_millis() as u64 });
        self.agent.call("PUT", &path, Some(&body)).map(drop)
    }

    /// Starts a stopped or draining instance again.
    pub fn start_instance(&self, instance: &str) -> Result<()> {
        let path = format!("/v1/instances/{}/start", self.uuid(instance)?);
        self.agent.call("PUT", &path, None).map(drop)
    }

    /// Deletes an instance.
    pub fn delete_instance(&self, instance: &str) -> Result<()> {
        let path = format!("/v1/instances/{}", self.uuid(instance)?);
        self.agent.call("DELETE", &path, None).map(drop)
    }

    /// Asks a VIP's [`PORT`] from the client `count` times.
    pub fn spread(&self, transport: Transport, vip: IpAddr, count: usize) -> Result<Spread> {
        client::spread(
            &self.topology.client,
            transport,
            SocketAddr::new(vip, PORT),
            count,
        )
    }

    /// Waits until no connection of the client is left that causes packets: a server notices the end of
    /// one in its own time, and what it answers is counted too.
    pub fn wait_until_quiet(&self) -> Result<()> {
        let Topology {
            client, backends, ..
        } = &self.topology;
        let busy = || {
            let hosts = std::iter::once(client).chain(backends.iter().map(|it| &it.ns));
            hosts.map(kernel::busy_connections).sum::<usize>()
        };
        poll_until("connections to end", SOON, || busy() == 0)
    }

    /// Asks both VIPs by both transports once.
    pub fn probe(&self) -> Result<()> {
        for (vip, transport) in everything() {
            self.spread(transport, vip, 1)
                .with_context(|| format!("{transport} to {vip}"))?;
        }
        Ok(())
    }
}

/// Both VIPs by both transports.
pub fn everything() -> impl Iterator<Item = (IpAddr, Transport)> {
    VIPS.into_iter()
        .flat_map(|vip| [(vip, Transport::Tcp), (vip, Transport::Udp)])
}

/// [`PORT`] to [`SERVER_PORT`] by TCP and UDP.
pub fn web_services() -> Value {
    json!([
        service(PORT, SERVER_PORT, "tcp"),
        service(PORT, SERVER_PORT, "udp")
    ])
}

/// One raw port of a service group.
pub fn service(port: u16, destination_port: u16, protocol: &str) -> Value {
    json!({
        "port": port,
        "destination_port": destination_port,
        "protocol": protocol,
        "handlers": [],
    })
}

/// The body that creates a running instance.
pub fn instance(name: &str, group: &str, addresses: &[IpAddr]) -> Value {
    let interfaces: Vec<Value> = addresses
        .iter()
        .map(|address| json!({ "ip": crate::net_link::Cidr::host(*address).to_string() }))
        .collect();
    json!({
        "name": name,
        "image": "external",
        "autostart": true,
        "service_group": { "name": group },
        "network_interfaces": interfaces,
    })
}
