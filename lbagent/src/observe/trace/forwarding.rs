//! Stage 6: the packet as it leaves, and by which way.

use std::net::{IpAddr, SocketAddr};

use lbagent_api::trace::{SourceChoice, TraceForwarding, TraceNextHop};
use lbagent_common::{Addr, BackendEntry, Outcome, VipEntry};

use super::{Ended, Stage, Tracer, end, interface_name, source};
use crate::desired::ForwardingMode;

impl Tracer<'_> {
    /// For a backend that is alive.
    pub(super) fn forward(&mut self, vip: &VipEntry, backend: &BackendEntry) -> Stage<Ended> {
        match vip.forwarding_mode {
            VipEntry::MODE_NAT => self.forward_nat(vip, backend),
            VipEntry::MODE_DSR_L2 => self.forward_l2(backend),
            VipEntry::MODE_DSR_IPIP => self.encapsulate(backend, ForwardingMode::DsrIpip),
            VipEntry::MODE_DSR_GUE => self.encapsulate(backend, ForwardingMode::DsrGue),
            _ => end(
                Outcome::DropNotConfigured,
                "the data plane does not know the forwarding mode",
            ),
        }
    }

    fn forward_nat(&mut self, vip: &VipEntry, backend: &BackendEntry) -> Stage<Ended> {
        if self.is_of_other_family(backend) {
            return end(Outcome::DropNoBackend, OTHER_FAMILY);
        }
        let way = self.way(backend);
        let select = source::Selection {
            maps: self.maps,
            settings: &self.settings,
            flow: &self.flow,
            vip,
            backend,
        };
        let (source, source_choice) = select.run()?;
        let destination = SocketAddr::new(backend.addr.into(), vip.destination_port.get());
        self.trace.forwarding = Some(TraceForwarding {
            mode: ForwardingMode::Nat.name().to_owned(),
            source: source.to_string(),
            destination: destination.to_string(),
            source_choice,
            next_hop: way.shown(),
        });
        if source_choice == SourceChoice::None {
            return end(
                Outcome::DropNoSource,
                "the source has to be rewritten, and no port of the gateway is free",
            );
        }
        let is_rewritten = source_choice == SourceChoice::Gateway;
        if !way.is_direct && is_rewritten && self.flow.vip.is_v4() {
            return end(Outcome::DropNoSource, OWN_ADDRESS);
        }
        Ok(Ok(way.leaves()))
    }

    fn forward_l2(&mut self, backend: &BackendEntry) -> Stage<Ended> {
        if self.is_of_other_family(backend) {
            return end(Outcome::DropNoBackend, OTHER_FAMILY);
        }
        let way = self.way(backend);
        self.trace.forwarding = Some(TraceForwarding {
            mode: ForwardingMode::DsrL2.name().to_owned(),
            source: self.trace.source.to_string(),
            destination: self.trace.destination.to_string(),
            source_choice: SourceChoice::Client,
            next_hop: way.shown(),
        });
        if !backend.shares_link() {
            return end(
                Outcome::DropNoRoute,
                "the backend is not on a link of the gateway, as dsr-l2 needs",
            );
        }
        if !way.is_direct {
            return end(
                Outcome::DropNoRoute,
                "the interface towards the backend takes no frames from XDP, and the kernel would \
                 not send this packet there",
            );
        }
        Ok(Ok(way.leaves()))
    }

    fn encapsulate(&mut self, backend: &BackendEntry, mode: ForwardingMode) -> Stage<Ended> {
        let way = self.way(backend);
        if backend.source == Addr::UNSPECIFIED {
            return end(
                Outcome::DropEncapsulation,
                "the gateway has no address towards the backend for the outer header",
            );
        }
        self.trace.forwarding = Some(TraceForwarding {
            mode: mode.name().to_owned(),
            source: IpAddr::from(backend.source).to_string(),
            destination: IpAddr::from(backend.addr).to_string(),
            source_choice: SourceChoice::Outer,
            next_hop: way.shown(),
        });
        if !way.is_direct && backend.addr.is_v4() {
            return end(Outcome::DropNoSource, OWN_ADDRESS);
        }
        Ok(Ok(way.leaves()))
    }

    fn is_of_other_family(&self, backend: &BackendEntry) -> bool {
        backend.addr.is_v4() != self.flow.vip.is_v4()
    }

    /// The way to a backend: as the agent resolved it, else as the routing table will say, which is
    /// taken to name the same interface.
    fn way(&self, backend: &BackendEntry) -> Way {
        let is_resolved =
            backend.has_next_hop() && self.maps.tick() <= self.settings.next_hops_until;
        let ifindex = backend.ifindex;
        let is_same = ifindex != 0 && self.arrival.is_some_and(|by| by.ifindex == ifindex);
        let sends_itself = ifindex != 0 && !backend.is_via_kernel() || is_same;
        Way {
            is_resolved,
            is_same,
            // The routing table names the VLAN's own device, which takes nothing from XDP.
            is_direct: sends_itself && (is_resolved || backend.vlan == 0),
            backend: *backend,
        }
    }
}

const OTHER_FAMILY: &str =
    "the backend's address is of the other family, which the forwarding mode cannot reach";
const OWN_ADDRESS: &str =
    "the kernel would have to forward the packet, and takes none from its own address";

/// How packets reach a backend.
struct Way {
    is_resolved: bool,
    /// They leave by the interface that they came in by.
    is_same: bool,
    /// The program itself sends them.
    is_direct: bool,
    backend: BackendEntry,
}

impl Way {
    fn shown(&self) -> TraceNextHop {
        let backend = &self.backend;
        let bytes: Vec<u8> = backend
            .link
            .iter()
            .flat_map(|word| word.to_ne_bytes())
            .collect();
        let mac: Vec<String> = bytes
            .iter()
            .take(6)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let known = |value: u16| (self.is_resolved && value != 0).then_some(value);
        TraceNextHop {
            is_resolved: self.is_resolved,
            interface: self.is_resolved.then(|| interface_name(backend.ifindex)),
            link_address: self.is_resolved.then(|| mac.join(":")),
            vlan: known(backend.vlan),
            mtu: known(backend.mtu),
            is_via_kernel: !self.is_direct,
        }
    }

    fn leaves(&self) -> Ended {
        if !self.is_direct {
            return (
                Outcome::ForwardKernel,
                "the kernel sends the packet on, because the interface towards the backend takes \
                 none from XDP"
                    .to_owned(),
            );
        }
        let name = interface_name(self.backend.ifindex);
        if self.is_same {
            let text = format!("leaves by {name}, which it arrived by");
            (Outcome::ForwardTx, text)
        } else if self.is_resolved {
            (Outcome::ForwardRedirect, format!("leaves by {name}"))
        } else {
            let text = "leaves as the kernel's routing table says".to_owned();
            (Outcome::ForwardRedirect, text)
        }
    }
}
