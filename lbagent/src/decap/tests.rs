//! Decisions, without a kernel.

use super::host_check::{Settings, advise};
use super::*;

fn host() -> HostView {
    let ips = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
    HostView {
        addresses: ips(&["10.0.0.2", "fd00::2", "192.0.2.10", "2001:db8::10"]),
        on_loopback: ips(&["192.0.2.10", "2001:db8::10"]),
        interfaces: [
            ("eth0".to_owned(), (2, 1500)),
            ("tiny0".to_owned(), (3, 600)),
        ]
        .into(),
    }
}

fn options(interface: &str) -> Options {
    Options {
        interfaces: vec![interface.to_owned()],
        vips: BTreeSet::new(),
        mode: Mode::Both,
        gue_port: GUE_PORT,
        mss: MssSource::Interface,
        xdp_mode: XdpMode::Auto,
        tc_mode: TcMode::Auto,
        bpffs_dir: BPFFS_DIR.into(),
    }
}

#[test]
fn mss_leaves_room_for_every_outer_header() {
    #[track_caller]
    fn check(source: MssSource, interface_mtu: u32, expected: Option<(u16, u16)>) {
        let found = source.at(interface_mtu).map(|mss| (mss.v4, mss.v6));
        assert_eq!(found, expected, "{source:?} at {interface_mtu}");
    }
    check(MssSource::Interface, 1500, Some((1412, 1392)));
    check(MssSource::Interface, 9000, Some((8912, 8892)));
    check(MssSource::Interface, 65_536, Some((65_448, 65_428)));
    check(MssSource::Interface, 644, Some((556, 536)));
    check(MssSource::Interface, 643, None);
    check(MssSource::Interface, 0, None);
    check(MssSource::Mtu(1400), 1500, Some((1312, 1292)));
    check(MssSource::Fixed(1300), 0, Some((1300, 1300)));
}

#[test]
fn vips_are_those_of_lo_unless_named() {
    let (mut options, host) = (options("eth0"), host());
    assert_eq!(vips(&options, &host), host.on_loopback);
    let requests = plan(&options, &host).unwrap();
    let roles = &requests[0].0.roles;
    assert_eq!(roles[&"10.0.0.2".parse::<IpAddr>().unwrap()], ROLE_HOST);
    assert_eq!(
        roles[&"192.0.2.10".parse::<IpAddr>().unwrap()],
        ROLE_HOST | ROLE_VIP
    );
    options.vips = ["198.51.100.9".parse().unwrap()].into();
    let requests = plan(&options, &host).unwrap();
    let roles = &requests[0].0.roles;
    assert_eq!(roles[&"192.0.2.10".parse::<IpAddr>().unwrap()], ROLE_HOST);
    assert_eq!(roles[&"198.51.100.9".parse::<IpAddr>().unwrap()], ROLE_VIP);
}

#[test]
fn what_cannot_work_is_named() {
    #[track_caller]
    fn check(options: &Options, host: &HostView, expected: &str) {
        let error = plan(options, host).unwrap_err().to_string();
        assert!(error.contains(expected), "{error:?} lacks {expected:?}");
    }
    check(&options("eth0"), &HostView::default(), "dev lo");
    check(&options("eth9"), &host(), "no interface eth9");
    check(&options("tiny0"), &host(), "tiny0 has an MTU of 600");
}

#[test]
fn advice_names_what_is_missing() {
    #[track_caller]
    fn check(settings: [u8; 3], vips: &[&str], expected: &[&str]) {
        let [arp_ignore, arp_announce, rp_filter] = settings;
        let settings = Settings {
            arp_ignore,
            arp_announce,
            rp_filter,
        };
        let vips = vips.iter().map(|text| text.parse().unwrap()).collect();
        let advice = advise("eth0", settings, &vips, &host());
        let commands: Vec<_> = advice.iter().map(|advice| &advice.command).collect();
        assert_eq!(commands, expected, "{settings:?} {vips:?}");
    }
    check([1, 2, 2], &["192.0.2.10"], &[]);
    check([2, 2, 0], &["192.0.2.10"], &[]);
    check(
        [0, 0, 1],
        &["192.0.2.10"],
        &[
            "sysctl -w net.ipv4.conf.eth0.arp_ignore=1",
            "sysctl -w net.ipv4.conf.eth0.arp_announce=2",
            "sysctl -w net.ipv4.conf.eth0.rp_filter=2",
        ],
    );
    check([0, 0, 1], &["2001:db8::10"], &[]);
    check(
        [1, 2, 0],
        &["192.0.2.99", "2001:db8::99"],
        &[
            "ip address add 192.0.2.99/32 dev lo",
            "ip address add 2001:db8::99/128 dev lo",
        ],
    );
}
