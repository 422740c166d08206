//! Other processes of lbterm under load.

use lbagent_tests::https::Version;
use lbagent_tests::poll::{SOON, poll_until};
use lbagent_tests::require_root;
use lbagent_tests::site::Site;
use lbagent_tests::slowness::scale;
use lbagent_tests::topology::{VIP4, VIP6};

use super::load::{Held, Last, Load};

/// The fields that tell clients to go are there where they can be: in heads that were not sent yet,
/// and always in HTTP/2.
#[track_caller]
fn check_goodbyes(ended: &[Last]) {
    for last in ended {
        if last.version == Version::Http2 || last.what == "/held" {
            assert!(!last.goes_on, "{:?} {}", last.version, last.what);
        }
    }
}

#[test]
fn ten_thousand_connections_survive_upgrades_and_restarts() {
    require_root!();
    let (rounds, connections) = scale((4, 600), (10, 10_000));
    let mut site = Site::start().unwrap();
    for vip in [VIP4, VIP6] {
        site.wait_for(vip).unwrap();
    }
    let load = Load::start(&site.gateway.topology.client, &site.trust);
    for round in 0..rounds {
        load.go_on(connections / rounds);
        let held = Held::start(&site, SOON);
        if round % 2 == 0 {
            site.lbterm.upgrade().unwrap();
        } else {
            site.lbterm.terminate().unwrap();
        }
        // It hears of that a moment after the agent has decided it, and says so.
        let log = || site.gateway.agent.log().unwrap();
        let drains = || log().matches("a terminator drains").count() > round as usize;
        poll_until("the process to drain", SOON, drains).unwrap();
        check_goodbyes(&held.finish(&site));
        if round % 2 == 1 {
            // What comes between the processes waits in the listening sockets.
            site.lbterm.start_again().unwrap();
        }
    }
    load.go_on(connections / rounds);
    let visits = load.finish();
    assert!(visits >= connections, "{visits}");
    site.lbterm.wait_for_formers(1).unwrap();
}
