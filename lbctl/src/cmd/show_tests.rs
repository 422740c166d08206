use lbagent_api::instance::InstanceState;
use lbagent_api::policy::GroupPolicy;
use lbagent_api::service_group::Protocol;
use time::OffsetDateTime;
use uuid::Uuid;

use super::*;
use crate::table::tests::check_fits;

fn traffic(flows: u64) -> Traffic {
    Traffic {
        flows,
        in_packets: flows * 4,
        out_packets: flows * 3,
        in_bytes: flows * 400,
        out_bytes: flows * 3000,
    }
}

fn backend(name: &str, ip: &str, state: InstanceState, slots: u32, flows: u64) -> TableBackend {
    TableBackend {
        uuid: Uuid::from_u128(u128::from(name.as_bytes()[0])),
        name: name.into(),
        ip: ip.parse().unwrap(),
        state,
        weight: 1,
        slots,
        next_hop: (slots > 0).then(|| lbagent_api::status::TableNextHop {
            interface: "be1".into(),
            link_address: "02:00:00:00:00:01".into(),
            vlan: 0,
            mtu: 1500,
        }),
        traffic: traffic(flows),
    }
}

fn sample(second: i64, flows: u64) -> Table {
    let vip = |ip: &str, backends: Vec<TableBackend>| TableVip {
        ip: ip.parse().unwrap(),
        port: 5432,
        protocol: Protocol::Tcp,
        destination_port: 15432,
        forwarding_mode: "nat".into(),
        slots: 509,
        traffic: traffic(flows),
        backends,
    };
    let v4 = vec![
        backend("a", "10.0.0.7", InstanceState::Running, 509, flows),
        backend("b", "10.0.0.8", InstanceState::Draining, 0, 0),
    ];
    let v6 = vec![backend("a", "2001:db8::7", InstanceState::Running, 509, 0)];
    Table {
        taken_at: OffsetDateTime::from_unix_timestamp(second).unwrap(),
        generation_applied: 7,
        groups: vec![TableGroup {
            uuid: Uuid::from_u128(1),
            name: "db".into(),
            policy: GroupPolicy::default(),
            vips: vec![vip("192.0.2.1", v4), vip("2001:db8:1::1", v6)],
            terminated: vec![],
        }],
    }
}

#[test]
fn ports_of_the_terminator_are_listed() {
    let mut table = sample(0, 0);
    let port = lbagent_api::port_spec::parse("443:8080/tls+http").unwrap();
    table.groups[0].terminated = port;
    table.groups[0].vips.clear();
    let found = render(&table, true);
    let line = found.lines().last().unwrap();
    assert!(line.starts_with("TCP  *:443"), "{found}");
    assert!(line.ends_with("db to port 8080 by tls+http"), "{found}");
    assert!(
        found.contains("1 service group, 1 published port"),
        "{found}"
    );
}

#[test]
fn the_look_of_ipvsadm() {
    let expected = "\
lbagent, generation 7: 1 service group, 2 published ports
Prot LocalAddress:Port     Scheduler          Slots  Service
  -> RemoteAddress:Port    Forward    Weight  Slots  State
TCP  192.0.2.1:5432        maglev               509  db
  -> 10.0.0.7:15432        nat             1    509  running by be1 to 02:00:00:00:00:01 mtu 1500
  -> 10.0.0.8:15432        nat             1      0  draining by routing table
TCP  [2001:db8:1::1]:5432  maglev               509  db
  -> [2001:db8::7]:15432   nat             1    509  running by be1 to 02:00:00:00:00:01 mtu 1500";
    assert_eq!(render(&sample(0, 0), true), expected);
    let named = render(&sample(0, 0), false);
    assert!(
        named.contains("  -> a:15432 ") && named.contains("  -> b:15432 "),
        "{named}"
    );
}

