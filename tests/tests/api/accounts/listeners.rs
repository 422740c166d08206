//! Who is let in by the Unix socket, and TLS.

use super::*;

/// `lbctl account ls` as another user.
fn as_user(gateway: &Strict, user: &str, group: &str) -> Ended {
    let mut command: Command = gateway.topology.gateway.command("setpriv");
    command
        .args(["--reuid", user, "--regid", group, "--clear-groups"])
        .arg(binary("LBCTL_BIN", "lbctl"))
        .args(["account", "ls"])
        // The other user's, who has no profiles.
        .env("HOME", "/nonexistent");
    Ended::of(&mut command).unwrap()
}

#[test]
fn the_unix_socket_is_for_root_and_its_group() {
    require_root!();
    let alone = Strict::start(|_, _| {});
    let ended = as_user(&alone, "65534", "65534");
    assert!(
        ended.code == 1 && ended.stderr.contains("may not use unix:"),
        "{ended:?}"
    );
    // Wrong permissions on the socket open nothing.
    alone.topology.gateway.run(|| {
        use std::os::unix::fs::PermissionsExt;
        let open = std::fs::Permissions::from_mode(0o666);
        std::fs::set_permissions("/run/lbagent/api.sock", open).unwrap();
    });
    let ended = as_user(&alone, "65534", "65534");
    assert!(
        ended.code == 1 && ended.stderr.contains("User 65534 may not"),
        "{ended:?}"
    );
    drop(alone);
    let shared = Strict::start(|_, config| {
        config.api.insert("unix_socket_group", "nogroup".into());
    });
    let ended = as_user(&shared, "65533", "65534");
    assert_eq!(ended.code, 0, "{ended:?}");
    let ended = as_user(&shared, "65533", "65533");
    assert!(ended.code != 0, "{ended:?}");
}

#[test]
fn an_agent_without_tls_says_so() {
    require_root!();
    let gateway = Strict::start(|_, _| {});
    let host = &gateway.topology.gateway;
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    host.run(|| std::fs::write("/run/any.crt", made.cert.pem()))
        .unwrap();
    let endpoint = ["--endpoint", "https://127.0.0.1:7480", "--ca-file"];
    let ended = ctl::run(host, &[&endpoint[..], &["/run/any.crt", "status"]].concat()).unwrap();
    assert!(
        ended.code == 3 && ended.stderr.contains("say http:// instead"),
        "{ended:?}"
    );
}

#[test]
fn tls_proves_the_agent_and_its_certificate_can_be_replaced() {
    require_root!();
    let write = || {
        let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
        std::fs::write("/run/api.crt", made.cert.pem()).unwrap();
        std::fs::write("/run/api.key", made.signing_key.serialize_pem()).unwrap();
        use std::os::unix::fs::PermissionsExt;
        let secret = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions("/run/api.key", secret).unwrap();
    };
    let gateway = Strict::start(|topology, config| {
        topology.gateway.run(write);
        config.api.insert("tls_certificate", "/run/api.crt".into());
        config.api.insert("tls_key", "/run/api.key".into());
    });
    let (token, _) = gateway.token(&["--role", "operator"]);
    let host = &gateway.topology.gateway;
    let ask = |ca: &str| {
        let endpoint = ["--endpoint", "https://127.0.0.1:7480", "--ca-file", ca];
        let rest = ["--token", &token, "service", "ls"];
        ctl::run(host, &[&endpoint[..], &rest[..]].concat()).unwrap()
    };
    assert_eq!(ask("/run/api.crt").code, 0, "{:?}", ask("/run/api.crt"));
    host.run(|| std::fs::copy("/run/api.crt", "/run/former.crt"))
        .unwrap();
    let plain = Request {
        method: "GET",
        path: "/v1/services",
        token: Some(&token),
        body: None,
    };
    assert!(
        gateway.agent.send(&plain).is_err(),
        "plain HTTP is not served"
    );
    host.run(write);
    let hang_up = || {
        let pid = i32::try_from(gateway.agent.pid().unwrap()).unwrap();
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(pid),
            nix::sys::signal::Signal::SIGHUP,
        )
    };
    hang_up().unwrap();
    poll_until("the new certificate", SOON, || {
        ask("/run/api.crt").code == 0
    })
    .unwrap();
    let former = ask("/run/former.crt");
    assert!(
        former.code == 3 && former.stderr.contains("--ca-file FILE"),
        "{former:?}"
    );
    let endpoint = ["--endpoint", "http://127.0.0.1:7480", "service", "ls"];
    let plain = ctl::run(host, &endpoint).unwrap();
    assert!(
        plain.code == 3 && plain.stderr.contains("https://"),
        "{plain:?}"
    );
    // Files that cannot be used change nothing.
    host.run(|| std::fs::write("/run/api.key", "nonsense"))
        .unwrap();
    hang_up().unwrap();
    poll_until("the refusal", SOON, || {
        let log = gateway.agent.log().unwrap();
        log.contains("goes on with its former certificate")
    })
    .unwrap();
    assert_eq!(ask("/run/api.crt").code, 0);
}
