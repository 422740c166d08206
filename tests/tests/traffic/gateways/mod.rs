//! Two gateways with the same seed and the same state, and real flows that both of them know or only
//! one: what ARCHITECTURE.md guarantees about a gateway that never saw a flow.

mod moves;
mod settling;

use std::net::{IpAddr, SocketAddr, UdpSocket};

use anyhow::{Result, ensure};
use lbagent_api::trace::{Trace, TraceSlot};
use lbagent_tests::client::{Connection, Transport, exchange_on, udp_socket_here};
use lbagent_tests::fleet::Fleet;
use lbagent_tests::netns::NetNs;
use lbagent_tests::topology::VIPS;

/// Flows of each VIP and transport that a test opens at a time.
const FLOWS: usize = 24;

/// A flow of either transport, and the backend that had it from the start.
struct Flow {
    vip: IpAddr,
    local: SocketAddr,
    backend: String,
    way: Way,
}

enum Way {
    Tcp(Connection),
    Udp(UdpSocket),
}

impl Flow {
    fn open_tcp(client: &NetNs, vip: IpAddr) -> Result<Self> {
        let mut connection = Connection::open(client, Fleet::service(vip))?;
        connection.command("echo")?;
        Ok(Self {
            vip,
            local: connection.local,
            backend: connection.greeting.name.clone(),
            way: Way::Tcp(connection),
        })
    }

    fn open_udp(client: &NetNs, vip: IpAddr) -> Result<Self> {
        let socket = client.run(|| udp_socket_here(Fleet::service(vip), None))?;
        Ok(Self {
            vip,
            local: socket.local_addr()?,
            backend: exchange_on(&socket, b"who?")?.with_source_kept()?,
            way: Way::Udp(socket),
        })
    }

    /// Says something and hears it from the same backend.
    fn talk(&mut self) -> Result<()> {
        match &mut self.way {
            Way::Tcp(connection) => connection.echo("still there"),
            Way::Udp(socket) => {
                let now = exchange_on(socket, b"still there")?.with_source_kept()?;
                ensure!(now == self.backend, "{now} instead of {}", self.backend);
                Ok(())
            }
        }
    }

    /// What a gateway would do with the flow's next packet.
    fn trace(&self, fleet: &Fleet, gateway: usize) -> Trace {
        let transport = match self.way {
            Way::Tcp(_) => Transport::Tcp,
            Way::Udp(_) => Transport::Udp,
        };
        fleet.agents[gateway]
            .trace(transport, self.local, Fleet::service(self.vip))
            .unwrap()
    }

    /// The slot of the flow on a gateway.
    fn slot(&self, fleet: &Fleet, gateway: usize) -> TraceSlot {
        let slot = self.trace(fleet, gateway).slot;
        slot.expect("a published port has a table")
    }

    /// Whether that slot is settled.
    fn is_settled(&self, fleet: &Fleet, gateway: usize) -> bool {
        self.slot(fleet, gateway).is_settled
    }
}

/// [`FLOWS`] flows of each VIP by TCP.
fn open_tcp(fleet: &Fleet) -> Vec<Flow> {
    let open = |vip| (0..FLOWS).map(move |_| Flow::open_tcp(&fleet.client, vip).unwrap());
    VIPS.into_iter().flat_map(open).collect()
}

/// Lets every flow talk; none may be lost.
#[track_caller]
fn assert_all_talk(flows: &mut [Flow], when: &str) {
    for flow in flows {
        if let Err(error) = flow.talk() {
            panic!(
                "{when}: {} -> {} lost {}: {error:#}",
                flow.local, flow.vip, flow.backend
            );
        }
    }
}
