use proptest::prelude::*;
use serde::de::DeserializeOwned;

use super::*;
use crate::request::parse_body;

#[track_caller]
fn check<P: DeserializeOwned + Serialize>(body: &str, expected: Result<&str, &str>) {
    let found = parse_body::<PolicyData<P>>(body.as_bytes())
        .map(|data| serde_json::to_value(&data.policy).unwrap())
        .map_err(|error| error.message);
    let expected = expected
        .map(|json| serde_json::from_str(json).unwrap())
        .map_err(str::to_owned);
    assert_eq!(found, expected, "{body}");
}

#[test]
fn group_policies_are_read_with_defaults() {
    let check = check::<GroupPolicy>;
    check(
        r#"{"policy":{}}"#,
        Ok(r#"{"forwarding_mode":"nat","sources":{"allow":[],"deny":[]},"quic":null}"#),
    );
    check(
        r#"{"policy":{"forwarding_mode":"dsr-gue","quic":{"server_id_length":8},
            "sources":{"allow":["192.0.2.0/24","198.51.100.7"],"deny":["2001:db8::/32","::/0"]}}}"#,
        Ok(r#"{"forwarding_mode":"dsr-gue",
            "quic":{"server_id_length":8,"config_rotation":0},
            "sources":{"allow":["192.0.2.0/24","198.51.100.7/32"],
                       "deny":["2001:db8::/32","::/0"]}}"#),
    );
    for mode in ForwardingMode::ALL {
        let word = serde_json::to_value(mode).unwrap();
        assert_eq!(word, mode.name());
        assert_eq!(mode.name().parse(), Ok(mode));
    }
}

