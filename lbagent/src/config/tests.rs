use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::*;

const MINIMAL: &str = "client_interfaces = ['eth0']\nbackend_interfaces = ['br0']\nvips = ['192.0.2.10', '2001:db8::10']\n";

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(Path::new("test.toml"), text, &Overrides::default())
}

/// The problems of a text, one a line.
fn problems(text: &str) -> String {
    match parse(text) {
        Ok(_) => "ok".to_owned(),
        Err(error) => error.to_string(),
    }
}

/// `text` follows a configuration without problems, from line 4.
#[track_caller]
fn check(text: &str, expected: &[&str]) {
    assert_eq!(
        problems(&format!("{MINIMAL}{text}")),
        expected.join("\n"),
        "\n{text}"
    );
}

#[test]
fn the_minimum_is_enough() {
    let config = parse(MINIMAL).unwrap();
    assert_eq!(config.api.listen, Some("127.0.0.1:7480".parse().unwrap()));
    let socket = Path::new("/run/lbagent/api.sock");
    assert_eq!(config.api.unix_socket.as_deref(), Some(socket));
    assert!(!config.api.loopback_without_token);
    assert_eq!(config.api.metro_domain, "lb.internal");
    assert_eq!(config.xdp_mode, XdpMode::Auto);
    assert_eq!(config.vip_mode, VipMode::L2);
    assert_eq!(config.unpublished_ports, UnpublishedPorts::Pass);
    assert_eq!(config.limits, Capacity::default());
    assert_eq!(config.udp_idle, Duration::from_secs(60));
    assert_eq!(config.settle_after, Duration::from_secs(7_440));
    assert_eq!(config.answers_per_second, 1_000);
    assert_eq!(
        config.store_path(),
        Path::new("/var/lib/lbagent/state.redb")
    );
    assert_eq!(config.gateway_settings(7).hash_seed, 7);
}

