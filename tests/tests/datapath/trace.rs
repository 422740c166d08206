//! `lbctl trace` says beforehand what the programs then do: for random flows, among changes of all
//! kinds.

use std::net::{IpAddr, SocketAddr};

use lbagent::dataplane::{Capacity, Dataplane};
use lbagent::desired::{ForwardingMode, InstanceState, SourcePolicy, Transport};
use lbagent::observe::{Arrival, explain};
use lbagent::plan::UnpublishedPorts;
use lbagent_api::service_group::Protocol;
use lbagent_api::status::Verdict;
use lbagent_api::trace::{ChoiceReason, SourceChoice, Trace, TraceQuery};
use lbagent_common::Addr;
use lbagent_tests::packet_builder::{Segment, describe, tcp, udp};
use lbagent_tests::prog_run::{Rig, Side, VIP_V4, VIP_V6};
use lbagent_tests::random::Random;
use lbagent_tests::require_root;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::at;

/// Flows in all; a change of the configuration after every [`EVERY`].
const FLOWS: usize = 900;
const EVERY: usize = 30;

struct Scene {
    rig: Rig,
    random: Random,
    groups: [Uuid; 3],
    arrival: Arrival,
    /// Reasons and outcomes that came up.
    seen: Vec<String>,
}

impl Scene {
    fn new(seed: u64) -> Self {
        // Few places for stored flows, so that some find no room.
        let mut rig = Rig::with_capacity(Capacity {
            slots: 1 << 16,
            vips: 256,
            backends: 256,
            returns: 1 << 10,
            conns: 128,
            ..Capacity::default()
        })
        .unwrap();
        // Two ports that lead to one, so that replies need a stored flow.
        let web = [
            (80, 8080, Transport::Tcp),
            (81, 8080, Transport::Tcp),
            (443, 8443, Transport::Tcp),
            (443, 8443, Transport::Udp),
        ];
        let groups = [
            rig.group("web", &web),
            rig.group("dns", &[(53, 53, Transport::Udp), (53, 53, Transport::Tcp)]),
            // Whose forwarding mode changes.
            rig.group("direct", &[(90, 90, Transport::Tcp)]),
        ];
        let policy = &mut rig
            .desired
            .service_groups
            .get_mut(&groups[1])
            .unwrap()
            .policy;
        policy.sources = SourcePolicy {
            allow: vec![
                "203.0.113.0/24".parse().unwrap(),
                "2001:db8:c::/48".parse().unwrap(),
            ],
            deny: vec!["203.0.113.64/26".parse().unwrap()],
        };
        let mut scene = Self {
            rig,
            random: Random::new(seed),
            groups,
            arrival: Arrival {
                interface: "cl0".into(),
                ifindex: nix::net::if_::if_nametoindex("cl0").unwrap(),
            },
            seen: Vec::new(),
        };
        for group in scene.groups {
            scene.add(group);
            scene.add(group);
        }
        scene.rig.reconcile().unwrap();
        scene
    }

    fn add(&mut self, group: Uuid) {
        let number = self.rig.desired.instances.len() + 11;
        let addresses = [format!("10.66.0.{number}"), format!("fd66::{number}")];
        // One in four is reached as the routing table says, one in four by the clients' interface.
        let way = number % 4;
        self.rig.resolved = way != 2;
        let [v4, v6] = [&*addresses[0], &*addresses[1]];
        self.rig
            .instance(&format!("i{number}"), group, &[v4, v6])
            .unwrap();
        if way == 3 {
            for address in [v4, v6] {
                let address: IpAddr = address.parse().unwrap();
                self.rig.set_path(address, "cl0").unwrap();
            }
        }
    }

    fn change(&mut self) {
        let instances: Vec<Uuid> = self.rig.desired.instances.keys().copied().collect();
        let one = instances[self.random.below(instances.len())];
        let state = match self.random.below(8) {
            0 | 1 if instances.len() < 60 => {
                let group = self.groups[self.random.below(3)];
                self.add(group);
                None
            }
            2 => Some(InstanceState::draining(
                self.rig.now,
                self.rig.now + Duration::seconds(60),
            )),
            3 => Some(InstanceState::Stopped),
            4 => {
                self.rig.gateway.unpublished_ports = match self.rig.gateway.unpublished_ports {
                    UnpublishedPorts::Pass => UnpublishedPorts::Drop,
                    UnpublishedPorts::Drop => UnpublishedPorts::Pass,
                };
                None
            }
            5 | 6 => {
                let mode = ForwardingMode::ALL[self.random.below(4)];
                self.rig.set_mode(self.groups[2], mode);
                None
            }
            _ => Some(InstanceState::Running),
        };
        if let Some(state) = state {
            self.rig.set_state(one, state);
        }
        self.rig.reconcile().unwrap();
    }

