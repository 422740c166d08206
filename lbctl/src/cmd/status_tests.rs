use lbagent_api::status::{AgentInfo, InterfaceStatus, MapStatus};
use lbagent_api::terminator::{ListenerFamily, Report};
use lbagent_api::terminators::TerminatorKind;
use time::Duration;

use super::*;
use crate::table::tests::check_fits;

fn condition(severity: Severity, name: &str, message: &str) -> Condition {
    Condition {
        severity,
        object: ObjectKind::Instance,
        name: name.into(),
        uuid: None,
        reason: "test".into(),
        message: message.into(),
        since: None,
    }
}

fn programs_of(version: &str, abi_version: u32, tag: u64) -> ProgramsInfo {
    ProgramsInfo {
        version: version.into(),
        abi_version,
        ingress_tag: format!("{tag:016x}"),
        return_tag: format!("{tag:016X}"),
        loaded_at: Some(OffsetDateTime::UNIX_EPOCH + Duration::milliseconds(1500)),
    }
}

fn sample() -> AgentStatus {
    let interface = |name: &str, role, mode| InterfaceStatus {
        name: name.into(),
        role,
        ifindex: Some(2),
        mode,
        reason: None,
    };
    AgentStatus {
        terminators: Vec::new(),
        agent: AgentInfo {
            version: "0.1.0".into(),
            abi_version: 1,
            pid: 123,
            started_at: OffsetDateTime::UNIX_EPOCH,
            refused_requests: 0,
        },
        generation_desired: 7,
        generation_applied: 7,
        dataplane: Some(DataplaneInfo {
            origin: "built in".into(),
            active: programs_of("0.2.0", 2, 0xab),
            previous: Some(programs_of("0.1.0", 1, 0xcd)),
        }),
        vips: vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()],
        interfaces: vec![
            interface("eth0", InterfaceRole::Client, Some(AttachMode::Native)),
            interface("br0", InterfaceRole::Backend, Some(AttachMode::Tcx)),
        ],
        maps: vec![MapStatus {
            name: "SLOTS".into(),
            used: 509,
            capacity: 4096,
        }],
        syn_shield: SynShield {
            mode: SynShieldMode::Auto,
            per_second: Some(10_000),
            ..SynShield::default()
        },
        conditions: vec![],
    }
}

#[test]
fn everything_on_one_screen() {
    let now = OffsetDateTime::UNIX_EPOCH + Duration::seconds(182);
    let expected = "\
lbagent 0.1.0, pid 123, up 3m 2s
Programs 00000000000000ab and 00000000000000AB of lbagent 0.2.0, ABI 2, built in, loaded 1970-01-01T00:00:01Z
Rollback to 00000000000000cd and 00000000000000CD of lbagent 0.1.0, ABI 1 by `lbagent rollback`
Generation 7 desired, 7 applied
VIPs 192.0.2.1 2001:db8::1
Terminators none: lb_steer hands connections to ports with handlers to nobody
SYN shield auto above 10000/s for a VIP on a CPU, 0 answered so far

INTERFACE  ROLE     ATTACHED    REMARK
eth0       client   XDP native
br0        backend  TC tcx

MAP    USED  CAPACITY  FULL
SLOTS   509      4096   12%

No conditions: everything is as asked for";
    assert_eq!(render(&sample(), now), expected);
}

#[test]
fn the_shield_on_one_line() {
    let flooded = SynShield {
        mode: SynShieldMode::Auto,
        per_second: Some(500),
        flooded: vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()],
        answered: 71_234,
        reason: None,
    };
    assert_eq!(
        shield(&flooded),
        "SYN shield auto above 500/s for a VIP on a CPU, AT WORK for 192.0.2.1 2001:db8::1, \
         71234 answered so far"
    );
    let always = SynShield {
        mode: SynShieldMode::On,
        answered: 7,
        ..SynShield::default()
    };
    assert_eq!(shield(&always), "SYN shield on, 7 answered so far");
    assert_eq!(shield(&SynShield::default()), "SYN shield off");
    let in_doubt = SynShield {
        reason: Some("eth0 is a veth".to_owned()),
        ..SynShield::default()
    };
    assert_eq!(shield(&in_doubt), "SYN shield off: eth0 is a veth");
    let no_cookies = SynShield {
        mode: SynShieldMode::On,
        ..in_doubt
    };
    assert_eq!(
        shield(&no_cookies),
        "SYN shield on, answers nothing: eth0 is a veth"
    );
}

