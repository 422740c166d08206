//! The segment size that clients are told.

use super::*;

#[test]
fn clients_are_told_a_segment_size_that_fits() {
    #[track_caller]
    fn check(lab: &Lab, arguments: &[&str], vip: &str, expected: u16) {
        lab.decap_ok(arguments);
        let before = lab.packets("clamp_lowered");
        lab.talk(vip);
        assert_eq!(lab.gateway.mss(), expected, "{arguments:?} {vip}");
        let lowered = lab.packets("clamp_lowered") - before;
        // Once for each SYN-ACK: a slow relay makes the backend send one again.
        assert_eq!(lowered > 0, expected < 1440, "{arguments:?} {vip}");
    }
    require_root!();
    let lab = Lab::new();
    let _server = Server::start(&lab.backend.net, "b", &[PORT], &[]).unwrap();
    lab.gateway.wrap(outer_v6(), GUE);
    check(&lab, &["--mss", "1460"], VIP_V4, 1460);
    for tc_mode in tc_modes() {
        check(&lab, &["--tc-mode", tc_mode], VIP_V4, 1412);
        check(&lab, &["--tc-mode", tc_mode], VIP_V6, 1392);
        check(&lab, &["--tc-mode", tc_mode, "--mtu", "1400"], VIP_V4, 1312);
        check(&lab, &["--tc-mode", tc_mode, "--mss", "1000"], VIP_V6, 1000);
    }
    lab.decap_ok(&[]);
    for vip in [VIP_V4, VIP_V6] {
        for direction in [Direction::Upload, Direction::Download] {
            let to = SocketAddr::new(vip.parse().unwrap(), PORT);
            let transfer =
                Transfer::start(&lab.client, to, direction, 3_000_001, Duration::ZERO).unwrap();
            transfer.finish().unwrap();
            assert_eq!(lab.gateway.too_big(), 0, "{vip} {direction:?}");
        }
    }
}

/// Shows that the test before would notice a segment that is too large.
#[test]
fn segments_of_the_full_size_would_not_fit() {
    require_root!();
    let lab = Lab::new();
    let _server = Server::start(&lab.backend.net, "b", &[PORT], &[]).unwrap();
    lab.gateway.wrap(outer_v6(), GUE);
    lab.decap_ok(&["--mss", "1460"]);
    let mut connection = lab.connect(VIP_V4, ANSWER).unwrap();
    connection.command("receive 100000").unwrap();
    let stream = connection.stream().get_mut();
    assert!(stream.write(&[0; 50_000]).unwrap() > 0);
    poll_until("segments that do not fit", SOON, || {
        lab.gateway.too_big() > 0
    })
    .unwrap();
}
