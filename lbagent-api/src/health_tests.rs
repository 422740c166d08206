use super::*;
use crate::policy::GroupPolicy;
use crate::request::parse_body;

#[track_caller]
fn check_refused(check: &str, want: &str) {
    let body = format!(r#"{{"health": {{"check": {check}}}}}"#);
    let error = parse_body::<GroupPolicy>(body.as_bytes()).unwrap_err();
    assert!(error.message.contains(want), "{check}: {}", error.message);
}

#[track_caller]
fn policy(health: &str) -> HealthPolicy {
    let body = format!(r#"{{"health": {health}}}"#);
    parse_body::<GroupPolicy>(body.as_bytes()).unwrap().health
}

#[test]
fn what_is_left_out_has_its_default() {
    let found = policy(r#"{"check": {"kind": "tcp"}}"#);
    let check = Check::new(Probe::Tcp {
        send: None,
        expect: None,
    });
    assert_eq!(
        found,
        HealthPolicy {
            check: Some(check),
            ..HealthPolicy::default()
        }
    );
    // A timeout that is not given fits into a short interval.
    let found = policy(r#"{"check": {"kind": "tcp", "interval_ms": 500}}"#);
    assert_eq!(found.check.unwrap().timeout_ms, 500);
}

#[test]
fn every_kind_reads_back_as_it_was_written() {
    for check in [
        r#"{"kind":"tcp","port":8080,"send":{"text":"PING\r\n"},"expect":{"hex":"ff00"}}"#,
        r#"{"kind":"http","method":"HEAD","path":"/up?x=1","host":"[fd00::1]:80",
            "statuses":["200","300-399"],"interval_ms":100,"timeout_ms":10}"#,
        r#"{"kind":"https","verify":true,"server_name":"a.example","body":{"text":"ok"}}"#,
        r#"{"kind":"udp","send":{"hex":"00"},"rise":1,"fall":100}"#,
    ] {
        let health = format!(
            r#"{{"check": {check}, "when_all_unhealthy": "fail_closed", "on_failure": "cut",
                "initial": "unhealthy", "slow_start_ms": 1000,
                "services": [{{"port": 53, "protocol": "udp"}}, {{"port": 80, "check": {check}}}]}}"#
        );
        let found = policy(&health);
        let written = serde_json::to_string(&found).unwrap();
        assert_eq!(policy(&written), found, "{written}");
        let port = |protocol| found.of_service(53, protocol);
        assert!(port(Protocol::Udp).unwrap().check.is_none());
        assert!(port(Protocol::Tcp).is_none());
    }
}

#[test]
fn a_policy_without_checks_is_not_written() {
    let text = serde_json::to_string(&GroupPolicy::default()).unwrap();
    assert!(!text.contains("health"), "{text}");
}

#[test]
fn mistakes_in_checks_are_told() {
    for (check, want) in [
        (r#"{}"#, "'kind' must be tcp, http, https or udp"),
        (r#"{"kind":"icmp"}"#, "not 'icmp'"),
        (
            r#"{"kind":"tcp","path":"/"}"#,
            "kind tcp has no member 'path'",
        ),
        (
            r#"{"kind":"http","send":{"text":"x"}}"#,
            "kind http has no member 'send'",
        ),
        (
            r#"{"kind":"http","verify":true}"#,
            "kind http has no member 'verify'",
        ),
        (r#"{"kind":"udp"}"#, "needs 'send'"),
        (r#"{"kind":"tcp","colour":1}"#, "colour"),
        (
            r#"{"kind":"tcp","port":0}"#,
            "'port' must be in the range 1 to 65535",
        ),
        (
            r#"{"kind":"tcp","interval_ms":99}"#,
            "'interval_ms' must be in the range 100",
        ),
        (
            r#"{"kind":"tcp","interval_ms":1000,"timeout_ms":1001}"#,
            "must not be above",
        ),
        (
            r#"{"kind":"tcp","rise":0}"#,
            "'rise' must be in the range 1 to 100",
        ),
        (
            r#"{"kind":"tcp","fall":101}"#,
            "'fall' must be in the range 1 to 100",
        ),
        (r#"{"kind":"tcp","send":{"text":""}}"#, "1 to 1024 bytes"),
        (r#"{"kind":"tcp","send":{"hex":"0g"}}"#, "hexadecimal"),
        (r#"{"kind":"tcp","send":{"hex":"000"}}"#, "hexadecimal"),
        (r#"{"kind":"http","path":"up"}"#, "must begin with '/'"),
        (r#"{"kind":"http","path":"/a b"}"#, "visible ASCII"),
        (r#"{"kind":"http","method":"POST"}"#, "GET, HEAD or OPTIONS"),
        (
            r#"{"kind":"http","method":"HEAD","body":{"text":"x"}}"#,
            "use GET",
        ),
        (r#"{"kind":"http","statuses":[]}"#, "1 to 16"),
        (
            r#"{"kind":"http","statuses":["299-200"]}"#,
            "no HTTP status",
        ),
        (r#"{"kind":"http","statuses":["99"]}"#, "no HTTP status"),
        (
            r#"{"kind":"http","host":"a\r\nb"}"#,
            "'host' must be a name",
        ),
        (
            r#"{"kind":"https","verify":true}"#,
            "give 'server_name' or 'host'",
        ),
    ] {
        check_refused(check, want);
    }
}

#[test]
fn mistakes_in_policies_are_told() {
    for (health, want) in [
        (
            r#"{"slow_start_ms": 999}"#,
            "'slow_start_ms' must be 0 or in the range",
        ),
        (
            r#"{"slow_start_ms": 3600001}"#,
            "'slow_start_ms' must be 0 or in the range",
        ),
        (
            r#"{"services": [{"port": 1}, {"port": 1}]}"#,
            "port 1/tcp is given twice",
        ),
        (r#"{"on_failure": "kill"}"#, "kill"),
        (r#"{"checks": []}"#, "checks"),
    ] {
        let body = format!(r#"{{"health": {health}}}"#);
        let error = parse_body::<GroupPolicy>(body.as_bytes()).unwrap_err();
        assert!(error.message.contains(want), "{health}: {}", error.message);
    }
}
