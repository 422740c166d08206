use clap::Parser;
use lbagent_api::instance::{InstanceServiceGroup, InstanceState, NetworkInterface};
use time::OffsetDateTime;
use uuid::Uuid;

use super::*;
use crate::table::tests::check_fits;

#[derive(Debug, Parser)]
struct Line {
    #[command(subcommand)]
    command: Command,
}

fn parse(line: &str) -> Result<Command, String> {
    Line::try_parse_from(format!("instance {line}").split(' '))
        .map(|line| line.command)
        .map_err(|error| error.to_string())
}

#[track_caller]
fn check_stop(line: &str, expected: Option<&str>) {
    let found = match parse(line) {
        Ok(Command::Stop(arguments)) => {
            Some(serde_json::to_value(stop_request(&arguments)).unwrap())
        }
        Ok(other) => panic!("{other:?}"),
        Err(_) => None,
    };
    assert_eq!(
        found,
        expected.map(|json| serde_json::from_str(json).unwrap()),
        "{line}"
    );
}

#[test]
fn stops() {
    check_stop("stop a b", Some(r#"[{"name":"a"},{"name":"b"}]"#));
    check_stop(
        "stop a --drain 30s",
        Some(r#"[{"name":"a","drain_timeout_ms":30000}]"#),
    );
    check_stop(
        "stop a -w max",
        Some(r#"[{"name":"a","drain_timeout_ms":3600000}]"#),
    );
    check_stop(
        "stop a --drain-ms 250",
        Some(r#"[{"name":"a","drain_timeout_ms":250}]"#),
    );
    check_stop("stop a --force", Some(r#"[{"name":"a","force":true}]"#));
    for wrong in [
        "stop",
        "stop a --drain 2h",
        "stop a --drain soon",
        "stop a --drain-ms 3600001",
        "stop a --drain 1s --drain-ms 1",
        "stop a --drain 1s --force",
    ] {
        check_stop(wrong, None);
    }
}

#[test]
fn lists_and_records() {
    let interface = |ip: &str| NetworkInterface {
        uuid: None,
        private_ip: ip.into(),
        mac: None,
    };
    let instance = Instance {
        uuid: Uuid::from_u128(2),
        name: "a".into(),
        created_at: OffsetDateTime::UNIX_EPOCH,
        state: InstanceState::Draining,
        image: None,
        service_group: Some(InstanceServiceGroup {
            uuid: Uuid::from_u128(1),
            name: "web".into(),
            domains: vec![],
        }),
        network_interfaces: vec![interface("10.0.0.7"), interface("2001:db8::7")],
        private_ip: Some("10.0.0.7".into()),
        private_fqdn: None,
        tags: vec![],
        annotations: [].into(),
    };
    let loose = Instance {
        name: "loose".into(),
        state: InstanceState::Stopped,
        service_group: None,
        network_interfaces: vec![],
        ..instance.clone()
    };
    let expected = "\
NAME   STATE     SERVICE  ADDRESSES             CREATED AT
a      draining  web      10.0.0.7 2001:db8::7  1970-01-01T00:00:00Z
loose  stopped   -        -                     1970-01-01T00:00:00Z";
    assert_eq!(
        render_list(
            &[instance.clone(), loose],
            Format::Table,
            OffsetDateTime::UNIX_EPOCH
        ),
        expected
    );
    let expected = "\
uuid:        00000000-0000-0000-0000-000000000002
name:        a
state:       draining
service:     web
addresses:   10.0.0.7 2001:db8::7
image:       -
created at:  1970-01-01T00:00:00Z";
    assert_eq!(render(&instance, &[]), expected);
    let long = "l".repeat(63);
    let mut worst = Instance {
        name: long.clone(),
        image: Some(format!("registry.example.com/{long}/{long}:latest")),
        network_interfaces: vec![
            interface("2001:db8:1111:2222:3333:4444:5555:6666"),
            interface("255.255.255.255"),
        ],
        ..instance
    };
    if let Some(group) = &mut worst.service_group {
        group.name = long;
    }
    check_fits("instance ls", || {
        render_list(
            std::slice::from_ref(&worst),
            Format::Table,
            OffsetDateTime::now_utc(),
        )
    });
    check_fits("instance get", || render(&worst, &[]));
}
