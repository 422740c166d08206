use lbagent_api::envelope::Reference;
use lbagent_api::port_spec;
use lbagent_api::service_group::Domain;
use uuid::Uuid;

use super::*;
use crate::table::tests::check_fits;

fn group(name: &str, ports: &str) -> ServiceGroup {
    ServiceGroup {
        uuid: Uuid::from_u128(1),
        name: name.into(),
        created_at: OffsetDateTime::UNIX_EPOCH,
        persistent: true,
        autoscale: false,
        soft_limit: 1,
        hard_limit: 65535,
        services: ports
            .split(' ')
            .flat_map(|port| port_spec::parse(port).unwrap())
            .collect(),
        domains: vec![Domain {
            fqdn: format!("{name}.lb.internal"),
            certificate: None,
        }],
        instances: vec![Reference {
            uuid: Uuid::from_u128(2),
            name: "a".into(),
        }],
        autokill: None,
        fqdn: None,
    }
}

#[test]
fn lists_and_records() {
    let mut pinned = group("dns", "53:5353/udp");
    pinned.services[0].ip = Some("192.0.2.1".parse().unwrap());
    pinned.instances.clear();
    let expected = "\
NAME  FQDN             SERVICES                     INSTANCES  CREATED AT            PERSISTENT
db    db.lb.internal   5432:5432/tcp 5432:5432/udp  a          1970-01-01T00:00:00Z  true
dns   dns.lb.internal  53:5353/udp@192.0.2.1        -          1970-01-01T00:00:00Z  true";
    assert_eq!(
        render_list(
            &[group("db", "5432/tcp 5432/udp"), pinned],
            Format::Table,
            OffsetDateTime::UNIX_EPOCH
        ),
        expected
    );
    let expected = "\
uuid:        00000000-0000-0000-0000-000000000001
name:        db
fqdn:        db.lb.internal
services:    5432:5432/tcp
instances:   a
soft limit:  1
hard limit:  65535
autokill:    -
created at:  1970-01-01T00:00:00Z
persistent:  true";
    assert_eq!(render(&group("db", "5432/tcp"), &[]), expected);
}

#[test]
fn everything_fits_a_terminal() {
    let long = "l".repeat(63);
    let mut worst = group(&long, "443:8080 5432:5432/tcp 65535:65535/udp");
    for service in &mut worst.services {
        service.ip = Some("2001:db8:1111:2222:3333:4444:5555:6666".parse().unwrap());
    }
    worst.domains[0].fqdn = [long.as_str(); 3].join(".");
    worst.instances = vec![
        Reference {
            uuid: Uuid::from_u128(2),
            name: long,
        };
        100
    ];
    let now = OffsetDateTime::now_utc();
    check_fits("service ls", || {
        render_list(std::slice::from_ref(&worst), Format::Table, now)
    });
    let policy = [("allow", "2001:db8:1111:2222:3333:4444::/96 ".repeat(40))];
    let text = check_fits("service get", || render(&worst, &policy));
    // Broken into lines, and nothing of it cut.
    assert!(text.matches('l').count() >= 63 * (1 + 3 + 100), "{text}");
}