#[test]
fn terminators_on_one_line() {
    let one = |id, state, connections: Option<u64>| Terminator {
        id,
        software: "lbterm 0.1.0".into(),
        pid: 70 + id,
        kind: TerminatorKind::Connected,
        state,
        families: vec![ListenerFamily::Ipv4],
        sockets: 2,
        generation: Some(1),
        faults: Vec::new(),
        report: connections.map(|connections| Report {
            connections,
            ..Report::default()
        }),
    };
    let old = one(1, TerminatorState::Draining, Some(7));
    let new = one(2, TerminatorState::Active, Some(1));
    assert_eq!(
        terminators(&[old.clone(), new]),
        "Terminators 1 active, 1 draining, 8 connections; lb_steer hands to lbterm 0.1.0 72"
    );
    assert_eq!(
        terminators(&[old]),
        "Terminators 1 draining, 7 connections; lb_steer hands to nobody"
    );
    assert_eq!(
        terminators(&[one(3, TerminatorState::Active, None)]),
        "Terminators 1 active, connections unknown; lb_steer hands to lbterm 0.1.0 73"
    );
}

#[test]
fn the_worst_comes_first() {
    let found = conditions(&[
        condition(Severity::Info, "b", "drains"),
        condition(Severity::Error, "a", "no route to 10.0.0.7"),
    ]);
    let expected = "\
SEVERITY  OBJECT    NAME  CONDITION
error     instance  a     no route to 10.0.0.7
info      instance  b     drains";
    assert_eq!(found, expected);
}

#[track_caller]
fn check(change: impl FnOnce(&mut AgentStatus), expected: Option<&str>) {
    let mut status = sample();
    change(&mut status);
    assert_eq!(unhealthy(&status).as_deref(), expected);
}

#[test]
fn what_check_objects_to() {
    check(|_| {}, None);
    check(
        |status| {
            status
                .conditions
                .push(condition(Severity::Warning, "a", "x"))
        },
        None,
    );
    check(
        |status| {
            status
                .conditions
                .push(condition(Severity::Error, "a", "no route"))
        },
        Some("a: no route"),
    );
    check(
        |status| status.interfaces[1].mode = None,
        Some("interface br0 has no program attached"),
    );
    check(
        |status| status.generation_applied = 6,
        Some("generation 7 is desired, and 6 is applied so far"),
    );
}

#[test]
fn uptimes() {
    for (seconds, text) in [
        (-1, "0s"),
        (59, "59s"),
        (61, "1m 1s"),
        (3_661, "1h 1m"),
        (90_000, "1d 1h"),
    ] {
        assert_eq!(uptime(seconds), text);
    }
}

#[test]
fn tables_fit_a_terminal() {
    let mut worst = sample();
    for interface in &mut worst.interfaces {
        interface.name = "i".repeat(15);
        interface.reason = Some("the driver has no native mode: ".repeat(4));
    }
    worst.maps[0].name = "M".repeat(20);
    worst.maps[0].used = u64::from(u32::MAX) as _;
    worst.maps[0].capacity = u64::from(u32::MAX) as _;
    let message = "no running instance with an IPv4 address: new connections are dropped";
    let name = "n".repeat(63);
    let found = [condition(Severity::Warning, &name, message)];
    check_fits("interfaces", || interfaces(&worst));
    check_fits("maps", || maps(&worst));
    let text = check_fits("conditions", || conditions(&found));
    assert!(text.contains("dropped"), "{text}");
}
