//! What goes on while certificates and instances are replaced.

use std::time::Duration;

use lbagent_tests::https::Trust;
use lbagent_tests::pki::Authority;
use lbagent_tests::poll::{SOON, poll_until};
use lbagent_tests::require_root;
use lbagent_tests::resident::block_on;
use lbagent_tests::site::{NAME, Site};
use lbagent_tests::slowness::scale;
use lbagent_tests::topology::{VIP4, VIP6, VIPS};
use serde_json::json;

use super::load::{Held, Load};

const URL: &str = "https://web.lb.internal/";

#[test]
fn rotating_a_certificate_breaks_no_connection() {
    require_root!();
    let rotations = scale(5, 50);
    let mut site = Site::start().unwrap();
    let to = site.wait_for(VIP4).unwrap();
    let authority = Authority::new();
    // The development authority until there is a certificate of the group's own.
    let both = [site.browser.authority().unwrap(), authority.pem()].concat();
    site.trust = Trust::new(&both).unwrap();
    let client = &site.gateway.topology.client;
    let load = Load::start(client, &site.trust);
    let held = Held::start(&site, Duration::ZERO);
    for rotation in 0..rotations {
        let issued = authority.issue(&[NAME]);
        let (method, member) = match rotation {
            0 => ("POST", "common_name"),
            _ => ("PUT", "name"),
        };
        let mut body = json!({ "chain": issued.chain, "pkey": issued.key, "name": NAME });
        body[member] = NAME.into();
        let agent = &site.gateway.agent;
        agent.call(method, "/v1/certificates", Some(&body)).unwrap();
        let is_shown = || {
            let connected = block_on(client, || site.trust.connect(to, NAME));
            let stream = connected.unwrap();
            let shown = stream.get_ref().1.peer_certificates().unwrap();
            shown[0] == issued.der
        };
        poll_until("the new certificate", SOON, is_shown).unwrap();
        load.go_on(20);
    }
    // They began with a certificate that was replaced long ago.
    let ended = held.finish(&site);
    assert!(ended.iter().any(|last| last.goes_on));
    assert!(load.finish() > 20 * rotations);
}

#[test]
fn requests_at_instances_that_leave_are_finished() {
    require_root!();
    let site = Site::start().unwrap();
    for vip in VIPS {
        site.wait_for(vip).unwrap();
    }
    let held = Held::start(&site, Duration::ZERO);
    assert!(site.origins.iter().all(|origin| origin.held() > 0));
    let gateway = &site.gateway;
    let only_answers = |name: &str| {
        let answers = || {
            (0..12).all(|index| {
                let vip = [VIP4, VIP6][index % 2];
                let (is_content, text) = site.browser.get(vip, URL, &[]).unwrap();
                assert!(is_content, "{vip}: {text}");
                text.starts_with(name)
            })
        };
        poll_until(&format!("{name} to be the only one"), SOON, answers).unwrap();
    };
    gateway.stop("b1", Duration::from_secs(60)).unwrap();
    only_answers("b2");
    gateway.start_instance("b1").unwrap();
    gateway.delete_instance("b2").unwrap();
    only_answers("b1");
    held.finish(&site);
}
