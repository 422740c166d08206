use std::collections::HashSet;

use lbagent_api::instance::{InstanceServiceGroup, NetworkInterface};
use lbagent_api::policy::ForwardingMode;
use lbagent_api::service_group::{Autokill, Domain, Handler, Protocol, Service};
use proptest::prelude::*;
use time::OffsetDateTime;
use uuid::Uuid;

use super::*;
use crate::apply::rules;

#[track_caller]
fn check(file: &str, text: &str, expected: Result<&[(&str, usize)], &[&str]>) {
    let found = read::text(file, text).and_then(|objects| {
        let mistakes = rules::check(&objects, None, &HashSet::new());
        if mistakes.is_empty() {
            Ok(objects)
        } else {
            Err(mistakes)
        }
    });
    match (found, expected) {
        (Ok(found), Ok(expected)) => {
            let found: Vec<(&str, usize)> = found
                .iter()
                .map(|object| (object.manifest.name(), object.place.line))
                .collect();
            assert_eq!(found, expected, "{text}");
        }
        (Err(found), Err(expected)) => assert_eq!(found, expected, "{text}"),
        (found, expected) => panic!("{text}: found {found:?}, expected {expected:?}"),
    }
}

const WEB: &str = "\
# What the shop needs.
kind: ServiceGroup
name: web
services: ['443:8080', '53:5353/udp@192.0.2.1']
domains: [www.Example.com]
soft_limit: 5
autokill: 5m
policy:
  forwarding_mode: nat
---
# One of them.

kind: Instance
name: web-1
service_group: web
addresses: [fd00::1, 10.0.0.11]
";

#[test]
fn yaml() {
    check("web.yaml", WEB, Ok(&[("web", 2), ("web-1", 13)]));
    check("web.yaml", "---\n---\n# nothing\n", Ok(&[]));
    check(
        "web.json",
        r#"{"kind":"ServiceGroup","name":"a","services":["1/udp"]}"#,
        Ok(&[("a", 1)]),
    );
    let objects = read::text("-", WEB).unwrap();
    assert_eq!(
        objects[0].manifest.to_yaml().unwrap(),
        "kind: ServiceGroup\nname: web\nservices:\n- 53:5353/udp@192.0.2.1\n\
         - 80:443/http+redirect\n- 443:8080/tls+http\ndomains:\n- www.example.com\n\
         soft_limit: 5\nautokill: 5m\n"
    );
}

