//! What service groups' policies do to packets: sources admitted by prefix, QUIC connection ids.

use std::net::SocketAddr;

use lbagent::desired::{QuicLayout, SourcePolicy, Transport};
use lbagent_common::Outcome;
use lbagent_tests::packet_builder::{Segment, describe, tcp, udp};
use lbagent_tests::prog_run::{Action, Rig, Side, VIP_V4, VIP_V6};
use lbagent_tests::require_root;
use uuid::Uuid;

use crate::{assert_untouched, at};

fn rig(sources: SourcePolicy) -> (Rig, Uuid) {
    let mut rig = Rig::new().unwrap();
    let group = rig.group("web", &[(443, 443, Transport::Tcp)]);
    rig.instance("a", group, &["10.66.0.11", "fd66::11"])
        .unwrap();
    set_sources(&mut rig, group, sources);
    (rig, group)
}

fn set_sources(rig: &mut Rig, group: Uuid, sources: SourcePolicy) {
    rig.desired
        .service_groups
        .get_mut(&group)
        .unwrap()
        .policy
        .sources = sources;
    rig.reconcile().unwrap();
}

fn sources(allow: &[&str], deny: &[&str]) -> SourcePolicy {
    let parse = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
    SourcePolicy {
        allow: parse(allow),
        deny: parse(deny),
    }
}

#[track_caller]
fn check(rig: &mut Rig, client: &str, admitted: bool) {
    let client: IpAddrText = client.into();
    let vip = if client.0.contains(':') {
        format!("[{VIP_V6}]:443")
    } else {
        format!("{VIP_V4}:443")
    };
    let frame = tcp(client.at(4000), at(&vip), Segment::Syn, b"");
    let ran = rig.run(Side::Client, &frame).unwrap();
    if admitted {
        assert_eq!(ran.outcome, Outcome::ForwardRedirect, "{}", client.0);
    } else {
        assert_untouched(&ran, Action::Drop, Outcome::DropSource, &frame);
    }
}

struct IpAddrText(String);

impl From<&str> for IpAddrText {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl IpAddrText {
    fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.0.parse().unwrap(), port)
    }
}

/// Prefixes that are admitted, prefixes that are refused, and clients with what becomes of them.
type Case = (
    &'static [&'static str],
    &'static [&'static str],
    &'static [(&'static str, bool)],
);

#[test]
fn the_longest_prefix_decides_and_a_list_of_admitted_ones_excludes_the_rest() {
    require_root!();
    let cases: [Case; 5] = [
        (&[], &[], &[("203.0.113.7", true), ("2001:db8:c::7", true)]),
        (
            &[],
            &["203.0.113.0/24"],
            &[
                ("203.0.113.7", false),
                ("203.0.114.7", true),
                ("2001:db8:c::7", true),
            ],
        ),
        (
            &["203.0.113.0/25", "2001:db8:c::/48"],
            &["203.0.113.64/26", "203.0.113.9/32"],
            &[
                ("203.0.113.7", true),
                ("203.0.113.9", false),
                ("203.0.113.65", false),
                ("203.0.113.128", false),
                ("2001:db8:c::7", true),
                ("2001:db8:d::7", false),
            ],
        ),
        // An IPv6 prefix holds no IPv4 address, the longest one of all included.
        (
            &["::/0"],
            &["2001:db8:c::7/128"],
            &[
                ("203.0.113.7", false),
                ("2001:db8:c::7", false),
                ("2001:db8:c::8", true),
            ],
        ),
        (
            &[],
            &["::/0"],
            &[("203.0.113.7", true), ("2001:db8:c::8", false)],
        ),
    ];
    let (mut rig, group) = rig(SourcePolicy::default());
    for (allow, deny, clients) in cases {
        set_sources(&mut rig, group, sources(allow, deny));
        for (client, admitted) in clients {
            check(&mut rig, client, *admitted);
        }
        let rules = rig.actual().unwrap().rules;
        assert!(
            !rules.is_empty() || allow.is_empty() && deny.is_empty(),
            "no rules for {allow:?} {deny:?}"
        );
    }
    // Rules that nobody names any more are gone.
    set_sources(&mut rig, group, SourcePolicy::default());
    assert!(rig.actual().unwrap().rules.is_empty());
}

