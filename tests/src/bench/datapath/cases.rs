//! What is measured.

use std::fmt;
use std::net::SocketAddr;

use anyhow::Result;
use lbagent::desired::Transport;

use super::gateway::{BACKENDS, CHANGED, Group, SETTLED};
use crate::bench::floors::{Flows, Target};
use crate::bench::layout;
use crate::packet_builder::{self, Segment};
use crate::prog_run::{CLIENT_V4, CLIENT_V6, VIP_V4, VIP_V6};

/// The unit of all ratios.
pub(super) const REFERENCE: &str = "floor/ref";
/// Cases that goals name.
pub(super) const ESTABLISHED_1: &str = "established/1";
pub(super) const ESTABLISHED_64K: &str = "established/64k";
pub(super) const ESTABLISHED_512K: &str = "established/512k";
pub(super) const SYN: &str = "syn/distinct";
pub(super) const FOREIGN: &str = "foreign";
pub(super) const CHANGED_FIRST: &str = "changed/first";
pub(super) const CHANGED_64K: &str = "changed/64k";
pub(super) const CHANGED_FLOODED: &str = "changed/flooded";

/// Flows of changed slots.
pub(super) const TRACKED: u32 = 1 << 16;
/// First packets of each kind that a flood has: together more than twice what `CONNS` has room for.
pub(super) const FLOOD: u32 = 600_000;

/// Destinations that are nobody's VIP.
const FOREIGN_V4: &str = "192.0.2.99";
const FOREIGN_V6: &str = "2001:db8:a::99";

const XDP_PASS: u32 = 2;
const XDP_TX: u32 = 3;
const XDP_REDIRECT: u32 = 4;

/// What is done before a case, in every round.
pub(super) enum Before {
    Nothing,
    /// No flow was ever seen.
    Forget,
    /// Each of the tracked flows sends a packet of the case.
    Establish,
    /// First packets of as many flows as there are packets, of each of these frames.
    Flood(Vec<Vec<u8>>),
}

/// One thing to measure.
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) family: &'static str,
    pub(super) proto: &'static str,
    pub(super) mode: &'static str,
    pub(super) target: Target,
    pub(super) frame: Vec<u8>,
    pub(super) flows: Flows,
    pub(super) before: Before,
    /// What the program must return.
    pub(super) action: u32,
    /// Bytes by which the frame must grow.
    pub(super) growth: u32,
    /// How many backends a long run must reach.
    pub(super) backends: u32,
}

impl Case {
    /// How many packets to measure, if other cases have so many: a flow's first packet is one.
    pub(super) fn packets(&self, packets: u32) -> u32 {
        match self.flows {
            Flows::InTurn(flows) if flows > 0 => flows,
            _ => packets,
        }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            family,
            proto,
            mode,
            ..
        } = self;
        write!(out, "{name} {family} {proto} {mode}")
    }
}

/// An address family's client and VIP.
struct Family {
    name: &'static str,
    client: &'static str,
    vip: &'static str,
    foreign: &'static str,
}

const FAMILIES: [Family; 2] = [
    Family {
        name: "ipv4",
        client: CLIENT_V4,
        vip: VIP_V4,
        foreign: FOREIGN_V4,
    },
    Family {
        name: "ipv6",
        client: CLIENT_V6,
        vip: VIP_V6,
        foreign: FOREIGN_V6,
    },
];

const PROTOCOLS: [(&str, Transport); 2] = [("tcp", Transport::Tcp), ("udp", Transport::Udp)];

/// Every case, the floors first. Cases of changed slots build on the one before.
pub(super) fn all() -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    for (name, target, growth) in [
        ("floor/tx", Target::Tx, 0),
        (REFERENCE, Target::Reference, 20),
        ("floor/stateless", Target::Stateless, 20),
    ] {
        cases.push(Case {
            name,
            family: "ipv4",
            proto: "tcp",
            mode: "none",
            target,
            frame: frame(CLIENT_V4, VIP_V4, SETTLED[0].port, Kind::Ack)?,
            flows: Flows::Among(1 << 16),
            before: Before::Nothing,
            action: XDP_TX,
            growth,
            backends: 0,
        });
    }
    for (index, family) in FAMILIES.iter().enumerate() {
        for (proto, transport) in PROTOCOLS {
            let port = SETTLED[0].port;
            let kind = Kind::within_flow(transport);
            let foreign = frame(family.client, family.foreign, port, kind)?;
            let among = Flows::Among(1 << 16);
            let template = Case {
                action: XDP_PASS,
                ..balanced(family, proto, "none", FOREIGN, foreign, among)
            };
            cases.push(Case {
                backends: 0,
                ..template
            });
            for group in &SETTLED {
                settled(family, index, (proto, transport), group, &mut cases)?;
            }
            for group in &CHANGED {
                changed(family, index, (proto, transport), group, &mut cases)?;
            }
        }
    }
    Ok(cases)
}

