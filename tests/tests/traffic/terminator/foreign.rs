//! HAProxy in lbterm's place.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};

use lbagent_tests::ctl;
use lbagent_tests::kernel::listeners;
use lbagent_tests::poll::{SOON, poll_until};
use lbagent_tests::require_root;
use lbagent_tests::site::{NAME, ORIGIN_PORT, Site};
use lbagent_tests::topology::{VIP4, VIP6};
use lbagent_tests::web::{Browser, Running};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use tempfile::NamedTempFile;

const PORT: &str = "8099";
const URL: &str = "https://web.lb.internal/";

/// HAProxy with a certificate of its own.
struct Haproxy {
    process: Running,
    certificate: String,
    _files: [NamedTempFile; 2],
}

impl Haproxy {
    fn start(site: &Site) -> Self {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed([NAME.to_owned()]).unwrap();
        let mut pem = NamedTempFile::with_suffix(".pem").unwrap();
        let certificate = cert.pem();
        write!(pem, "{certificate}{}", signing_key.serialize_pem()).unwrap();
        let mut config = format!(
            "defaults\n mode http\n timeout connect 5s\n timeout client 30s\n timeout server 30s\n \
             option forwardfor\n\
             frontend web\n bind 0.0.0.0:{PORT} ssl crt {pem} alpn h2,http/1.1\n \
             bind :::{PORT} v6only ssl crt {pem} alpn h2,http/1.1\n \
             http-request set-header X-Forwarded-Proto https\n default_backend web\n\
             backend web\n balance roundrobin\n",
            pem = pem.path().display()
        );
        for backend in &site.gateway.topology.backends {
            let address = SocketAddr::new(backend.addresses[0], ORIGIN_PORT);
            writeln!(config, " server {} {address}", backend.name).unwrap();
        }
        let mut file = NamedTempFile::with_suffix(".cfg").unwrap();
        file.write_all(config.as_bytes()).unwrap();
        let mut haproxy = site.gateway.topology.gateway.command("haproxy");
        haproxy.arg("-db").arg("-f").arg(file.path());
        Self {
            process: Running::spawn(&mut haproxy).unwrap(),
            certificate,
            _files: [pem, file],
        }
    }
}

/// Both instances answer both versions of HTTP, and know the client.
#[track_caller]
fn check_answers(browser: &Browser, vip: IpAddr, client: IpAddr) {
    for option in ["--http1.1", "--http2"] {
        let want = |name: &str| format!("{name} for {client} by https");
        let wanted = BTreeSet::from(["b1", "b2"].map(want));
        let mut answers = BTreeSet::new();
        // Of instances with equally little to do, chance decides.
        let what = format!("both to answer by {vip} {option}");
        let both_answer = || {
            let (is_content, text) = browser.get(vip, URL, &[option]).unwrap();
            assert!(is_content, "{vip} {option}: {text}");
            assert!(wanted.contains(&text), "{vip} {option}: {text}");
            answers.insert(text);
            answers == wanted
        };
        poll_until(&what, SOON, both_answer).unwrap();
    }
}

#[test]
fn haproxy_serves_the_same_ports_and_hands_them_back() {
    require_root!();
    let site = Site::start().unwrap();
    let topology = &site.gateway.topology;
    let (host, clients) = (&topology.gateway, topology.client_addresses);
    site.wait_for(VIP4).unwrap();

    let mut haproxy = Haproxy::start(&site);
    // It opens one socket after the other; those that are there are registered.
    let port: u16 = PORT.parse().unwrap();
    let ours = || listeners(&host.net).into_iter().filter(|it| *it == port);
    let listens = || ours().count() == 2;
    poll_until("HAProxy to listen for both families", SOON, listens).unwrap();
    let pid = haproxy.process.id().to_string();
    let register = ["terminator", "register", "--port", PORT, "--pid", &pid];
    let registered = || ctl::run(host, &register).unwrap().code == 0;
    poll_until("HAProxy to listen", SOON, registered).unwrap();
    let browser = Browser::trusting(&topology.client, &haproxy.certificate).unwrap();
    for (vip, client) in [VIP4, VIP6].into_iter().zip(clients) {
        browser.wait_for(vip, URL).unwrap();
        check_answers(&browser, vip, client);
        // Nobody else answers there: what HAProxy shows is not the agent's.
        let (is_content, text) = site.browser.get(vip, URL, &[]).unwrap();
        assert!(!is_content, "{vip}: {text}");
    }

    // lbterm stood by.
    ctl::succeed(host, &["terminator", "drain", "2"]).unwrap();
    for (vip, client) in [VIP4, VIP6].into_iter().zip(clients) {
        site.wait_for(vip).unwrap();
        check_answers(&site.browser, vip, client);
    }
    assert!(!haproxy.process.has_ended(), "it was asked for nothing");
}
