use std::net::SocketAddr;
use std::sync::Arc;

use lbagent_api::terminator::{
    FaultyObject, Group, GroupDomain, Instance, InstanceState, Service, ServiceKind, Snapshot,
};
use uuid::Uuid;

use super::{HostTable, Routes, canonical_host};

fn group(id: u128, names: &[&str], service: Service) -> Group {
    let domain = |name: &&str| GroupDomain {
        name: (*name).to_owned(),
        certificate: None,
        alternatives: Vec::new(),
    };
    Group {
        uuid: Uuid::from_u128(id),
        name: format!("group-{id}"),
        soft_limit: 1,
        hard_limit: 10,
        domains: names.iter().map(domain).collect(),
        services: vec![service],
        instances: vec![Instance {
            uuid: Uuid::from_u128(id + 1000),
            name: "one".to_owned(),
            addresses: vec!["10.0.0.1".parse().unwrap()],
            weight: 1,
            state: InstanceState::Active,
        }],
    }
}

fn service(kind: ServiceKind, port: u16) -> Service {
    Service {
        vips: vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()],
        port,
        destination_port: 8080,
        kind,
        policy: Default::default(),
    }
}

fn snapshot(groups: Vec<Group>) -> Snapshot {
    Snapshot {
        generation: 7,
        groups,
        ..Snapshot::default()
    }
}

#[track_caller]
fn refused(groups: Vec<Group>, id: u128, reason: &str) {
    let faults = Routes::compile(&snapshot(groups), &Routes::default()).unwrap_err();
    assert_eq!(faults.len(), 1, "{faults:?}");
    let object = FaultyObject::ServiceGroup(Uuid::from_u128(id));
    assert_eq!(faults[0].object, object);
    assert!(faults[0].reason.contains(reason), "{}", faults[0].reason);
}

#[test]
fn a_host_name_leads_to_its_group() {
    let https = || service(ServiceKind::Https, 443);
    let groups = vec![
        group(1, &["www.example.com"], https()),
        group(2, &["*.example.com"], https()),
        group(3, &["*.a.example.com", "Example.ORG."], https()),
        group(4, &["solo.example"], service(ServiceKind::Tls, 8443)),
    ];
    let routes = Routes::compile(&snapshot(groups), &Routes::default()).unwrap();
    assert_eq!(routes.generation, Some(7));
    let check = |dialled: &str, host: &str, expected: Option<u128>| {
        let dialled: SocketAddr = dialled.parse().unwrap();
        let target = routes
            .port(dialled)
            .and_then(|port| port.lookup(&canonical_host(host)));
        let found = target.map(|target| target.group.uuid.as_u128());
        assert_eq!(found, expected, "{host} at {dialled}");
    };
    check("192.0.2.1:443", "www.example.com", Some(1));
    check("[2001:db8::1]:443", "WWW.example.com.", Some(1));
    // A dual-stack socket tells IPv4 in its mapped form.
    check("[::ffff:192.0.2.1]:443", "www.example.com", Some(1));
    check("192.0.2.1:443", "x.example.com", Some(2));
    check("192.0.2.1:443", "x.y.example.com", Some(2));
    check("192.0.2.1:443", "x.a.example.com", Some(3));
    check("192.0.2.1:443", "example.org", Some(3));
    check("192.0.2.1:443", "example.com", None);
    check("192.0.2.1:443", "", None);
    check("192.0.2.1:443", "..", None);
    check("192.0.2.1:443", "solo.example", None);
    check("192.0.2.1:8443", "solo.example", Some(4));
    check("192.0.2.2:443", "www.example.com", None);
    let only = |dialled: &str| {
        let port = routes.port(dialled.parse().unwrap()).unwrap();
        port.only().map(|target| target.group.uuid.as_u128())
    };
    assert_eq!(only("192.0.2.1:8443"), Some(4));
    assert_eq!(only("192.0.2.1:443"), None);
}

#[test]
fn what_cannot_be_served_is_told_by_group() {
    refused(
        vec![
            group(1, &["a.example"], service(ServiceKind::Https, 443)),
            group(2, &["b.example"], service(ServiceKind::Http, 443)),
        ],
        2,
        "port 443 of 192.0.2.1: other groups use it with TLS",
    );
    refused(
        vec![
            group(1, &["a.example"], service(ServiceKind::Https, 443)),
            group(2, &["A.example."], service(ServiceKind::Https, 443)),
        ],
        2,
        "another group has the host name 'A.example.'",
    );
    let mut twice = group(1, &["a.example"], service(ServiceKind::Https, 443));
    twice.services.push(twice.services[0].clone());
    refused(vec![twice], 1, "two services");
    let mut zero = group(1, &["a.example"], service(ServiceKind::Https, 443));
    zero.services[0].destination_port = 0;
    refused(vec![zero], 1, "port 0");
}

#[test]
fn counters_outlive_their_snapshot() {
    let one = || group(1, &["a.example"], service(ServiceKind::Https, 443));
    let former = Routes::compile(&snapshot(vec![one()]), &Routes::default()).unwrap();
    let two = group(2, &["b.example"], service(ServiceKind::Https, 443));
    let routes = Routes::compile(&snapshot(vec![two, one()]), &former).unwrap();
    let [before, after, other] = [(&former, 1), (&routes, 1), (&routes, 2)]
        .map(|(routes, id)| routes.group(Uuid::from_u128(id)).unwrap());
    assert!(Arc::ptr_eq(&before.counters, &after.counters));
    assert!(Arc::ptr_eq(
        &before.instances[0].load,
        &after.instances[0].load
    ));
    assert!(!Arc::ptr_eq(&after.counters, &other.counters));
}

#[test]
fn a_certificate_wildcard_stands_for_one_label() {
    let mut table = HostTable::default();
    table.entry("*.example.com").or_insert(1);
    table.entry("a.example.com").or_insert(2);
    assert_eq!(table.lookup_one_label("b.example.com"), Some(&1));
    assert_eq!(table.lookup_one_label("a.example.com"), Some(&2));
    assert_eq!(table.lookup_one_label("c.b.example.com"), None);
    assert_eq!(table.lookup_one_label("example.com"), None);
}

proptest::proptest! {
    #[test]
    fn a_lookup_finds_what_a_walk_over_all_names_finds(
        // Labels of one letter of two, so that names and wildcards meet often.
        names in proptest::collection::btree_set(r"(\*\.)?[ab](\.[ab]){0,3}", 0..12),
        host in r"[ab]?(\.[ab]){0,4}",
    ) {
        let mut table = HostTable::default();
        for name in &names {
            table.entry(name).or_insert_with(|| name.clone());
        }
        // The longest name that the host ends with, after a label at least.
        let wildcards = names.iter().filter(|name| {
            name.strip_prefix('*').is_some_and(|rest| host.ends_with(rest))
        });
        let longest = wildcards.max_by_key(|name| name.len());
        let expected = names.get(&host).or(longest);
        assert_eq!(table.lookup(&host), expected);
        let one_label = expected.filter(|name| {
            name.split('.').count() == host.split('.').count()
        });
        assert_eq!(table.lookup_one_label(&host), one_label);
    }
}
