use super::*;
use crate::request::parse_body;

fn parse(body: &str) -> Result<Change, String> {
    let spec: PatchSpec = parse_body(body.as_bytes()).map_err(|error| error.message)?;
    spec.change().map_err(|error| error.message)
}

fn port(port: u16) -> PortMatch {
    PortMatch {
        port,
        protocol: None,
        ip: None,
    }
}

#[track_caller]
fn check(body: &str, expected: Result<Change, &str>) {
    assert_eq!(parse(body), expected.map_err(str::to_owned), "{body}");
}

#[test]
fn operations_as_official_clients_send_them() {
    check(
        r#"{"prop":"services","op":"del","value":[{"port":443}]}"#,
        Ok(Change::DelServices(vec![port(443)])),
    );
    // A single member instead of a list, as the first clients write it.
    check(
        r#"{"prop":"services","op":"del","value":{"port":443}}"#,
        Ok(Change::DelServices(vec![port(443)])),
    );
    check(
        r#"{"name":"web","id":"7","prop":"soft_limit","op":"set","value":3}"#,
        Ok(Change::SetSoftLimit(Some(3))),
    );
    check(
        r#"{"prop":"hard_limit","op":"set"}"#,
        Ok(Change::SetHardLimit(None)),
    );
    check(
        r#"{"prop":"autokill","op":"set","value":{"time_ms":500}}"#,
        Ok(Change::SetAutokill(500)),
    );
    check(
        r#"{"prop":"autokill","op":"set","value":null}"#,
        Ok(Change::SetAutokill(0)),
    );
    check(
        r#"{"prop":"domains","op":"add","value":[{"name":"www.example.com."}]}"#,
        Ok(Change::AddDomains(vec![DomainSpec {
            name: "www.example.com.".into(),
            certificate: None,
        }])),
    );
}

#[test]
fn what_cannot_be_an_operation() {
    check(
        r#"{"prop":"soft_limit","op":"add","value":3}"#,
        Err("Operation 'add' works on lists only: use 'set' for 'soft_limit'"),
    );
    check(
        r#"{"prop":"services","op":"del"}"#,
        Err("Missing member 'value': operation 'del' on 'services' needs a list"),
    );
    check(
        r#"{"prop":"services","op":"add","value":[{"port":9000}]}"#,
        Err(
            "Service port 9000 must have the handler 'tls'; for a raw port give \"protocol\" (\"tcp\" or \"udp\") and no handlers",
        ),
    );
    check(
        r#"{"prop":"services","op":"add","value":[{"prot":9000}]}"#,
        Err("Unknown member 'prot'"),
    );
    check(
        r#"{"prop":"services","op":"del","value":[{"port":0}]}"#,
        Err("Value of 'port' in service port description must be in the range 1 to 65535"),
    );
    check(
        r#"{"prop":"name","op":"set","value":"x"}"#,
        Err(
            "Invalid value 'name' in 'prop': expected one of 'services', 'domains', 'soft_limit', 'hard_limit', 'autokill'",
        ),
    );
    check(
        r#"{"prop":"services","op":"replace"}"#,
        Err("Invalid value 'replace' in 'op': expected one of 'set', 'add', 'del'"),
    );
    check(r#"{"op":"set"}"#, Err("Missing member 'prop'"));
}

#[test]
fn a_port_is_taken_out_by_number_protocol_or_address() {
    let service = |ip: Option<&str>| Service {
        port: 53,
        destination_port: 53,
        protocol: Protocol::Udp,
        ip: ip.map(|ip| ip.parse().unwrap()),
        handlers: Vec::new(),
    };
    let of = |protocol, ip: Option<&str>| PortMatch {
        port: 53,
        protocol,
        ip: ip.map(|ip| ip.parse().unwrap()),
    };
    for (what, service, expected) in [
        (of(None, None), service(None), true),
        (of(None, None), service(Some("192.0.2.1")), true),
        (of(Some(Protocol::Udp), None), service(None), true),
        (of(Some(Protocol::Tcp), None), service(None), false),
        (
            of(None, Some("192.0.2.1")),
            service(Some("192.0.2.1")),
            true,
        ),
        (of(None, Some("192.0.2.1")), service(None), false),
        (port(54), service(None), false),
    ] {
        assert_eq!(what.matches(&service), expected, "{what:?} {service:?}");
    }
}