#[test]
fn toml() {
    let text = "\
[[ServiceGroup]]
name = \"web\"
services = [\"5432/tcp\"]
[ServiceGroup.policy]
forwarding_mode = \"dsr-l2\"

[[Instance]]
name = \"a\"
service_group = \"web\"
addresses = [\"10.0.0.1\"]
[Instance.policy]
weight = 50
";
    check("web.toml", text, Ok(&[("web", 1), ("a", 7)]));
    check("-", text, Ok(&[("web", 1), ("a", 7)]));
    check(
        "web.toml",
        "[[ServiceGroup]]\nname = \"web\"\nservices = [\"5432\"]\n",
        Err(&[
            "web.toml:3: port '5432': no protocol and no handlers; write 5432:5432/tcp for raw \
               TCP, 5432:5432/udp for raw UDP, 5432:5432/tls through the terminator",
        ]),
    );
    check(
        "web.toml",
        "\n[[Instance]]\nname = \"a\"\nadresses = []\n",
        Err(&[
            "web.toml:4: unknown field 'adresses', expected one of 'kind', 'name', \
               'service_group', 'addresses', 'image', 'state', 'policy'",
        ]),
    );
}

#[test]
fn every_mistake_has_its_line() {
    check(
        "a.yaml",
        "kind: ServiceGruop\nname: a\n---\nname: b\n",
        Err(&[
            "a.yaml:1: kind 'ServiceGruop' is unknown; did you mean 'ServiceGroup'?",
            "a.yaml:3: the document has no kind: 'kind: ServiceGroup', 'kind: Instance' or 'kind: Certificate'",
        ]),
    );
    for (line, members, text) in [
        (2, "name: a--b\nservices: [1/tcp]", "Invalid name 'a--b'"),
        (
            5,
            "name: a\nservices:\n- 2/tcp\n- 1/tcp/x",
            "'tcp/x' is neither a handler",
        ),
        (
            5,
            "name: a\nservices: [1/tcp]\ndomains:\n- www",
            "domain 'www' is not whole",
        ),
        (4, "name: a\nservices: [1/tcp]\nsoft_limit: 65536", "65536"),
        (
            4,
            "name: a\nservices: [1/tcp]\nautokill: soon",
            "expected a duration",
        ),
        (
            4,
            "name: a\nservices: [1/tcp]\nsoft_limt: 5",
            "unknown field 'soft_limt'",
        ),
        (
            5,
            "name: a\nservices: [1/tcp]\npolicy:\n  forwarding_mode: dsr",
            "variant 'dsr'",
        ),
        (4, "name: a\nservices: [1/tcp", "did not find expected"),
        (1, "name: a", "missing field 'services'"),
    ] {
        let document = format!("kind: ServiceGroup\n{members}\n");
        let mistakes = read::text("a.yaml", &document).unwrap_err();
        assert_eq!(mistakes.len(), 1, "{mistakes:?}");
        let place = format!("a.yaml:{line}: ");
        assert!(mistakes[0].starts_with(&place), "{place} {mistakes:?}");
        assert!(mistakes[0].contains(text), "{text}: {mistakes:?}");
    }
}

#[test]
fn objects_that_do_not_go_together() {
    let group = |name: &str, services: &str, rest: &str| {
        format!("kind: ServiceGroup\nname: {name}\nservices: [{services}]\n{rest}---\n")
    };
    let instance =
        |name: &str, ip: &str| format!("kind: Instance\nname: {name}\naddresses: [{ip}]\n---\n");
    check(
        "a.yaml",
        &(group("a", "443:1/tls+http, 5/tcp", "") + &group("b", "443:2/tls+http, 5:6/tcp", "")),
        Err(&[
            "a.yaml:1: a: port 5/tcp is taken by service group 'b'",
            "a.yaml:5: b: port 5/tcp is taken by service group 'a'",
        ]),
    );
    check(
        "a.yaml",
        &(group("a", "1/tcp", "domains: [x.example]\n")
            + &group("b", "2/tcp", "domains: [x.example]\n")),
        Err(&["a.yaml:6: b: domain 'x.example' is taken by service group 'a'"]),
    );
    check(
        "a.yaml",
        &group("a", "1:2/tcp", "policy: {forwarding_mode: dsr-l2}\n"),
        Err(&["a.yaml:1: a: port 1:2/tcp changes its number, which forwarding mode dsr-l2 cannot"]),
    );
    check(
        "a.yaml",
        &group("a", "1/tcp", "soft_limit: 5\nhard_limit: 4\n"),
        Err(&["a.yaml:1: a: Value of 'soft_limit' (5) must not exceed 'hard_limit' (4)"]),
    );
    check(
        "a.yaml",
        &(instance("a", "10.0.0.1") + &instance("b", "10.0.0.1")),
        Err(&["a.yaml:5: b: address 10.0.0.1 is taken by instance 'a'"]),
    );
}

fn service() -> impl Strategy<Value = Service> {
    let ip = proptest::option::of(any::<std::net::IpAddr>());
    (1..=u16::MAX, 1..=u16::MAX, any::<bool>(), ip).prop_map(|(port, destination_port, udp, ip)| {
        let is_terminated = port % 7 == 0 && !matches!(port, 80 | 443);
        Service {
            port,
            destination_port,
            protocol: if udp && !is_terminated {
                Protocol::Udp
            } else {
                Protocol::Tcp
            },
            ip,
            handlers: if is_terminated {
                vec![Handler::Tls]
            } else {
                vec![]
            },
        }
    })
}

prop_compose! {
    fn answered_group()(
        name in "[a-z][a-z0-9]{0,8}",
        services in proptest::collection::btree_map(any::<u16>(), service(), 1..5),
        domains in proptest::collection::btree_set("[a-z]{1,9}\\.[a-z]{2,5}", 0..3),
        soft_limit in 1u16..100,
        hard_limit in 100u16..=u16::MAX,
        time_ms in proptest::option::of(0u64..100_000_000),
    ) -> ServiceGroup {
        let mut services: Vec<Service> = services.into_values().collect();
        services.sort_by_key(|service| service.port);
        services.dedup_by_key(|service| service.port);
        ServiceGroup {
            uuid: Uuid::from_u128(1),
            name,
            created_at: OffsetDateTime::UNIX_EPOCH,
            persistent: true,
            autoscale: false,
            soft_limit,
            hard_limit,
            services,
            domains: domains.into_iter().map(|fqdn| Domain { fqdn, certificate: None }).collect(),
            instances: vec![],
            autokill: time_ms.map(|time_ms| Autokill { time_ms }),
            fqdn: None,
        }
    }
}

proptest! {
    /// `get -o yaml` of whatever the agent has is what `apply` finds unchanged.
    #[test]
    fn a_group_that_was_printed_is_the_same(group in answered_group(), dsr in any::<bool>()) {
        let mut policy = GroupPolicy::default();
        if dsr {
            policy.forwarding_mode = ForwardingMode::DsrGue;
        }
        let manifest = Manifest::ServiceGroup(GroupManifest::of(&group, policy));
        let read = read::text("x.yaml", &manifest.to_yaml().unwrap()).unwrap();
        prop_assert_eq!(read.len(), 1);
        prop_assert_eq!(&read[0].manifest, &manifest);
    }

    #[test]
    fn an_instance_that_was_printed_is_the_same(
        name in "[a-z][a-z0-9]{0,8}",
        v4 in any::<std::net::Ipv4Addr>(),
        v6 in proptest::option::of(any::<std::net::Ipv6Addr>()),
        image in proptest::option::of("\\PC{0,20}"),
        running in any::<bool>(),
        weight in 0u16..=1000,
        grouped in any::<bool>(),
    ) {
        let addresses = std::iter::once(v4.to_string()).chain(v6.map(|ip| ip.to_string()));
        let interface = |private_ip| NetworkInterface { uuid: None, private_ip, mac: None };
        let instance = Instance {
            uuid: Uuid::from_u128(1),
            name,
            created_at: OffsetDateTime::UNIX_EPOCH,
            state: if running { InstanceState::Running } else { InstanceState::Draining },
            image,
            service_group: grouped.then(|| InstanceServiceGroup {
                uuid: Uuid::from_u128(2),
                name: "on".into(),
                domains: vec![],
            }),
            network_interfaces: addresses.map(interface).collect(),
            private_ip: None,
            private_fqdn: None,
            tags: vec![],
            annotations: [].into(),
        };
        let policy = InstancePolicy { weight, ..InstancePolicy::default() };
        let manifest = Manifest::Instance(InstanceManifest::of(&instance, policy));
        let read = read::text("x.yaml", &manifest.to_yaml().unwrap()).unwrap();
        prop_assert_eq!(&read[0].manifest, &manifest);
    }

    #[test]
    fn no_text_makes_it_panic(text in "(kind: (ServiceGroup|Instance)\n)?(\\PC|\n|---\n){0,40}") {
        let _ = read::text("x.yaml", &text);
        let _ = read::text("x.toml", &text);
    }
}

#[test]
fn certificates() {
    let directory = tempfile::tempdir().unwrap();
    let beside = |name: &str| directory.path().join(name);
    let pair = crate::pem::tests::pair(&["www.example.com"]);
    let other = crate::pem::tests::pair(&["www.example.com"]);
    std::fs::write(beside("www.pem"), &pair.chain).unwrap();
    std::fs::write(beside("www.key"), pair.pkey.reveal()).unwrap();
    let indented = |text: &str| text.trim_end().replace('\n', "\n  ");
    let read = |file: &str, text: &str| read::text(beside(file).to_str().unwrap(), text);
    let inline = |pkey: &str| {
        let (chain, pkey) = (indented(&pair.chain), indented(pkey));
        format!("kind: Certificate\nname: www\nchain: |\n  {chain}\npkey: |\n  {pkey}\n")
    };
    let by_file = "kind: Certificate\nname: www\nchain_file: www.pem\npkey_file: www.key\n";
    let toml = "[[Certificate]]\nname = 'www'\nchain_file = 'www.pem'\npkey_file = 'www.key'\n";
    let here = read("a.yaml", &inline(pair.pkey.reveal())).unwrap();
    assert_eq!(read("a.yaml", by_file).unwrap(), here);
    assert_eq!(read("a.toml", toml).unwrap()[0].manifest, here[0].manifest);
    let shown = format!("{here:?}{}", here[0].manifest.to_yaml().unwrap());
    assert!(shown.contains("serial_number: "), "{shown}");
    for line in pair.pkey.reveal().lines() {
        assert!(!shown.contains(line), "{shown}");
    }
    let check = |text: &str, expected: &str| {
        let mistakes = read("a.yaml", text).unwrap_err();
        let place = beside("a.yaml").display().to_string();
        let [mistake] = &mistakes[..] else {
            panic!("{mistakes:?}");
        };
        assert_eq!(mistake.replace(&place, "a.yaml"), expected);
    };
    check(
        &inline(other.pkey.reveal()),
        "a.yaml:1: the key is not that of the chain's first certificate",
    );
    check(
        "---\nkind: Certificate\nname: www\nchain_file: www.pem\n",
        "a.yaml:2: missing 'pkey' or 'pkey_file'",
    );
    check(
        &by_file.replace("www.key", "no.key"),
        &format!(
            "a.yaml:1: cannot read '{}': No such file or directory (os error 2)",
            beside("no.key").display()
        ),
    );
    check(
        &format!("{by_file}chain: x\n"),
        "a.yaml:1: 'chain' and 'chain_file' exclude each other",
    );
}

#[test]
fn domains_may_have_certificates() {
    let text = "kind: ServiceGroup\nname: web\nservices: ['443:80']\n\
                domains: [a.example.com, {name: b.example.com., certificate: shop}]\n";
    let objects = read::text("-", text).unwrap();
    let yaml = objects[0].manifest.to_yaml().unwrap();
    let domains = "domains:\n- a.example.com\n- name: b.example.com\n  certificate: shop\n";
    assert!(yaml.contains(domains), "{yaml}");
    assert_eq!(
        read::text("-", &yaml).unwrap()[0].manifest,
        objects[0].manifest
    );
    check(
        "a.yaml",
        &text.replace("certificate: shop", "cert: shop"),
        Err(&["a.yaml:4: domains[1]: unknown field 'cert', expected 'name' or 'certificate'"]),
    );
}