/// A case of lbagent's own program that sends to all backends of a group.
fn balanced(
    family: &Family,
    proto: &'static str,
    mode: &'static str,
    name: &'static str,
    frame: Vec<u8>,
    flows: Flows,
) -> Case {
    Case {
        name,
        family: family.name,
        proto,
        mode,
        target: Target::Ingress,
        frame,
        flows,
        before: Before::Nothing,
        action: XDP_REDIRECT,
        growth: 0,
        backends: BACKENDS,
    }
}

fn settled(
    family: &Family,
    index: usize,
    (proto, transport): (&'static str, Transport),
    group: &Group,
    cases: &mut Vec<Case>,
) -> Result<()> {
    let mut add = |name, kind, flows, backends| -> Result<()> {
        let frame = frame(family.client, family.vip, group.port, kind)?;
        cases.push(Case {
            growth: group.growth[index],
            backends,
            ..balanced(family, proto, group.mode, name, frame, flows)
        });
        Ok(())
    };
    let kind = Kind::within_flow(transport);
    add(ESTABLISHED_1, kind, Flows::Among(1), 1)?;
    add(ESTABLISHED_64K, kind, Flows::Among(1 << 16), BACKENDS)?;
    add(ESTABLISHED_512K, kind, Flows::Among(1 << 19), BACKENDS)?;
    if transport == Transport::Tcp {
        add(SYN, Kind::Syn, Flows::DISTINCT, BACKENDS)?;
    }
    Ok(())
}

fn changed(
    family: &Family,
    index: usize,
    (proto, transport): (&'static str, Transport),
    group: &Group,
    cases: &mut Vec<Case>,
) -> Result<()> {
    let frame = |kind| frame(family.client, family.vip, group.port, kind);
    let first = match transport {
        Transport::Tcp => Kind::Syn,
        Transport::Udp => Kind::Datagram,
    };
    let among = Flows::Among(TRACKED);
    let mut steps = vec![
        (CHANGED_FIRST, first, Flows::InTurn(TRACKED), Before::Forget),
        (
            CHANGED_64K,
            Kind::within_flow(transport),
            among,
            Before::Establish,
        ),
    ];
    if transport == Transport::Tcp {
        let flood = vec![frame(Kind::Syn)?, frame(Kind::Datagram)?];
        steps.push((CHANGED_FLOODED, Kind::Ack, among, Before::Flood(flood)));
    }
    for (name, kind, flows, before) in steps {
        cases.push(Case {
            growth: group.growth[index],
            before,
            ..balanced(family, proto, group.mode, name, frame(kind)?, flows)
        });
    }
    Ok(())
}

/// What a frame carries.
#[derive(Clone, Copy)]
enum Kind {
    /// A SYN with the MSS of an Ethernet, which encapsulation lowers.
    Syn,
    Ack,
    Datagram,
}

impl Kind {
    /// Of a flow that sent before.
    fn within_flow(transport: Transport) -> Self {
        match transport {
            Transport::Tcp => Self::Ack,
            Transport::Udp => Self::Datagram,
        }
    }
}

/// A frame eight bytes longer than the words that the harness restores: a short request or its
/// acknowledgement.
fn frame(client: &str, vip: &str, port: u16, kind: Kind) -> Result<Vec<u8>> {
    const MSS_1460: [u8; 4] = [2, 4, 0x05, 0xb4];
    let client = SocketAddr::new(client.parse()?, 40_000);
    let vip = SocketAddr::new(vip.parse()?, port);
    let words = if vip.is_ipv4() {
        layout::FRAME_WORDS_V4
    } else {
        layout::FRAME_WORDS_V6
    };
    let build = |payload: &[u8]| match kind {
        Kind::Syn => packet_builder::syn(client, vip, &MSS_1460, payload),
        Kind::Ack => packet_builder::tcp(client, vip, Segment::Ack, payload),
        Kind::Datagram => packet_builder::udp(client, vip, payload),
    };
    let payload = vec![0x5a; words * 8 + 8 - build(&[]).len()];
    Ok(build(&payload))
}
