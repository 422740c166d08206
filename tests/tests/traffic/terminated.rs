//! The whole way of a connection to a port with handlers: client, XDP, socket lookup, the real lbterm,
//! instance.

use std::collections::BTreeSet;
use std::net::IpAddr;

use lbagent_tests::gateway::Gateway;
use lbagent_tests::require_root;
use lbagent_tests::site::Lbterm;
use lbagent_tests::topology::{Shape, VIP4, VIP6};
use lbagent_tests::web::{Browser, Running, serve};
use serde_json::json;

/// Where the instances listen.
const PORT: u16 = 8090;
const URL: &str = "https://web.lb.internal/";

struct Web {
    gateway: Gateway,
    _servers: Vec<Running>,
    browser: Browser,
}

impl Web {
    /// Two instances behind HTTPS, and a redirect to it.
    fn start() -> Self {
        let gateway = Gateway::start_with(Shape::Routed, 2, |config| {
            config.terminator.insert("development_ca", true.into());
            config.terminator.insert("user", "nobody".into());
        });
        let gateway = gateway.unwrap();
        let group = json!({ "name": "web", "domains": [{ "name": "web" }], "services": [
            { "port": 443, "destination_port": PORT, "handlers": ["tls", "http"] },
            { "port": 80, "destination_port": 443, "handlers": ["http", "redirect"] },
        ]});
        gateway
            .agent
            .call("POST", "/v1/services", Some(&group))
            .unwrap();
        let backends = &gateway.topology.backends;
        let servers = backends.iter().map(|backend| serve(backend, PORT).unwrap());
        let servers = servers.collect();
        for backend in backends {
            gateway
                .attach(&backend.name, "web", &backend.addresses)
                .unwrap();
        }
        let topology = &gateway.topology;
        let browser = Browser::open(&topology.client, &topology.gateway).unwrap();
        Self {
            gateway,
            _servers: servers,
            browser,
        }
    }

    #[track_caller]
    fn get(&self, vip: IpAddr, url: &str, options: &[&str]) -> String {
        let (is_content, text) = self.browser.get(vip, url, options).unwrap();
        assert!(is_content, "{url} by {vip}: {text}");
        text
    }
}

#[test]
fn https_through_the_vip_is_balanced_over_the_instances() {
    require_root!();
    let web = Web::start();
    let topology = &web.gateway.topology;
    let mut lbterm = Lbterm::start(&topology.gateway).unwrap();
    for (vip, client) in [VIP4, VIP6].into_iter().zip(topology.client_addresses) {
        web.browser.wait_for(vip, URL).unwrap();
        for option in ["--http1.1", "--http2"] {
            let answers = (0..24).map(|_| web.get(vip, URL, &[option]));
            let answers: BTreeSet<String> = answers.collect();
            let want = |name: &str| format!("{name} for {client} by https");
            assert_eq!(answers, ["b1", "b2"].map(want).into(), "{vip} {option}");
        }
        let version = ["--output", "/dev/null", "--write-out", "%{http_version}"];
        assert_eq!(web.get(vip, URL, &version), "2", "by ALPN");
        let head = web.get(vip, "http://web.lb.internal/a?b=c", &["--head"]);
        assert!(head.starts_with("HTTP/1.1 308 "), "{head}");
        let location = "location: https://web.lb.internal/a?b=c\r\n";
        assert!(head.to_lowercase().contains(location), "{head}");
        let text = web.get(vip, "https://other.lb.internal/", &[]);
        assert!(text.contains("There is no service on this URL."), "{text}");
    }
    lbterm.upgrade().unwrap();
    web.get(VIP4, URL, &["--fail"]);
    lbterm.wait_for_formers(1).unwrap();
    web.get(VIP4, URL, &["--fail"]);
    // Another process gets the same sockets; what comes meanwhile waits in them.
    lbterm.kill().unwrap();
    lbterm.start_again().unwrap();
    web.get(VIP4, URL, &["--fail"]);
}
