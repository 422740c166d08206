//! The whole way of a connection to a port with handlers: client, XDP, socket lookup, the real lbterm,
//! instance.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use lbagent_tests::agent::binary;
use lbagent_tests::ctl;
use lbagent_tests::gateway::Gateway;
use lbagent_tests::poll::poll_until;
use lbagent_tests::require_root;
use lbagent_tests::topology::{BackendHost, Shape, VIP4, VIP6};
use serde_json::json;

/// Where the instances listen.
const PORT: u16 = 8090;
const HOST: &str = "web.lb.internal";
/// Verifying the programs, signing, and starting two programs on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A process that ends with the test.
struct Running(Child);

impl Running {
    fn spawn(command: &mut Command) -> Self {
        let quiet = command.stdout(Stdio::null()).stderr(Stdio::null());
        Self(quiet.spawn().unwrap())
    }

    fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An HTTP server that answers with its name, and with whom the gateway says it speaks for.
fn serve(backend: &BackendHost) -> Running {
    const PROGRAM: &str = r#"
import http.server, socket, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        head = self.headers
        text = f"{sys.argv[1]} for {head['X-Forwarded-For']} by {head['X-Forwarded-Proto']}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
Server(("::", int(sys.argv[2])), Handler).serve_forever()
"#;
    let mut python = backend.ns.command("python3");
    Running::spawn(python.args(["-c", PROGRAM, &backend.name, &PORT.to_string()]))
}

/// lbterm as its unit runs it: another user, nothing that it may.
fn terminator(gateway: &Gateway) -> Running {
    let mut command = gateway.topology.gateway.command("setpriv");
    command
        .args(["--reuid", "nobody", "--regid", "nogroup", "--clear-groups"])
        .args(["--inh-caps=-all", "--bounding-set=-all", "--no-new-privs"])
        .arg(binary("LBTERM_BIN", "lbterm"))
        .arg("run");
    Running::spawn(&mut command)
}

struct Web {
    gateway: Gateway,
    _servers: Vec<Running>,
    authority: tempfile::NamedTempFile,
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
        let servers = backends.iter().map(serve).collect();
        for backend in backends {
            gateway
                .attach(&backend.name, "web", &backend.addresses)
                .unwrap();
        }
        let authority = tempfile::NamedTempFile::new().unwrap();
        let host = &gateway.topology.gateway;
        let signed = || {
            let printed = ctl::run(host, &["terminator", "ca"]).unwrap();
            std::fs::write(authority.path(), &printed.stdout).unwrap();
            printed.code == 0
        };
        poll_until("the development authority", PATIENCE, signed).unwrap();
        Self {
            gateway,
            _servers: servers,
            authority,
        }
    }

    /// What the client's curl prints, and whether it was content.
    fn curl(&self, vip: IpAddr, url: &str, options: &[&str]) -> (bool, String) {
        let host = match vip {
            IpAddr::V4(vip) => vip.to_string(),
            IpAddr::V6(vip) => format!("[{vip}]"),
        };
        let mut curl = self.gateway.topology.client.command("curl");
        curl.args(["--silent", "--show-error", "--max-time", "10", "--cacert"])
            .arg(self.authority.path());
        for (name, port) in [(HOST, 443), (HOST, 80), ("other.lb.internal", 443)] {
            curl.args(["--resolve", &format!("{name}:{port}:{host}")]);
        }
        let output = curl.args(options).arg(url).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        (output.status.success(), text)
    }

    fn wait_until_served(&self) {
        for vip in [VIP4, VIP6] {
            let is_served = || self.curl(vip, &format!("https://{HOST}/"), &["--fail"]).0;
            poll_until(&format!("an answer by {vip}"), PATIENCE, is_served).unwrap();
        }
    }
}

#[test]
fn https_through_the_vip_is_balanced_over_the_instances() {
    require_root!();
    let web = Web::start();
    let first = terminator(&web.gateway);
    web.wait_until_served();
    for (vip, client) in [VIP4, VIP6]
        .into_iter()
        .zip(web.gateway.topology.client_addresses)
    {
        for option in ["--http1.1", "--http2"] {
            let ask = |_| {
                let (is_content, text) = web.curl(vip, &format!("https://{HOST}/"), &[option]);
                assert!(is_content, "{vip} {option}: {text}");
                text
            };
            let answers: BTreeSet<String> = (0..24).map(ask).collect();
            let want = |name: &str| format!("{name} for {client} by https");
            assert_eq!(
                answers,
                BTreeSet::from(["b1", "b2"].map(want)),
                "{vip} {option}"
            );
        }
        let (_, version) = web.curl(
            vip,
            &format!("https://{HOST}/"),
            &[
                "--http2",
                "--output",
                "/dev/null",
                "--write-out",
                "%{http_version}",
            ],
        );
        assert_eq!(version, "2");
        let (_, head) = web.curl(vip, &format!("http://{HOST}/a?b=c"), &["--head"]);
        assert!(head.starts_with("HTTP/1.1 308 "), "{head}");
        let location = format!("location: https://{HOST}/a?b=c\r\n");
        assert!(head.to_lowercase().contains(&location), "{head}");
        let (_, text) = web.curl(vip, "https://other.lb.internal/", &[]);
        assert!(text.contains("There is no service on this URL."), "{text}");
    }
    // Another process takes the same sockets over; what comes meanwhile waits in them.
    first.kill();
    let _second = terminator(&web.gateway);
    let (is_content, text) = web.curl(VIP4, &format!("https://{HOST}/"), &["--fail"]);
    assert!(is_content, "after a crash: {text}");
}
