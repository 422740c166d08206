//! What the policy says of ports with handlers, and the configuration of clients and proxies, through the
//! real agent and the real lbterm.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use lbagent_tests::ctl;
use lbagent_tests::gateway::Gateway;
use lbagent_tests::poll::poll_until;
use lbagent_tests::require_root;
use lbagent_tests::topology::{Shape, VIP4};
use lbagent_tests::web::{Browser, PATIENCE, Running, serve_any, terminator, terminator_as};
use serde_json::{Value, json};

/// Where the instance listens.
const PORT: u16 = 8090;
const HTTPS: &str = "https://web.lb.internal/";
const HTTP: &str = "http://web.lb.internal/";
const STREAM: &str = "https://web.lb.internal:8443/";

struct Web {
    gateway: Gateway,
    browser: Browser,
    _server: Running,
    _terminator: Running,
}

impl Web {
    /// One instance behind HTTPS, HTTP and TLS alone.
    fn start(settings: &[(&'static str, toml::Value)]) -> Self {
        let gateway = Gateway::start_with(Shape::Routed, 1, |config| {
            config.terminator.insert("development_ca", true.into());
            config.terminator.insert("user", "nobody".into());
            config.terminator.extend(settings.iter().cloned());
        });
        let gateway = gateway.unwrap();
        let group = json!({ "name": "web", "domains": [{ "name": "web" }], "services": [
            { "port": 443, "destination_port": PORT, "handlers": ["tls", "http"] },
            { "port": 80, "destination_port": PORT, "handlers": ["http"] },
            { "port": 8443, "destination_port": PORT, "handlers": ["tls"] },
        ]});
        let agent = &gateway.agent;
        agent.call("POST", "/v1/services", Some(&group)).unwrap();
        let backend = &gateway.topology.backends[0];
        let server = serve_any(backend, PORT).unwrap();
        gateway
            .attach(&backend.name, "web", &backend.addresses)
            .unwrap();
        let topology = &gateway.topology;
        let terminator = terminator(&topology.gateway).unwrap();
        let browser = Browser::open(&topology.client, &topology.gateway).unwrap();
        for url in [HTTPS, HTTP, STREAM] {
            browser.wait_for(VIP4, url).unwrap();
        }
        Self {
            gateway,
            browser,
            _server: server,
            _terminator: terminator,
        }
    }

    #[track_caller]
    fn get(&self, url: &str, options: &[&str]) -> String {
        let (is_content, text) = self.browser.get(VIP4, url, options).unwrap();
        assert!(is_content, "{url}: {text}");
        text
    }

    #[track_caller]
    fn wait_for(&self, what: &str, url: &str, options: &[&str], expected: &str) {
        let mut last = String::new();
        let holds = || {
            last = self.browser.get(VIP4, url, options).unwrap().1;
            last == expected
        };
        let waited = poll_until(what, PATIENCE, holds);
        assert!(waited.is_ok(), "{what}: {last:?} for {expected:?}");
    }

    fn lbctl(&self, line: &str) -> String {
        let words: Vec<&str> = line.split(' ').collect();
        ctl::succeed(&self.gateway.topology.gateway, &words).unwrap()
    }

    /// What the terminator has told of the group.
    fn counters(&self) -> Value {
        let agent = &self.gateway.agent;
        let told = agent.call("GET", "/v1/x/terminators", None).unwrap();
        told["terminators"]["all"][0]["report"]["groups"][0]["counters"].clone()
    }

    /// A metric of the gateway.
    #[track_caller]
    fn metric(&self, name: &str) -> f64 {
        let mut curl = self.gateway.topology.gateway.command("curl");
        curl.args(["--silent", "--unix-socket", lbagent_api::DEFAULT_SOCKET])
            .arg(format!("http://lbagent{}", lbagent_api::paths::METRICS));
        let text = String::from_utf8(curl.output().unwrap().stdout).unwrap();
        let start = format!("lbagent_{name} ");
        let value = text.lines().find_map(|line| line.strip_prefix(&start));
        let value = value.unwrap_or_else(|| panic!("no {name}\n{text}"));
        value.parse().unwrap()
    }

    /// Holds a request in flight until it is dropped. Where others take the last place that a limit
    /// leaves, it is refused, and asks again.
    fn hold(&self) -> Held {
        let options = [&PATIENT[..], &["--retry", "1000"]].concat();
        let mut curl = self.browser.command(VIP4, &format!("{HTTP}hold"), &options);
        let curl = curl.stdout(Stdio::null()).stderr(Stdio::null());
        Held(curl.spawn().unwrap())
    }
}

struct Held(std::process::Child);

impl Drop for Held {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Longer than any test.
const PATIENT: [&str; 2] = ["--max-time", "600"];
const STATUS: [&str; 4] = ["--output", "/dev/null", "--write-out", "%{http_code}"];

#[test]
fn each_port_is_served_as_the_policy_says() {
    require_root!();
    let web = Web::start(&[]);
    let client = web.gateway.topology.client_addresses[0];
    let http1 = format!("http1 for {client}");
    assert_eq!(web.get(HTTPS, &[]), http1);
    assert_eq!(web.get(STREAM, &[]), "http1 for None");

    web.lbctl("service policy web --port 443 --upstream h2c");
    web.wait_for("h2c to the instance", HTTPS, &[], "h2c");
    web.lbctl("service policy web --port 8443 --send-proxy true");
    let told = format!("proxy {client}");
    web.wait_for("the PROXY protocol to the instance", STREAM, &[], &told);
    assert_eq!(web.get(HTTP, &[]), http1, "another port of the group");
    web.lbctl("service policy web --port 8443 --idle-timeout 1s --connect-timeout 900ms");
    let silent = format!("{STREAM}hold");
    let is_ended = || {
        let _ = web.browser.get(VIP4, &silent, &[]).unwrap();
        web.counters()["idle_timeout"].as_u64() > Some(0)
    };
    poll_until("an end for silence", PATIENCE, is_ended).unwrap();
    web.lbctl("service policy web --port 80 --response-timeout 300ms");
    let hold = format!("{HTTP}hold");
    web.wait_for("a late answer", &hold, &STATUS, "504");
    let shown = web.lbctl("service get web");
    let stream = "8443: send proxy true, connect timeout 900ms, idle timeout 1s";
    let row = format!("443: upstream h2c; {stream}");
    let row = format!("80: response timeout 300ms; {row}");
    assert!(shown.contains(&row), "{shown}");

    web.lbctl("service policy web --port 80 --port-defaults --requests-per-source 1");
    let statuses = || {
        let mut found = [(); 4].map(|()| web.get(HTTP, &STATUS));
        found.sort();
        found.concat()
    };
    let is_limited = || statuses().ends_with("429");
    poll_until("too many requests", PATIENCE, is_limited).unwrap();
    assert_eq!(web.get(HTTPS, &[]), "h2c", "another port of the group");

    let path = "/v1/x/service-groups/web/policy";
    let agent = &web.gateway.agent;
    let policy = json!({ "policy": { "terminated": [{ "port": 8443, "upstream": "h2c" }] } });
    let refused = agent.call("PUT", path, Some(&policy)).unwrap_err();
    let words = "cannot have 'upstream' for port 8443, which has the handlers tls";
    assert!(refused.to_string().contains(words), "{refused:#}");
}

#[test]
fn limits_of_instances_are_reported_and_hold() {
    require_root!();
    let web = Web::start(&[]);
    web.lbctl("service edit web --set soft_limit=1 --set hard_limit=2");
    let count = |name: &str| web.counters()[name].as_u64().unwrap_or(0);
    let _first = web.hold();
    // Beside the first one every other is above the soft limit, as soon as both are there.
    let is_above = || {
        web.get(HTTP, &STATUS);
        count("over_soft_limit") > 0
    };
    poll_until("the soft limit to hold", PATIENCE, is_above).unwrap();
    let _second = web.hold();
    let head = ["--head", "--output", "-", "--http1.1"];
    let is_full = || {
        let text = web.get(HTTP, &head).to_lowercase();
        text.starts_with("http/1.1 503 ") && text.contains("\r\nretry-after: 1\r\n")
    };
    poll_until("503 with Retry-After", PATIENCE, is_full).unwrap();
    assert_eq!(
        web.get(HTTPS, &STATUS),
        "503",
        "the limit is the instance's"
    );
    let is_told = || count("over_hard_limit") > 0;
    poll_until("the hard limit by the API", PATIENCE, is_told).unwrap();

    let group = "account=\"default\",group=\"web\",terminator=\"1\"";
    let over = format!("group_upstream_errors_total{{{group},reason=\"over_hard_limit\"}}");
    for name in [
        &format!("group_over_soft_limit_total{{{group}}}"),
        &over,
        &format!("group_in_flight{{{group}}}"),
        "terminator_handshakes_total{terminator=\"1\",session=\"new\"}",
        "terminators{state=\"active\"}",
    ] {
        assert!(web.metric(name) > 0.0, "{name}");
    }
    let end = web.metric(
        "certificate_not_after_timestamp_seconds{account=\"default\",certificate=\"lbagent-development\"}",
    );
    assert!(end > 1.7e9, "{end}");
}

#[test]
fn trusted_proxies_tell_clients() {
    require_root!();
    let proxies = ["198.51.100.0/24", "2001:db8:1::/64"].map(toml::Value::from);
    let web = Web::start(&[("trusted_proxies", proxies.to_vec().into())]);
    let client = web.gateway.topology.client_addresses[0];
    let told = ["--header", "X-Forwarded-For: 203.0.113.9"];
    let text = web.get(HTTP, &told);
    assert_eq!(text, format!("http1 for 203.0.113.9, {client}"));
}

#[test]
fn another_user_is_told_which_setting_names_it() {
    require_root!();
    let gateway = Gateway::start_with(Shape::Routed, 1, |config| {
        config.terminator.insert("user", "nobody".into());
    })
    .unwrap();
    // Should it find nothing to complain about, it ends.
    let mut command = gateway.topology.gateway.command("timeout");
    command
        .args(["60", "setpriv"])
        .args(terminator_as("daemon"));
    let mut lbterm = command
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let log = BufReader::new(lbterm.stderr.take().unwrap());
    let mut lines = log.lines().map_while(Result::ok);
    let told = lines.find(|line| line.contains("no agent"));
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(lbterm.id() as i32),
        nix::sys::signal::Signal::SIGTERM,
    )
    .unwrap();
    lbterm.wait().unwrap();
    let told = told.expect("a line about the agent");
    assert!(told.contains("as terminator.user"), "{told}");
}