    /// A flow that may have been here before.
    fn query(&mut self) -> TraceQuery {
        let is_v4 = self.random.below(3) > 0;
        let client = match (self.random.below(8), is_v4) {
            // On the backends' link, so that its source must be rewritten.
            (0, true) => format!("10.66.0.{}", 200 + self.random.below(3)),
            (0, false) => format!("fd66::{}", 200 + self.random.below(3)),
            // Refused by the rules of one group.
            (1, true) => format!("203.0.113.{}", 64 + self.random.below(3)),
            (1, false) => "2001:db8:dddd::7".into(),
            (_, true) => format!("203.0.113.{}", 1 + self.random.below(5)),
            (_, false) => format!("2001:db8:c::{}", 1 + self.random.below(5)),
        };
        let vip: IpAddr = match (self.random.below(20), is_v4) {
            (0, true) => "192.0.2.99",
            (0, false) => "2001:db8:a::99",
            (_, true) => VIP_V4,
            (_, false) => VIP_V6,
        }
        .parse()
        .unwrap();
        let ports = [80, 81, 443, 53, 53, 90, 90, 8080];
        let port = ports[self.random.below(ports.len())];
        let protocol = match self.random.below(3) {
            0 => Protocol::Udp,
            _ => Protocol::Tcp,
        };
        TraceQuery {
            protocol,
            source: SocketAddr::new(
                client.parse().unwrap(),
                40_000 + self.random.below(12) as u16,
            ),
            destination: SocketAddr::new(vip, port),
            is_new: protocol == Protocol::Tcp && self.random.below(3) == 0,
            interface: None,
            host: None,
        }
    }

    fn trace(rig: &Rig, arrival: &Arrival, query: &TraceQuery) -> Trace {
        let mut trace = None;
        let now = OffsetDateTime::UNIX_EPOCH;
        rig.dataplane.look_up(&mut |maps| {
            let explained = explain(maps, &rig.desired, query, Some(arrival), now);
            trace = Some(explained.unwrap());
        });
        trace.unwrap()
    }

    /// Traces a flow, runs its packet, and compares.
    fn check(&mut self) {
        let query = self.query();
        let (from, to) = (query.source, query.destination);
        let frame = match (query.protocol, query.is_new) {
            (Protocol::Udp, _) => udp(from, to, b"x"),
            (Protocol::Tcp, true) => tcp(from, to, Segment::Syn, b""),
            (Protocol::Tcp, false) => tcp(from, to, Segment::Ack, b"x"),
        };
        let told = |rig: &Rig| {
            rig.await_calm_clock().unwrap();
            Self::trace(rig, &self.arrival, &query)
        };
        let (trace, ran) = self.rig.run_after(Side::Client, &frame, told).unwrap();
        assert_eq!(trace.outcome, ran.outcome.label(), "{trace:#?}");
        self.seen.push(trace.outcome.clone());
        let chosen = trace.choice.as_ref();
        if let Some(choice) = chosen {
            self.seen.push(format!("{:?}", choice.why));
        }
        if trace.verdict != Verdict::Forwarded {
            assert_eq!(ran.backend, None, "{trace:#?}");
            return;
        }
        let chosen = chosen.and_then(|choice| choice.instance.clone());
        assert_eq!(chosen.map(|to| to.name), ran.backend, "{trace:#?}");
        let forwarding = trace.forwarding.as_ref().unwrap();
        self.seen.push(format!("{:?}", forwarding.source_choice));
        self.seen.push(forwarding.mode.clone());
        if let Some(mac) = forwarding.next_hop.link_address.as_ref() {
            let bytes: Vec<String> = ran.frame[..6].iter().map(|b| format!("{b:02x}")).collect();
            assert_eq!(*mac, bytes.join(":"), "{trace:#?}");
        }
        if forwarding.source_choice == SourceChoice::Outer {
            let wire: Vec<u8> = [&forwarding.source, &forwarding.destination]
                .into_iter()
                .flat_map(|text| Addr::from(text.parse::<IpAddr>().unwrap()).octets())
                .collect();
            // The outer addresses, in IPv6 both whole and in IPv4 without what maps them.
            let outer = if ran.frame[14] >> 4 == 4 {
                [&wire[12..16], &wire[28..]].concat()
            } else {
                wire
            };
            let at = if outer.len() == 8 { 26 } else { 22 };
            assert_eq!(ran.frame[at..at + outer.len()], outer, "{trace:#?}");
            return;
        }
        let described = describe(&ran.frame).unwrap();
        assert_eq!(
            (at(&forwarding.source), at(&forwarding.destination)),
            (described.source, described.destination),
            "{trace:#?}"
        );
    }
}

#[test]
fn a_trace_tells_what_the_program_then_does() {
    require_root!();
    let mut scene = Scene::new(0x7ace);
    for flow in 0..FLOWS {
        if flow % EVERY == EVERY - 1 {
            scene.change();
        }
        scene.check();
    }
    // A run in which some way never came up would prove little.
    let mut expected: Vec<String> = [
        ChoiceReason::Settled,
        ChoiceReason::Stored,
        ChoiceReason::New,
        ChoiceReason::Previous,
        ChoiceReason::NoRoom,
    ]
    .map(|why| format!("{why:?}"))
    .into();
    for source in [
        SourceChoice::Client,
        SourceChoice::ClientStored,
        SourceChoice::Gateway,
        SourceChoice::Outer,
    ] {
        expected.push(format!("{source:?}"));
    }
    for outcome in [
        "forward_redirect",
        "forward_tx",
        "pass_not_vip",
        "drop_unpublished",
        "drop_source",
        "nat",
        "dsr-l2",
        "dsr-ipip",
        "dsr-gue",
    ] {
        expected.push(outcome.into());
    }
    expected.retain(|word| !scene.seen.contains(word));
    assert_eq!(expected, Vec::<String>::new(), "never came up");
}
