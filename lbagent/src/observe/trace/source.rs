//! Stage 5: which source the backend sees.

use std::net::SocketAddr;

use lbagent_api::trace::SourceChoice;
use lbagent_common::hash::source_port_index;
use lbagent_common::{
    Addr, BackendEntry, NatFlowEntry, NatFlowKey, Port, Protocol, Settings, VipEntry, limits,
};

use super::Flow;
use crate::dataplane::{DataplaneError, FlowMaps};

/// What the choice depends on.
pub(super) struct Selection<'a> {
    pub(super) maps: &'a dyn FlowMaps,
    pub(super) settings: &'a Settings,
    pub(super) flow: &'a Flow,
    pub(super) vip: &'a VipEntry,
    pub(super) backend: &'a BackendEntry,
}

/// A candidate's place among the flows of the way back.
enum Place {
    Ours,
    Free,
    Taken,
}

impl Selection<'_> {
    /// The source, and why it is this one. With [`SourceChoice::None`] it is the client's own.
    pub(super) fn run(&self) -> Result<(SocketAddr, SourceChoice), DataplaneError> {
        let own = (self.flow.client, self.flow.client_port);
        let must_rewrite = self.backend.answers_directly(&self.flow.client);
        if !must_rewrite && self.vip.flags & VipEntry::FLAG_TRACK_RETURN == 0 {
            return Ok((address(own), SourceChoice::Client));
        }
        let can_rewrite =
            self.backend.source != Addr::UNSPECIFIED && self.settings.source_port_count != 0;
        let last = if can_rewrite {
            limits::SOURCE_PORT_ATTEMPTS
        } else {
            0
        };
        let mut free = None;
        for attempt in u32::from(must_rewrite)..=last {
            let candidate = self.candidate(attempt);
            match self.place(candidate)? {
                Place::Ours => {
                    free = Some(attempt);
                    break;
                }
                Place::Free if free.is_none() => free = Some(attempt),
                Place::Free | Place::Taken => {}
            }
        }
        Ok(match free {
            None => (address(own), SourceChoice::None),
            Some(0) => (address(own), SourceChoice::ClientStored),
            Some(attempt) => (address(self.candidate(attempt)), SourceChoice::Gateway),
        })
    }

    /// Candidate 0 is the client itself, the others are ports of the gateway's own address.
    fn candidate(&self, attempt: u32) -> (Addr, Port) {
        if attempt == 0 {
            return (self.flow.client, self.flow.client_port);
        }
        let index = source_port_index(
            &self.flow.client,
            self.flow.client_port,
            self.vip.vip_id,
            attempt,
            u32::from(self.settings.source_port_count),
        );
        let port = u32::from(self.settings.source_port_first).wrapping_add(index) as u16;
        (self.backend.source, Port::new(port))
    }

    fn place(&self, (peer, peer_port): (Addr, Port)) -> Result<Place, DataplaneError> {
        let flow = self.flow;
        let key = NatFlowKey::new(
            self.backend.addr,
            self.vip.destination_port,
            peer,
            peer_port,
            flow.protocol,
        );
        let Some(entry) = self.maps.nat_flow(&key)? else {
            return Ok(Place::Free);
        };
        let is_ours = entry.client == flow.client
            && entry.client_port == flow.client_port
            && entry.vip == flow.vip
            && entry.vip_port == flow.vip_port;
        if is_ours {
            return Ok(Place::Ours);
        }
        let idle = if flow.protocol == Protocol::TCP {
            limits::NAT_TCP_IDLE_TICKS
        } else {
            limits::NAT_UDP_IDLE_TICKS
        };
        let last_seen = entry.last_seen & !NatFlowEntry::CLOSING;
        let silence = self.maps.tick().wrapping_sub(last_seen);
        let is_closing = entry.last_seen & NatFlowEntry::CLOSING != 0;
        Ok(if is_closing || silence > idle {
            Place::Free
        } else {
            Place::Taken
        })
    }
}

fn address((address, port): (Addr, Port)) -> SocketAddr {
    SocketAddr::new(address.into(), port.get())
}
