use clap::Parser;
use lbagent_api::service_group::Domain;
use time::OffsetDateTime;
use uuid::Uuid;

use super::*;

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    create: Create,
}

#[track_caller]
fn check_request(line: &str, expected: Result<&str, &str>) {
    let arguments = Line::parse_from(line.split(' ')).create;
    let found = request(&arguments)
        .map(|(spec, _)| serde_json::to_value(spec).unwrap())
        .map_err(|error| error.to_string());
    match expected {
        Ok(json) => assert_eq!(found, Ok(serde_json::from_str(json).unwrap())),
        Err(text) => assert_eq!(found, Err(text.to_owned())),
    }
}

#[test]
fn requests() {
    check_request(
        "create -n db 5432:5432/tcp 53:5353/udp",
        Ok(r#"{"name":"db","services":[
            {"port":5432,"destination_port":5432,"handlers":[],"protocol":"tcp"},
            {"port":53,"destination_port":5353,"handlers":[],"protocol":"udp"}]}"#),
    );
    check_request(
        "create 443:8080 -d web -d example.com -l 1 -L 20",
        Ok(r#"{"services":[
            {"port":443,"destination_port":8080,"handlers":["tls","http"]},
            {"port":80,"destination_port":443,"handlers":["http","redirect"]}],
            "domains":[{"name":"web"},{"name":"example.com."}],"soft_limit":1,"hard_limit":20}"#),
    );
    check_request(
        "create --ip 192.0.2.1 1/udp",
        Ok(
            r#"{"services":[{"port":1,"destination_port":1,"handlers":[],"protocol":"udp",
            "ip":"192.0.2.1"}]}"#,
        ),
    );
    check_request(
        "create --service 1/udp -d a.example -d b -c mine -s c --autokill time=5m",
        Ok(r#"{"services":[
            {"port":1,"destination_port":1,"handlers":[],"protocol":"udp"}],
            "domains":[{"name":"a.example.","certificate":{"name":"mine"}},{"name":"b"},
                       {"name":"c"}],
            "autokill":{"time_ms":300000}}"#),
    );
    check_request(
        "create 1/udp -d a.example -c mine -c yours",
        Err("certificate 'yours' belongs to no domain; give a --domain for each --certificate"),
    );
    check_request(
        "create 1/udp -s a.example",
        Err("subdomain 'a.example' has a dot; a whole name is given with --domain"),
    );
    check_request(
        "create -n a--b 1/udp",
        Err(
            "Invalid name 'a--b': expected 1 to 63 letters and digits, with single hyphens and dots \
             between them, and no UUID",
        ),
    );
    check_request(
        "create 1/udp 1:2/udp",
        Err("Service port 1/udp is published twice in this service group"),
    );
    check_request(
        "create 1/udp -l 5 -L 4",
        Err("Value of 'soft_limit' (5) must not exceed 'hard_limit' (4)"),
    );
}

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

#[track_caller]
fn check_owner(name: &str, ports: &str, expected: Option<&str>) {
    let groups = [group("db", "5432/tcp"), group("dns", "53:5353/udp")];
    let wanted = group("new", ports).services;
    let owner = who_has_it(Some(name), &wanted, &groups);
    assert_eq!(owner.map(|owner| owner.text).as_deref(), expected);
}

#[test]
fn who_has_the_port_or_the_name() {
    check_owner("new", "53/tcp", None);
    check_owner(
        "new",
        "5432:1/tcp",
        Some(
            "port 5432/tcp is taken by service group 'db'; choose another port, or another VIP \
             with --ip, or remove that group with `lbctl service rm db`",
        ),
    );
    check_owner(
        "dns",
        "1/tcp",
        Some(
            "the name 'dns' is taken; choose another, or remove that service group with \
             `lbctl service rm dns`",
        ),
    );
}
