use super::*;
use crate::request::parse_body;

#[track_caller]
fn check_group(body: &str, expected: Result<Option<&str>, ErrorCode>) {
    let spec: InstanceServiceGroupSpec = parse_body(body.as_bytes()).unwrap();
    let found = spec
        .joined()
        .map(|selector| selector.map(|selector| selector.to_string()));
    assert_eq!(
        found.map_err(|error| error.code),
        expected.map(|selector| selector.map(str::to_owned))
    );
}

#[test]
fn an_instance_joins_a_group_or_makes_one() {
    check_group(r#"{"name":"web"}"#, Ok(Some("name 'web'")));
    check_group(r#"{"services":[{"port":443}]}"#, Ok(None));
    check_group(r#"{"name":"web","services":[]}"#, Err(ErrorCode::NotBoth));
    check_group(r#"{"name":"web","uuid":"x"}"#, Err(ErrorCode::NotBoth));
    check_group(r#"{"uuid":"x"}"#, Err(ErrorCode::Invalid));
}

#[track_caller]
fn check_addresses(body: &str, expected: Result<&[(&str, u8)], &str>) {
    let spec: InstanceSpec = parse_body(body.as_bytes()).unwrap();
    let expected = expected
        .map(|list| {
            list.iter()
                .map(|(ip, prefix)| (ip.parse().unwrap(), *prefix))
                .collect()
        })
        .map_err(str::to_owned);
    assert_eq!(spec.addresses().map_err(|error| error.message), expected);
}

#[test]
fn addresses_with_and_without_prefix() {
    check_addresses("{}", Ok(&[]));
    check_addresses(
        r#"{"network_interfaces":[{"ip":"10.0.0.7/24"},{"mac":"x"},{"ip":"2001:db8::7"}]}"#,
        Ok(&[("10.0.0.7", 24), ("2001:db8::7", 128)]),
    );
    for ip in ["10.0.0", "10.0.0.7/33", "10.0.0.7/", "", "2001:db8::/129"] {
        check_addresses(
            &format!(r#"{{"network_interfaces":[{{"ip":"{ip}"}}]}}"#),
            Err(&format!(
                "Invalid value '{ip}' of 'ip' in network interface: expected an address such as \
                 10.0.0.7 or 10.0.0.7/24"
            )),
        );
    }
    check_addresses(
        r#"{"network_interfaces":[{},{},{},{},{}]}"#,
        Err("5 network interfaces given; at most 4 are allowed"),
    );
}

#[test]
fn members_for_machines_are_accepted_and_told_back() {
    let spec: InstanceSpec = parse_body(
        br#"{"image":{"url":"nginx:latest"},"memory_mb":128,"env":{"A":"b"},"autostart":true,
             "vcpus":null}"#,
    )
    .unwrap();
    assert_eq!(spec.members_without_effect(), ["env", "memory_mb"]);
    assert_eq!(spec.image_name().as_deref(), Some("nginx:latest"));
    let error = parse_body::<InstanceSpec>(br#"{"weight":3}"#).unwrap_err();
    assert_eq!(error.message, "Unknown member 'weight'");
}