#[test]
fn the_shipped_file_is_valid_and_names_the_defaults() {
    let path = Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../packaging/lbagent.toml"
    ));
    let text = fs::read_to_string(path).unwrap();
    let shipped = Config::parse(path, &text, &Overrides::default()).unwrap();
    // Every commented-out setting is the default, so that uncommenting one changes nothing.
    let uncommented: String = text
        .lines()
        .map(|line| match line.strip_prefix("#") {
            Some(rest) if !rest.starts_with(' ') && !rest.is_empty() => format!("{rest}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    assert_ne!(uncommented.trim(), text.trim());
    assert_eq!(
        Config::parse(path, &uncommented, &Overrides::default()).unwrap(),
        shipped
    );
}

#[test]
fn missing_settings_are_all_named() {
    let text = problems("");
    for key in ["client_interfaces", "backend_interfaces", "vips"] {
        assert!(
            text.contains(&format!("test.toml: {key}: name at least one")),
            "{text}"
        );
    }
}

#[test]
fn unknown_keys_are_named_with_their_line() {
    check(
        "vip_mod = 'l2'",
        &["test.toml:4: unknown key `vip_mod`; did you mean `vip_mode`?"],
    );
    check(
        "[api]\nlisten = '127.0.0.1:1'\nunix_sokcet = '/a'\n[flow]\nzzz = 1",
        &[
            "test.toml:6: unknown key `api.unix_sokcet`; did you mean `api.unix_socket`?",
            "test.toml:8: unknown key `flow.zzz`; known here: hash_seed, udp_idle_s, settle_after_s",
        ],
    );
    check(
        "[limit]\nvips = 1",
        &["test.toml:4: unknown key `limit`; did you mean `limits`?"],
    );
}

#[test]
fn wrong_types_are_named_with_their_line() {
    check(
        "vip_mode = 3",
        &["test.toml:4: vip_mode: expected a string, found integer"],
    );
    check(
        "[limits]\nslots = true",
        &["test.toml:5: limits.slots: expected a whole number, found boolean"],
    );
    check(
        "api = 'x'",
        &["test.toml:4: api: expected a table, found string"],
    );
    check(
        "[flow]\nhash_seed = -1",
        &["test.toml:5: flow.hash_seed: expected a whole number from 0 to 18446744073709551615"],
    );
}

#[test]
fn values_that_make_no_sense_are_refused() {
    check(
        "vip_mode = 'L2'",
        &["test.toml:4: vip_mode: `L2` is none of l2, routed; did you mean `l2`?"],
    );
    check(
        "state_dir = 'state'",
        &["test.toml:4: state_dir: `state` must be an absolute path"],
    );
    check(
        "[flow]\nudp_idle_s = 0\n[answers]\nper_second = 10000001",
        &[
            "test.toml:5: flow.udp_idle_s: 0 is not in the range 1 to 86400",
            "test.toml:7: answers.per_second: 10000001 is not in the range 0 to 10000000",
        ],
    );
    check(
        "[flow]\nsettle_after_s = 59",
        &["test.toml:5: flow.settle_after_s: 59 is not in the range 60 to 604800"],
    );
    check(
        "[limits]\nslots = 100",
        &["test.toml:5: limits.slots: 100 is not in the range 1018 to 67108864"],
    );
    check(
        "[limits]\nvips = 2",
        &["test.toml:5: limits.vips: 2 is not in the range 3 to 67108864"],
    );
    check(
        "[limits]\nconns = 99999999999",
        &["test.toml:5: limits.conns: 99999999999 is not in the range 1 to 67108864"],
    );
    check(
        "[api]\nmetro_domain = 'a b'",
        &["test.toml:5: api.metro_domain: `a b` is no valid domain name"],
    );
    check(
        "[api]\nlisten = '0.0.0.0:7480'\nloopback_without_token = true",
        &[
            "test.toml:6: api.loopback_without_token: 0.0.0.0:7480 can be reached from other hosts, \
           so clients must show a token there; `lbctl token create` makes one",
        ],
    );
    check(
        "[api]\nmetrics_listen = '[::]:7482'",
        &[
            "test.toml:5: api.metrics_listen: [::]:7482 can be reached from other hosts, and metrics \
           name accounts, groups and certificates; set api.metrics_public = true if whoever reaches \
           it may read them",
        ],
    );
    let text = "[api]\nmetrics_listen = '[::]:7482'\nmetrics_public = true";
    let config = parse(&format!("{MINIMAL}{text}")).unwrap();
    let public = Some("[::]:7482".parse().unwrap());
    assert_eq!(config.api.metrics_listen, public);
    check(
        "[api]\ntls_key = '/k'\nunix_socket_group = 'no-such-group'",
        &[
            "test.toml:5: api: tls_certificate and tls_key go together",
            "test.toml:6: api.unix_socket_group: there is no group `no-such-group`; \
           `groupadd no-such-group` makes it",
        ],
    );
    check(
        "[api]\ntls_certificate = '/nowhere'\ntls_key = '/k'",
        &[
            "test.toml:5: api: cannot read /nowhere as PEM: I/O error: No such file or directory \
           (os error 2)",
        ],
    );
    check(
        "[api]\nlisten = 'localhost'",
        &[
            "test.toml:5: api.listen: `localhost` is no address with port, such as 127.0.0.1:7480 \
           or [::1]:7480",
        ],
    );
}

#[test]
fn vips_and_interfaces_are_checked_one_by_one() {
    #[track_caller]
    fn check(vips: &str, expected: &[&str]) {
        let text =
            format!("client_interfaces = ['eth0']\nbackend_interfaces = ['eth0']\nvips = {vips}");
        assert_eq!(problems(&text), expected.join("\n"), "{vips}");
    }
    check(
        "['192.0.2.1', '192.0.2.1']",
        &["test.toml:3: vips: `192.0.2.1` is named twice"],
    );
    check(
        "['2001:db8::1', '2001:DB8:0::1']",
        &["test.toml:3: vips: `2001:DB8:0::1` is named twice"],
    );
    check(
        "['0.0.0.0']",
        &["test.toml:3: vips: `0.0.0.0` is the unspecified address and cannot be a VIP"],
    );
    check(
        "['ff02::1']",
        &["test.toml:3: vips: `ff02::1` is a multicast address and cannot be a VIP"],
    );
    check(
        "['127.0.0.2']",
        &["test.toml:3: vips: `127.0.0.2` is a loopback address and cannot be a VIP"],
    );
    check(
        "['192.0.2.0/24']",
        &["test.toml:3: vips: `192.0.2.0/24` is a prefix; name single addresses"],
    );
    check(
        "[\n'web'\n]",
        &["test.toml:4: vips: `web` is no IPv4 or IPv6 address"],
    );
    check(
        "['::ffff:192.0.2.1']",
        &[
            "test.toml:3: vips: `::ffff:192.0.2.1` is an IPv4 address in its IPv6-mapped form and \
           cannot be a VIP",
        ],
    );
    let text = "client_interfaces = ['eth0', 'eth0', 'a/b']\nbackend_interfaces = ['br0']\nvips = ['192.0.2.1']";
    assert_eq!(
        problems(text),
        "test.toml:1: client_interfaces: `eth0` is named twice\n\
         test.toml:1: client_interfaces: `a/b` cannot be an interface's name"
    );
}

#[test]
fn a_syntax_error_has_its_line() {
    let text = problems(&format!("{MINIMAL}vip_mode = "));
    assert!(text.starts_with("test.toml:4: "), "{text}");
    // What cannot be read is not missing.
    assert_eq!(
        problems("client_interfaces = [\"eth0\""),
        "test.toml:1: unclosed array, expected `]`"
    );
}

#[test]
fn overrides_win_and_are_named_in_problems() {
    let overrides = Overrides {
        client_interfaces: vec!["eth7".into()],
        vips: vec!["198.51.100.1".parse().unwrap()],
        xdp_mode: Some("generic".into()),
        api_listen: Some("none".into()),
        api_unix_socket: Some("/run/x.sock".into()),
        ..Overrides::default()
    };
    let config = Config::parse(Path::new("test.toml"), MINIMAL, &overrides).unwrap();
    assert_eq!(config.client_interfaces, ["eth7"]);
    assert_eq!(config.backend_interfaces, ["br0"]);
    assert_eq!(
        config.vips,
        BTreeSet::from(["198.51.100.1".parse().unwrap()])
    );
    assert_eq!(config.xdp_mode, XdpMode::Generic);
    assert_eq!(config.api.listen, None);

    let overrides = Overrides {
        xdp_mode: Some("fast".into()),
        ..overrides
    };
    let error = Config::parse(Path::new("test.toml"), MINIMAL, &overrides).unwrap_err();
    assert_eq!(
        error.to_string(),
        "--xdp-mode: xdp_mode: `fast` is none of auto, native, generic"
    );
}

#[test]
fn the_token_must_be_secret_and_whole() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    let text = format!(
        "{MINIMAL}[api]\nlisten = '[::]:7480'\ntoken_file = '{}'",
        file.display()
    );
    let check = |token: Option<(&str, u32)>, expected: &str| {
        if let Some((token, mode)) = token {
            fs::write(&file, token).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        }
        let found = problems(&text);
        assert!(found.contains(expected), "expected {expected:?} in {found}");
        assert!(!found.contains("s3cret"), "the token is shown: {found}");
    };
    check(None, "cannot be read");
    check(Some(("", 0o600)), "is empty");
    check(Some(("s3cret\nmore", 0o600)), "one token");
    check(Some(("s3cret", 0o644)), "chmod 640");
    check(Some(("s3cret\n", 0o640)), "ok");
}

#[test]
fn numbers_may_be_hexadecimal_or_too_large_for_toml() {
    let config = parse(&format!(
        "{MINIMAL}[flow]\nhash_seed = '0xffffffffffffffff'"
    ))
    .unwrap();
    assert_eq!(config.hash_seed, Some(u64::MAX));
    assert_eq!(config.gateway_settings(7).hash_seed, u64::MAX);
}

#[test]
fn terminators_are_told_limits_and_proxies() {
    let config = parse(&format!(
        "{MINIMAL}[terminator]\ntrusted_proxies = ['192.0.2.0/24', '2001:db8::1']\n\
         proxy_protocol_from = ['198.51.100.7']\n\
         [terminator.limits]\nconnections = 5\nhead_timeout_s = 3\nhead_bytes = 8192"
    ))
    .unwrap();
    let ServingSettings { limits, proxies } = config.terminator.serving;
    let expected = Limits {
        connections: 5,
        head_timeout_ms: 3_000,
        head_bytes: 8_192,
        ..Limits::default()
    };
    assert_eq!(limits, expected);
    let texts = |prefixes: Vec<_>| prefixes.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(texts(proxies.trusted), ["192.0.2.0/24", "2001:db8::1/128"]);
    assert_eq!(texts(proxies.proxy_protocol), ["198.51.100.7/32"]);

    let found = problems(&format!(
        "{MINIMAL}[terminator]\ntrusted_proxies = ['192.0.2.1/24']\n\
         [terminator.limits]\nconnections = 0\nhead_bytes = 100\nconnection = 1"
    ));
    for line in [
        "test.toml:5: terminator.trusted_proxies: Source prefix '192.0.2.1/24' has bits set past \
         its length; write 192.0.2.0/24",
        "test.toml:7: terminator.limits.connections: 0 is not in the range 1 to 10000000",
        "test.toml:8: terminator.limits.head_bytes: 100 is not in the range 8192 to 1048576",
        "test.toml:9: unknown key `terminator.limits.connection`; did you mean \
         `terminator.limits.connections`?",
    ] {
        assert!(found.contains(line), "no {line:?} in {found}");
    }
}

#[test]
fn what_is_on_needs_a_kernel_with_cookies() {
    let needs = |text: &str| parse(&format!("{MINIMAL}{text}")).unwrap().needs_cookies();
    assert_eq!(needs(""), None);
    assert_eq!(
        needs("redirect.at_nic = 'off'\nsyn_shield.mode = 'off'"),
        None
    );
    assert_eq!(needs("syn_shield.mode = 'on'"), Some("syn_shield.mode"));
    assert_eq!(needs("redirect.at_nic = 'on'"), Some("redirect.at_nic"));
}
