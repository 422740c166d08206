//! `lbagent decap` as a command: run again, detached, with mistakes, in the foreground.

use super::*;

#[test]
fn detach_leaves_nothing() {
    require_root!();
    let lab = Lab::new();
    let _server = Server::start(&lab.backend.net, "b", &[PORT], &[]).unwrap();
    let before = lab.traces();
    for arguments in [
        &["--xdp-mode", "native", "--tc-mode", "auto"],
        &["--xdp-mode", "generic", "--tc-mode", "clsact"],
    ] {
        lab.decap_ok(arguments);
        assert_ne!(lab.traces(), before, "{arguments:?} leaves no trace");
        lab.gateway.wrap(outer_v4(), IPIP);
        lab.talk(VIP_V4);
        assert_eq!(lab.gateway.mss(), 1412);
        let removed = lab.decap_ok(&["--detach"]);
        assert!(removed.contains("removed lb_decap of b0"), "{removed}");
        assert_eq!(lab.traces(), before, "{arguments:?}");
        let again = lab.decap_ok(&["--detach"]);
        assert!(again.contains("nothing to remove"), "{again}");
        let refused = lab.connect(VIP_V4, Duration::from_millis(300));
        assert!(refused.is_err(), "still decapsulated");
        lab.gateway.unwrap();
        lab.talk(VIP_V4);
        assert_eq!(lab.gateway.mss(), 1460, "still clamped");
    }
    let ended = lab.decap(&["--status"]);
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(
        ended.stderr.contains("nothing is decapsulated"),
        "{ended:?}"
    );
}

#[test]
fn running_it_again_keeps_counters_and_connections() {
    require_root!();
    let lab = Lab::new();
    let _server = Server::start(&lab.backend.net, "b", &[PORT], &[]).unwrap();
    lab.gateway.wrap(outer_v4(), GUE);
    lab.decap_ok(&["--vip", VIP_V4]);
    let mut connection = lab.connect(VIP_V4, ANSWER).unwrap();
    connection.command("echo").unwrap();
    let status = lab.status();
    assert_eq!(status["vips"], serde_json::json!([VIP_V4]));
    assert!(lab.connect(VIP_V6, Duration::from_millis(300)).is_err());
    // The relay may take longer than the client waits.
    poll_until("the SYN to be counted", SOON, || {
        lab.packets("pass_not_vip") > 0
    })
    .unwrap();
    for arguments in [
        &["--tc-mode", "clsact"][..],
        &["--tc-mode", "auto"],
        &["--mode", "gue"],
        &[],
    ] {
        let before = lab.packets("decap_gue");
        lab.decap_ok(arguments);
        connection.echo("still there").unwrap();
        assert!(lab.packets("decap_gue") > before, "counters began anew");
        lab.talk(VIP_V6);
    }
    // Kept from before the first of them.
    assert!(lab.packets("pass_not_vip") > 0);
    lab.decap_ok(&["--mode", "ipip"]);
    assert!(lab.connect(VIP_V4, Duration::from_millis(300)).is_err());
}

#[test]
fn mistakes_are_named_and_leave_nothing() {
    #[track_caller]
    fn check(lab: &Lab, arguments: &[&str], code: i32, expected: &str) {
        let before = lab.traces();
        let ended = lab.decap(arguments);
        assert_eq!(ended.code, code, "{arguments:?}: {ended:?}");
        assert!(ended.stderr.contains(expected), "{arguments:?}: {ended:?}");
        assert_eq!(lab.traces(), before, "{arguments:?}");
    }
    require_root!();
    let lab = Lab::new();
    check(&lab, &["--iface", "b9"], 1, "no interface b9");
    lab.decap_ok(&["--detach"]);
    check(&lab, &["--mtu", "500"], 2, "MTU of 500");
    check(&lab, &["--mss", "100"], 2, "100 is not in 536");
    check(&lab, &["--vip", "nowhere"], 2, "invalid value");
    check(
        &lab,
        &["--bpffs-dir", "/run/pins"],
        1,
        "not on a BPF file system",
    );
    let other = lab
        .backend
        .net
        .run(|| attach_xdp_pass(interface_index("b0").unwrap()).unwrap());
    check(&lab, &[], 1, "another XDP program is attached");
    check(
        &lab,
        &["--xdp-mode", "generic"],
        1,
        "another XDP program is attached",
    );
    drop(other);
    poll_until("the other program to go", SOON, || lab.decap(&[]).code == 0).unwrap();
}

#[test]
fn in_the_foreground_it_follows_the_host() {
    require_root!();
    let lab = Lab::new();
    let late = "192.0.2.77";
    let mut command = lab.backend.command(binary("LBAGENT_BIN", "lbagent"));
    command.args(["decap", "--iface", "b0", "--foreground"]);
    command.stdout(Stdio::null());
    let mut child = command.spawn().unwrap();
    let has = |vip: &str| {
        let status = lab.decap(&["--status", "--json"]);
        status.code == 0 && status.stdout.contains(&format!("{vip:?}"))
    };
    poll_until("the first VIPs", SOON, || has(VIP_V4)).unwrap();
    lab.backend.net.run(|| {
        let cidr = Cidr::host(late.parse().unwrap());
        Netlink::open().unwrap().add_address("lo", cidr).unwrap();
    });
    poll_until("the late VIP", SOON, || has(late)).unwrap();
    kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).unwrap();
    let ended = poll_for("the end", SOON, || child.try_wait().unwrap()).unwrap();
    assert_eq!(ended.code(), Some(0));
    // What is attached stays.
    assert!(has(late));
    assert!(lab.backend.run(|| Path::new(BPFFS_DIR).exists()));
}

#[test]
fn check_says_what_the_host_lacks() {
    require_root!();
    let lab = Lab::new();
    let advice = lab.decap(&["--check", "--vip", VIP_V4, "--vip", "192.0.2.99"]);
    assert_eq!(advice.code, 1, "{advice:?}");
    for command in [
        "sysctl -w net.ipv4.conf.b0.arp_ignore=1",
        "sysctl -w net.ipv4.conf.b0.arp_announce=2",
        "ip address add 192.0.2.99/32 dev lo",
    ] {
        assert!(advice.stdout.contains(command), "{advice:?}");
    }
    lab.backend.net.run(|| {
        set_sysctl("net/ipv4/conf/b0/arp_ignore", "1").unwrap();
        set_sysctl("net/ipv4/conf/b0/arp_announce", "2").unwrap();
        set_sysctl("net/ipv4/conf/b0/rp_filter", "2").unwrap();
    });
    let fine = lab.decap_ok(&["--check"]);
    assert_eq!(fine, "nothing to do\n");
}