#[test]
fn what_a_group_asks_for_stands_beside_its_name() {
    let mut table = sample(0, 0);
    table.groups[0].policy = serde_json::from_str(
        r#"{"sources": {"allow": ["192.0.2.0/24"], "deny": ["10.0.0.0/8", "::/0"]},
            "quic": {"server_id_length": 8}}"#,
    )
    .unwrap();
    let remark = "db (allow 192.0.2.0/24, deny 2 prefixes, quic server id length 8)";
    let shown = render(&table, true);
    assert_eq!(shown.matches(remark).count(), 2, "{shown}");
}

#[test]
fn nothing_published() {
    let empty = Table {
        groups: vec![],
        ..sample(0, 0)
    };
    let expected = "\
lbagent, generation 7: 0 service groups, 0 published ports
Prot LocalAddress:Port   Scheduler          Slots  Service
  -> RemoteAddress:Port  Forward    Weight  Slots  State";
    assert_eq!(render(&empty, true), expected);
}

#[test]
fn stats() {
    let expected = "\
lbagent, generation 7: 1 service group, 2 published ports
Prot LocalAddress:Port     Conns  InPkts  OutPkts  InBytes  OutBytes
  -> RemoteAddress:Port
TCP  192.0.2.1:5432         1000    4000     3000   400000   3000000
  -> 10.0.0.7:15432         1000    4000     3000   400000   3000000
  -> 10.0.0.8:15432            0       0        0        0         0
TCP  [2001:db8:1::1]:5432   1000    4000     3000   400000   3000000
  -> [2001:db8::7]:15432       0       0        0        0         0";
    assert_eq!(render_stats(&sample(0, 1000), true), expected);
}

#[test]
fn rates_are_per_second() {
    let rates = rates(&sample(10, 1000), &sample(12, 1500));
    let expected = "\
Over 2.0 s, bytes per second:
Prot LocalAddress:Port     CPS  InPPS  OutPPS   InBPS  OutBPS
  -> RemoteAddress:Port
TCP  192.0.2.1:5432        250   1000     750  100000  750000
  -> a:15432               250   1000     750  100000  750000
  -> b:15432                 0      0       0       0       0
TCP  [2001:db8:1::1]:5432  250   1000     750  100000  750000
  -> a:15432                 0      0       0       0       0";
    assert_eq!(render_rates(&rates, false), expected);
}

#[test]
fn counters_that_went_back_or_are_new_make_no_negative_rates() {
    let mut before = sample(10, 1000);
    let restarted = rates(&before, &sample(12, 10));
    assert_eq!(restarted.vips[0].rate.connections, 0.0);
    before.groups.clear();
    assert_eq!(
        rates(&before, &sample(12, 10)).vips[0].rate.connections,
        5.0
    );
    assert_eq!(
        rates(&sample(10, 1), &sample(10, 2)).vips[0]
            .rate
            .connections,
        0.0
    );
}

#[test]
fn everything_fits_a_terminal() {
    let mut worst = sample(1, u64::MAX / 4000);
    for group in &mut worst.groups {
        group.name = "g".repeat(63);
        for vip in &mut group.vips {
            vip.ip = "2001:db8:1111:2222:3333:4444:5555:6666".parse().unwrap();
            vip.port = 65_535;
            vip.forwarding_mode = "dsr-ipip".into();
            for backend in &mut vip.backends {
                backend.name = "b".repeat(63);
                backend.ip = vip.ip;
                backend.weight = 1000;
                backend.slots = 65_537;
                if let Some(hop) = &mut backend.next_hop {
                    hop.interface = "i".repeat(15);
                    hop.vlan = 4094;
                }
            }
        }
    }
    let rates = rates(&sample(0, 0), &worst);
    for numeric in [false, true] {
        let text = check_fits("show", || render(&worst, numeric));
        assert!(text.contains("4094") && text.contains("\n  -> "), "{text}");
        let text = check_fits("show --stats", || render_stats(&worst, numeric));
        assert!(text.contains('T'), "{text}");
        check_fits("show --rate", || render_rates(&rates, numeric));
    }
    // A program gets the numbers.
    assert!(render_stats(&worst, true).contains(&(u64::MAX / 4000).to_string()));
}
