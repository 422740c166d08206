//! The SYN shield, as clients of ports that do not redirect and operators see it.

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use lbagent_api::status::SynShieldMode;
use lbagent_tests::poll::poll_until;
use lbagent_tests::redirect_site::Site;
use lbagent_tests::require_root;
use lbagent_tests::slowness::patience;
use lbagent_tests::topology::{Shape, VIP4, VIP6};
use lbagent_tests::web::PATIENCE;

const LIMIT: u32 = 5;
/// More than all CPUs together leave to the kernel before a second is over.
const MANY: usize = 300;

fn answered(site: &Site) -> u64 {
    site.gateway.agent.outcome("answer_shield").unwrap()
}

/// A page of the site, in time.
#[track_caller]
fn browse(site: &Site, vip: IpAddr) {
    let started = Instant::now();
    let url = "https://web.lb.internal/echo/shielded";
    let (is_content, text) = site.browser.get(vip, url, &["--fail"]).unwrap();
    assert!(is_content, "{text}");
    assert_eq!(text, "/echo/shielded");
    // A SYN that got no answer is sent again after a second, three, seven.
    assert!(started.elapsed() < patience(Duration::from_secs(5)));
}

#[test]
fn on_it_answers_for_ports_that_do_not_redirect() {
    require_root!();
    let site = Site::start(|config| {
        config.syn_shield.insert("mode", "on".into());
    })
    .unwrap();
    for vip in [VIP4, VIP6] {
        let before = answered(&site);
        browse(&site, vip);
        assert!(answered(&site) > before);
    }
    let shield = site.gateway.agent.status().unwrap().syn_shield;
    assert_eq!(shield.mode, SynShieldMode::On);
    assert!(shield.answered >= 2, "{shield:?}");
    assert_eq!(shield.reason, None);
}

/// In generic mode what a program sends back arrives on a veth, so nothing is in doubt.
#[test]
fn automatic_it_comes_and_goes_with_the_flood() {
    require_root!();
    let site = Site::start_on(Shape::Routed, |config| {
        config.xdp_mode = Some("generic");
        config.redirect.clear();
        config.syn_shield.insert("per_second", LIMIT.into());
    })
    .unwrap();
    site.wait_for_cookies().unwrap();
    let shield = || site.gateway.agent.status().unwrap().syn_shield;
    let told = shield();
    assert_eq!(
        (told.mode, told.per_second),
        (SynShieldMode::Auto, Some(LIMIT))
    );
    for vip in [VIP4, VIP6] {
        poll_until("a calm second", PATIENCE, || shield().flooded.is_empty()).unwrap();
        let before = answered(&site);
        browse(&site, vip);
        assert_eq!(answered(&site), before, "one client is the kernel's");
        let open = || TcpStream::connect_timeout(&SocketAddr::new(vip, 443), PATIENCE);
        let opened = site.gateway.topology.client.run(|| {
            let all = (0..MANY).map(|_| open());
            all.collect::<std::io::Result<Vec<_>>>()
        });
        assert_eq!(opened.unwrap().len(), MANY, "everybody gets through");
        let told = shield();
        assert!(told.flooded.contains(&vip), "{told:?}");
        assert!(told.answered > before, "{told:?}");
        browse(&site, vip);
    }
}