#[test]
fn rules_of_one_group_are_not_anothers() {
    require_root!();
    let (mut rig, _) = rig(sources(&[], &["203.0.113.0/24"]));
    let other = rig.group("other", &[(444, 443, Transport::Tcp)]);
    rig.instance("b", other, &["10.66.0.12"]).unwrap();
    rig.reconcile().unwrap();
    check(&mut rig, "203.0.113.7", false);
    let frame = tcp(
        at("203.0.113.7:4000"),
        at(&format!("{VIP_V4}:444")),
        Segment::Syn,
        b"",
    );
    let ran = rig.run(Side::Client, &frame).unwrap();
    assert_eq!(ran.outcome, Outcome::ForwardRedirect);
}

const LENGTH: u8 = 4;
const ROTATION: u8 = 2;

/// Three instances whose server ids are four times their number.
fn quic_rig() -> Rig {
    let mut rig = Rig::new().unwrap();
    let group = rig.group("quic", &[(443, 443, Transport::Udp)]);
    rig.desired
        .service_groups
        .get_mut(&group)
        .unwrap()
        .policy
        .quic = Some(QuicLayout {
        server_id_length: LENGTH,
        config_rotation: ROTATION,
    });
    for number in 1..=3 {
        let addresses = [format!("10.66.0.1{number}"), format!("fd66::1{number}")];
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        let uuid = rig
            .instance(&format!("i{number}"), group, &addresses)
            .unwrap();
        let instance = rig.desired.instances.get_mut(&uuid).unwrap();
        let id = format!("{number:02x}").repeat(usize::from(LENGTH));
        instance.policy.quic_server_id = Some(id.parse().unwrap());
    }
    rig.reconcile().unwrap();
    rig
}

/// A connection id of a server, as long as servers make them.
fn connection_id(rotation: u8, server: u8) -> Vec<u8> {
    let mut id = vec![rotation << 5 | 0x0f];
    id.extend([server; LENGTH as usize]);
    id.extend([0xa5; 6]);
    id
}

/// A packet after the handshake (RFC 9000, section 17.3).
fn short(id: &[u8]) -> Vec<u8> {
    [&[0x40], id, &[0x5a; 24]].concat()
}

/// A packet of the handshake (RFC 9000, section 17.2).
fn long(id: &[u8]) -> Vec<u8> {
    [&[0xe0, 0, 0, 0, 1, id.len() as u8], id, &[0x5a; 40]].concat()
}

fn quic_owner(rig: &mut Rig, client: SocketAddr, payload: &[u8]) -> String {
    let vip = if client.is_ipv4() { VIP_V4 } else { VIP_V6 };
    let vip = SocketAddr::new(vip.parse().unwrap(), 443);
    let (_, out) = rig
        .run_uncounted(Side::Client, &udp(client, vip, payload))
        .unwrap();
    let described = describe(&out).expect("right checksums");
    assert_ne!(described.destination, vip, "not forwarded");
    described.destination.ip().to_string()
}

#[test]
fn a_connection_id_finds_its_server_from_any_address() {
    require_root!();
    let mut rig = quic_rig();
    // Another gateway, that never saw the handshake, has the same tables.
    let mut other = quic_rig();
    for server in 1..=3_u8 {
        let id = connection_id(ROTATION, server);
        for step in 0..60_u16 {
            let client = at(&format!("203.0.113.{}:{}", step + 1, 1000 + step));
            let client_v6 = at(&format!("[2001:db8:c::{}]:{}", step + 1, 1000 + step));
            for payload in [short(&id), long(&id)] {
                for rig in [&mut rig, &mut other] {
                    assert_eq!(
                        quic_owner(rig, client, &payload),
                        format!("10.66.0.1{server}")
                    );
                }
                let v6 = quic_owner(&mut rig, client_v6, &payload);
                assert_eq!(v6, format!("fd66::1{server}"));
            }
        }
    }
}

#[test]
fn what_names_no_server_follows_its_flow() {
    require_root!();
    let mut rig = quic_rig();
    for port in 1000..1060 {
        let client = at(&format!("203.0.113.7:{port}"));
        let by_flow = quic_owner(&mut rig, client, b"x");
        for (name, payload) in [
            ("another rotation", short(&connection_id(ROTATION + 1, 1))),
            ("an unknown server", short(&connection_id(ROTATION, 9))),
            ("reserved for no routing", short(&connection_id(7, 1))),
            (
                "an id too short for a server",
                long(&connection_id(ROTATION, 1)[..LENGTH as usize]),
            ),
            ("no connection id", long(&[])),
            (
                "a packet too short for an id",
                short(&connection_id(ROTATION, 1))[..20].to_vec(),
            ),
            ("an empty datagram", Vec::new()),
        ] {
            assert_eq!(quic_owner(&mut rig, client, &payload), by_flow, "{name}");
        }
    }
}
