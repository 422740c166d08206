use super::*;
use crate::request::parse_body;

#[track_caller]
fn check(spec: &str, expected: Result<&str, &str>) {
    let spec: ServiceSpec = parse_body(spec.as_bytes()).unwrap();
    match (Service::try_from(&spec), expected) {
        (Ok(service), Ok(text)) => assert_eq!(service.to_string(), text),
        (Err(error), Err(message)) => assert_eq!(error.message, message),
        (found, expected) => panic!("found {found:?}, expected {expected:?}"),
    }
}

#[test]
fn port_rules_of_the_contract() {
    check(
        r#"{"port":443,"destination_port":8080,"handlers":["tls","http"]}"#,
        Ok("443:8080/tls+http"),
    );
    check(
        r#"{"port":443,"handlers":["http","tls","tls"]}"#,
        Ok("443:443/tls+http"),
    );
    check(r#"{"port":80,"handlers":["http"]}"#, Ok("80:80/http"));
    check(
        r#"{"port":80,"destination_port":443,"handlers":["http","redirect"]}"#,
        Ok("80:443/http+redirect"),
    );
    check(r#"{"port":5432,"handlers":["tls"]}"#, Ok("5432:5432/tls"));
    check(
        r#"{"port":5432,"handlers":["tls"],"protocol":"tcp"}"#,
        Ok("5432:5432/tls"),
    );
    let raw = "; for a raw port give \"protocol\" (\"tcp\" or \"udp\") and no handlers";
    check(
        r#"{"port":80,"handlers":["http","tls"]}"#,
        Err("Service port 80 must not have the handler 'tls'"),
    );
    check(
        r#"{"port":80}"#,
        Err(&format!(
            "Service port 80 must have the handler 'http'{raw}"
        )),
    );
    check(
        r#"{"port":443,"handlers":["tls"]}"#,
        Err(&format!(
            "Service port 443 must have the handlers 'tls' and 'http'{raw}"
        )),
    );
    check(
        r#"{"port":5432,"handlers":[]}"#,
        Err(&format!(
            "Service port 5432 must have the handler 'tls'{raw}"
        )),
    );
    check(
        r#"{"port":5432,"handlers":["tls","http"]}"#,
        Err("Service port 5432 must not have the handler 'http': only ports 80 and 443 can"),
    );
    check(
        r#"{"port":443,"handlers":["tls","http","redirect"]}"#,
        Err("Service port 443 cannot have the handler 'redirect': only port 80 can"),
    );
    check(
        r#"{"port":80,"handlers":["http","redirect"]}"#,
        Err("Service port 80 with the handler 'redirect' must have destination port 443"),
    );
}

#[test]
fn an_explicit_protocol_without_handlers_is_raw() {
    for protocol in ["tcp", "udp"] {
        for port in [1, 80, 443, 5432, 65535] {
            let spec = format!(r#"{{"port":{port},"handlers":[],"protocol":"{protocol}"}}"#);
            check(&spec, Ok(&format!("{port}:{port}/{protocol}")));
        }
    }
    check(r#"{"port":53,"protocol":"udp"}"#, Ok("53:53/udp"));
    check(
        r#"{"port":53,"protocol":"udp","handlers":["tls"]}"#,
        Err("Service port 53 is UDP and so takes no handlers"),
    );
}

#[test]
fn ports_out_of_range() {
    for (member, spec) in [
        ("port", r#"{"port":0}"#),
        ("port", r#"{"port":65536}"#),
        ("port", r#"{"port":-1}"#),
        ("destination_port", r#"{"port":1,"destination_port":0}"#),
        ("destination_port", r#"{"port":1,"destination_port":65536}"#),
    ] {
        check(
            spec,
            Err(&format!(
                "Value of '{member}' in service port description must be in the range 1 to 65535"
            )),
        );
    }
    check(
        r#"{"port":1,"protocol":"tcp","ip":"x"}"#,
        Err("Invalid value 'x' of 'ip' in service port description: not an IP address"),
    );
}

#[test]
fn services_of_one_group_do_not_collide() {
    let spec = |text: &str| parse_body::<ServiceSpec>(text.as_bytes()).unwrap();
    let tcp = spec(r#"{"port":53,"protocol":"tcp"}"#);
    let udp = spec(r#"{"port":53,"protocol":"udp"}"#);
    let here = spec(r#"{"port":53,"protocol":"udp","ip":"192.0.2.1"}"#);
    let there = spec(r#"{"port":53,"protocol":"udp","ip":"192.0.2.2"}"#);
    for good in [vec![&tcp, &udp], vec![&here, &there, &tcp]] {
        let specs: Vec<_> = good.into_iter().cloned().collect();
        assert_eq!(validate_services(&specs).unwrap().len(), specs.len());
    }
    for bad in [vec![&tcp, &tcp], vec![&udp, &here], vec![&here, &here]] {
        let specs: Vec<_> = bad.into_iter().cloned().collect();
        assert_eq!(
            validate_services(&specs).unwrap_err().code,
            ErrorCode::AlreadyExists
        );
    }
    assert_eq!(
        validate_services(&[]).unwrap_err().message,
        "At least one service is required"
    );
}

#[test]
fn limits() {
    assert_eq!(validate_limits(None, None).unwrap(), (1, 65535));
    assert_eq!(validate_limits(Some(5), Some(5)).unwrap(), (5, 5));
    for (soft, hard, message) in [
        (
            Some(0),
            None,
            "Value of 'soft_limit' must be in the range 1 to 65535",
        ),
        (
            None,
            Some(65536),
            "Value of 'hard_limit' must be in the range 1 to 65535",
        ),
        (
            Some(6),
            Some(5),
            "Value of 'soft_limit' (6) must not exceed 'hard_limit' (5)",
        ),
    ] {
        assert_eq!(validate_limits(soft, hard).unwrap_err().message, message);
    }
}