#[test]
fn what_breaks_a_rule_of_group_policies_is_named() {
    let check = check::<GroupPolicy>;
    check("{}", Err("Missing member 'policy'"));
    check(
        r#"{"policy":{},"weight":1}"#,
        Err("Unknown member 'weight'"),
    );
    check(r#"{"policy":{"mode":"nat"}}"#, Err("Unknown member 'mode'"));
    check(
        r#"{"policy":{"sources":{"allowed":[]}}}"#,
        Err("Unknown member 'allowed'"),
    );
    check(
        r#"{"policy":{"forwarding_mode":"dsr"}}"#,
        Err(
            "Invalid value 'dsr' in 'policy.forwarding_mode': expected one of 'nat', 'dsr-l2', \
             'dsr-ipip', 'dsr-gue'",
        ),
    );
    let sources = "Invalid value in 'policy.sources': ";
    let refuse = |allow: &str, deny: &str, message: &str| {
        check(
            &format!(r#"{{"policy":{{"sources":{{"allow":[{allow}],"deny":[{deny}]}}}}}}"#),
            Err(&format!("{sources}{message}")),
        );
    };
    refuse(
        r#""192.0.2.1/24""#,
        "",
        "Source prefix '192.0.2.1/24' has bits set past its length; write 192.0.2.0/24",
    );
    refuse(
        "",
        r#""2001:db8::1/32""#,
        "Source prefix '2001:db8::1/32' has bits set past its length; write 2001:db8::/32",
    );
    refuse(
        r#""::ffff:192.0.2.0/120""#,
        "",
        "Source prefix '::ffff:192.0.2.0/120' is the mapped form of an IPv4 prefix; write it as IPv4",
    );
    let word = "'all' is no source prefix; write one such as 192.0.2.0/24 or 2001:db8::/32";
    refuse(r#""all""#, "", word);
    refuse(
        r#""10.0.0.0/8""#,
        r#""10.0.0.0/8""#,
        "Source prefix '10.0.0.0/8' is in both 'allow' and 'deny'; remove it from one of them",
    );
    refuse(
        "",
        r#""10.0.0.1","10.0.0.1/32""#,
        "Source prefix '10.0.0.1/32' is given twice in 'deny'",
    );
    let quic = |members: &str, message: &str| {
        check(
            &format!(r#"{{"policy":{{"quic":{{{members}}}}}}}"#),
            Err(message),
        );
    };
    let at = "Invalid value in 'policy.quic': Value of";
    quic("", "Missing member 'server_id_length' in 'policy.quic'");
    let length = format!("{at} 'server_id_length' must be in the range 1 to 15");
    quic(r#""server_id_length":0"#, &length);
    quic(r#""server_id_length":16"#, &length);
    quic(
        r#""server_id_length":1,"config_rotation":7"#,
        &format!("{at} 'config_rotation' must be in the range 0 to 6"),
    );
}

#[test]
fn a_group_has_no_more_prefixes_than_fit() {
    let prefixes = |count: usize| -> Vec<IpNetwork> {
        (0..count as u32)
            .map(|host| IpNetwork::from(IpAddr::from(host.to_be_bytes())))
            .collect()
    };
    let policy = |allow, deny| SourcePolicy {
        allow: prefixes(allow),
        deny: prefixes(allow + deny).split_off(allow),
    };
    assert_eq!(policy(1000, 24).check(), Ok(()));
    let error = policy(1000, 25).check().unwrap_err();
    assert!(error.message.starts_with("1025 source prefixes"), "{error}");
}

#[test]
fn instance_policies() {
    let check = check::<InstancePolicy>;
    check(r#"{"policy":{}}"#, Ok(r#"{"weight":100}"#));
    check(
        r#"{"policy":{"weight":0,"quic_server_id":"0A0b0c0d01020304"}}"#,
        Ok(r#"{"weight":0,"quic_server_id":"0a0b0c0d01020304"}"#),
    );
    let weight = "Invalid value in 'policy': Value of 'weight' must be in the range 0 to 1000";
    check(r#"{"policy":{"weight":1001}}"#, Err(weight));
    check(r#"{"policy":{"weight":-1}}"#, Err(weight));
    check(r#"{"policy":{"wieght":1}}"#, Err("Unknown member 'wieght'"));
    let id = |id: &str, why: &str| {
        let place = "Invalid value in 'policy.quic_server_id'";
        check(
            &format!(r#"{{"policy":{{"quic_server_id":"{id}"}}}}"#),
            Err(&format!("{place}: QUIC server id '{id}' {why}")),
        );
    };
    id("0x01", "is not hexadecimal; write two digits for each byte");
    id(
        "012",
        "has an odd number of digits; write two for each byte",
    );
    id("", "has 0 bytes; it must have 1 to 15");
    id(&"ab".repeat(16), "has 16 bytes; it must have 1 to 15");
}

proptest! {
    #[test]
    fn server_ids_read_back(bytes in prop::collection::vec(any::<u8>(), 1..=15)) {
        let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let id: QuicServerId = text.parse().unwrap();
        prop_assert_eq!(id.as_bytes(), bytes);
        prop_assert_eq!(id.to_string(), text);
    }

    #[test]
    fn no_text_is_a_prefix_that_is_not_canonical(text in "[0-9a-f:./]{0,24}|.{0,8}") {
        if let Ok(prefix) = parse_prefix(&text) {
            prop_assert_eq!(prefix.ip(), prefix.network());
        }
    }
}

#[test]
fn ports_of_terminators_are_read_with_defaults_and_bounds() {
    let check = |ports: &str, expected: Result<&str, &str>| {
        let body = format!(r#"{{"policy":{{"terminated":[{ports}]}}}}"#);
        let found = parse_body::<PolicyData<GroupPolicy>>(body.as_bytes())
            .map(|data| serde_json::to_value(&data.policy.terminated).unwrap())
            .map_err(|error| error.message);
        let expected = expected
            .map(|json| serde_json::from_str(json).unwrap())
            .map_err(str::to_owned);
        assert_eq!(found, expected, "{body}");
    };
    check(
        r#"{"port":8443,"send_proxy":true},{"port":443,"upstream":"h2c","response_timeout_ms":900}"#,
        Ok(r#"[
            {"port":443,"upstream":"h2c","send_proxy":false,"connect_timeout_ms":5000,
             "idle_timeout_ms":3600000,"response_timeout_ms":900,"requests_per_source":0},
            {"port":8443,"upstream":"http1","send_proxy":true,"connect_timeout_ms":5000,
             "idle_timeout_ms":3600000,"response_timeout_ms":60000,"requests_per_source":0}]"#),
    );
    let at = "Invalid value in 'policy.terminated";
    let wrong = |port: &str, message: &str| {
        check(port, Err(&format!("{at}[0]': Value of {message}")));
    };
    wrong(r#"{"port":0}"#, "'port' must be in the range 1 to 65535");
    wrong(
        r#"{"port":443,"connect_timeout_ms":9}"#,
        "'connect_timeout_ms' must be in the range 10 to 120000",
    );
    wrong(
        r#"{"port":443,"idle_timeout_ms":-1}"#,
        "'idle_timeout_ms' must be in the range 1000 to 604800000",
    );
    wrong(
        r#"{"port":443,"response_timeout_ms":3600001}"#,
        "'response_timeout_ms' must be in the range 10 to 3600000",
    );
    wrong(
        r#"{"port":443,"requests_per_source":1000001}"#,
        "'requests_per_source' must be in the range 0 to 1000000",
    );
    check(
        r#"{"port":443},{"port":443}"#,
        Err(&format!(
            "{at}': Port 443 is given twice; give all of its settings at once"
        )),
    );
    check(
        r#"{"port":443,"upstream":"h2"}"#,
        Err("Invalid value 'h2' in 'policy.terminated[0].upstream': expected 'http1' or 'h2c'"),
    );
    check(
        r#"{"port":443,"timeout":1}"#,
        Err("Unknown member 'timeout'"),
    );
}
