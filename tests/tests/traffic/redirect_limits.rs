//! Redirects at the network card where the kernel's setting cannot be kept, and after quiet minutes.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use lbagent_tests::netns::set_sysctl;
use lbagent_tests::poll::poll_until;
use lbagent_tests::redirect_site::Site;
use lbagent_tests::require_root;
use lbagent_tests::slowness::{patience, scale};
use lbagent_tests::topology::{VIP4, VIPS};
use lbagent_tests::web::PATIENCE;
use nix::mount::{MsFlags, mount, umount};

use crate::redirect::{any, ask, assert_redirected};

const REQUEST: &[u8] =
    b"GET /a HTTP/1.1\r\nHost: web.lb.internal\r\nUser-Agent: as long as others\r\n\
    Accept: text/html,application/xhtml+xml\r\nConnection: close\r\n\r\n";

#[test]
fn where_the_setting_cannot_be_kept_the_terminator_answers() {
    const NAME: &str = "net/ipv4/tcp_syncookies";
    require_root!();
    let site = Site::start(any).unwrap();
    let gateway = &site.gateway.topology.gateway;
    let file = format!("/proc/sys/{NAME}");
    gateway.run(|| {
        let here = Some(file.as_str());
        let none = None::<&str>;
        mount(here, file.as_str(), none, MsFlags::MS_BIND, none).unwrap();
        let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        mount(none, file.as_str(), none, flags, none).unwrap();
    });
    // Somebody outside of the agent's view of the files can still change it.
    gateway.net.run(|| set_sysctl(NAME, "1")).unwrap();
    let is_told = || {
        let reasons = site.gateway.agent.condition_reasons().unwrap();
        reasons.iter().any(|reason| reason == "no_syn_cookies")
    };
    poll_until("the condition", patience(Duration::from_secs(60)), is_told).unwrap();
    let before = site.redirects().unwrap();
    for vip in VIPS {
        assert_redirected(&ask(&site, vip, &[REQUEST]).unwrap(), "/a");
    }
    assert_eq!(site.redirects().unwrap(), before);
    assert_eq!(site.sysctl(NAME).unwrap(), "1");
    gateway.run(|| umount(file.as_str()).unwrap());
    let is_kept = || site.sysctl(NAME).unwrap() == "2";
    poll_until("the setting", patience(Duration::from_secs(60)), is_kept).unwrap();
    site.wait_for_cookies().unwrap();
}

/// Cookies count for two minutes, and so long a socket that gave one takes them. After that a client is
/// served all the same, and one that said nothing since is reset.
#[test]
fn quiet_minutes_cost_nobody_but_the_silent_a_connection() {
    require_root!();
    let quiet = scale(Duration::ZERO, Duration::from_secs(130));
    let site = Site::start(any).unwrap();
    let silent = || TcpStream::connect_timeout(&SocketAddr::new(VIP4, 80), PATIENCE);
    let mut silent = site.gateway.topology.client.run(silent).unwrap();
    silent.set_read_timeout(Some(PATIENCE)).unwrap();
    let start = Instant::now();
    poll_until("quiet minutes", quiet + PATIENCE, || {
        start.elapsed() >= quiet
    })
    .unwrap();
    // In two segments, so that the kernel has to take the cookie.
    for vip in VIPS {
        let (first, second) = REQUEST.split_at(9);
        assert_redirected(&ask(&site, vip, &[first, second]).unwrap(), "/a");
    }
    let mut answer = Vec::new();
    let read = silent
        .write_all(REQUEST)
        .and_then(|()| silent.read_to_end(&mut answer));
    if quiet.is_zero() {
        read.unwrap();
        assert_redirected(&String::from_utf8(answer).unwrap().to_lowercase(), "/a");
    } else {
        assert_eq!(
            read.unwrap_err().kind(),
            std::io::ErrorKind::ConnectionReset
        );
    }
}
