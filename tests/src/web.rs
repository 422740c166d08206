//! What stands at both ends of a terminator: instances that speak HTTP, a client that speaks HTTPS, and
//! lbterm between them.

use std::ffi::OsString;
use std::io::Write;
use std::net::IpAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use tempfile::NamedTempFile;

use crate::agent::binary;
use crate::ctl;
use crate::kernel;
use crate::netns::{HostNs, NetNs};
use crate::poll::poll_until;
use crate::topology::BackendHost;

/// Verifying the programs, signing, and starting two programs on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A process that ends when this is dropped.
#[derive(Debug)]
pub struct Running(Child);

impl Running {
    /// Starts it; nobody sees what it prints.
    pub fn spawn(command: &mut Command) -> Result<Self> {
        let quiet = command.stdout(Stdio::null()).stderr(Stdio::null());
        let child = quiet.spawn().with_context(|| format!("{command:?}"))?;
        Ok(Self(child))
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.0.try_wait().is_ok_and(|ended| ended.is_some())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An HTTP server, listening, that answers `NAME for CLIENT by https`, as the gateway tells it, and its own path to one
/// below `/echo/`.
pub fn serve(backend: &BackendHost, port: u16) -> Result<Running> {
    const PROGRAM: &str = r#"
import http.server, socket, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        head = self.headers
        text = self.path.encode() if self.path.startswith("/echo/") else f"{sys.argv[1]} for {head['X-Forwarded-For']} by {head['X-Forwarded-Proto']}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
Server(("::", int(sys.argv[2])), Handler).serve_forever()
"#;
    let mut python = backend.ns.command("python3");
    let server = Running::spawn(python.args(["-c", PROGRAM, &backend.name, &port.to_string()]))?;
    wait_until_listening(backend, port)?;
    Ok(server)
}

/// A terminator leaves an instance alone for a while that did not listen at first.
fn wait_until_listening(backend: &BackendHost, port: u16) -> Result<()> {
    let what = format!("{} to listen on port {port}", backend.name);
    poll_until(&what, PATIENCE, || {
        kernel::listeners(&backend.ns).contains(&port)
    })
}

/// A server, listening, that answers in the protocol that it is spoken to: `h2c`, `proxy CLIENT` or `http1 for CLIENT`
/// (`X-Forwarded-For`). It never answers a request for `/hold`.
pub fn serve_any(backend: &BackendHost, port: u16) -> Result<Running> {
    const PROGRAM: &str = r#"
import ipaddress, socket, socketserver, sys
def frame(kind, flags, stream, payload=b""):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload
class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        start = self.rfile.peek(16)
        if start.startswith(b"PRI "):
            self.http2()
        elif start.startswith(b"\r\n\r\n\0\r\nQUIT\n"):
            head = self.rfile.read(16)
            rest = self.rfile.read(int.from_bytes(head[14:], "big"))
            size = 4 if head[13] >> 4 == 1 else 16
            self.http1(lambda fields: f"proxy {ipaddress.ip_address(rest[:size])}")
        else:
            self.http1(lambda fields: f"http1 for {fields.get('x-forwarded-for')}")
    def http1(self, text):
        while line := self.rfile.readline():
            fields = {}
            while (field := self.rfile.readline().decode().strip()):
                name, _, value = field.partition(":")
                fields[name.lower()] = value.strip()
            if b" /hold" in line:
                self.rfile.read()
                return
            body = text(fields)
            self.wfile.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
    def http2(self):
        self.rfile.read(24)
        self.wfile.write(frame(4, 0, 0))
        while head := self.rfile.read(9):
            payload = self.rfile.read(int.from_bytes(head[:3], "big"))
            kind, flags, stream = head[3], head[4], int.from_bytes(head[5:], "big")
            if kind == 4 and not flags & 1:
                self.wfile.write(frame(4, 1, 0))
            elif kind == 6 and not flags & 1:
                self.wfile.write(frame(6, 1, 0, payload))
            elif kind == 1:
                # `:status: 200` of the static table, and the whole body.
                self.wfile.write(frame(1, 4, stream, b"\x88") + frame(0, 1, stream, b"h2c"))
class Server(socketserver.ThreadingTCPServer):
    address_family = socket.AF_INET6
    allow_reuse_address = True
    daemon_threads = True
Server(("::", int(sys.argv[1])), Handler).serve_forever()
"#;
    let mut python = backend.ns.command("python3");
    let server = Running::spawn(python.args(["-c", PROGRAM, &port.to_string()]))?;
    wait_until_listening(backend, port)?;
    Ok(server)
}

/// lbterm as its unit runs it: another user, who may do nothing. The agent's `terminator.user` has to
/// be `nobody`.
pub fn terminator(gateway: &HostNs) -> Result<Running> {
    let mut command = gateway.command("setpriv");
    Running::spawn(command.args(terminator_as("nobody")))
}

/// What `setpriv` needs to run lbterm as a user who may do nothing.
pub fn terminator_as(user: &str) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = ["--reuid", user, "--regid", "nogroup", "--clear-groups"]
        .iter()
        .chain(&["--inh-caps=-all", "--bounding-set=-all", "--no-new-privs"])
        .map(Into::into)
        .collect();
    arguments.push(binary("LBTERM_BIN", "lbterm").into());
    arguments.push("run".into());
    arguments
}

/// curl on the client, which trusts the gateway's development authority.
#[derive(Debug)]
pub struct Browser {
    client: NetNs,
    authority: NamedTempFile,
}

impl Browser {
    /// The file with the authority's certificate.
    pub fn authority_file(&self) -> &std::path::Path {
        self.authority.path()
    }

    /// Waits until the gateway has an authority.
    pub fn open(client: &NetNs, gateway: &HostNs) -> Result<Self> {
        let mut certificate = None;
        poll_until("the development authority", PATIENCE, || {
            let printed = ctl::succeed(gateway, &["terminator", "ca"]);
            certificate = printed.ok();
            certificate.is_some()
        })?;
        Self::trusting(client, &certificate.unwrap_or_default())
    }

    /// One that trusts a certificate in PEM instead.
    pub fn trusting(client: &NetNs, certificate: &str) -> Result<Self> {
        let mut authority = NamedTempFile::new()?;
        authority.write_all(certificate.as_bytes())?;
        Ok(Self {
            client: client.clone(),
            authority,
        })
    }

    /// The authority's file.
    pub fn authority_path(&self) -> &Path {
        self.authority.path()
    }

    /// The authority in PEM.
    pub fn authority(&self) -> Result<String> {
        Ok(std::fs::read_to_string(self.authority_path())?)
    }

    /// What curl prints for a URL whose host name is at a VIP, and whether it was content.
    pub fn get(&self, vip: IpAddr, url: &str, options: &[&str]) -> Result<(bool, String)> {
        let mut curl = self.command(vip, url, options);
        let output = curl.output().with_context(|| format!("{curl:?}"))?;
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        Ok((output.status.success(), text))
    }

    /// curl, not yet run.
    pub fn command(&self, vip: IpAddr, url: &str, options: &[&str]) -> Command {
        let host = match vip {
            IpAddr::V4(vip) => vip.to_string(),
            IpAddr::V6(vip) => format!("[{vip}]"),
        };
        let mut curl = self.client.command("curl");
        curl.args(["--silent", "--show-error", "--max-time", "10", "--cacert"])
            .arg(self.authority.path())
            // Whatever the name and the port: the VIP.
            .args(["--connect-to", &format!("::{host}:")])
            .args(options)
            .arg(url);
        curl
    }

    /// Waits until a URL is answered.
    pub fn wait_for(&self, vip: IpAddr, url: &str) -> Result<()> {
        let is_served = || {
            self.get(vip, url, &["--fail"])
                .is_ok_and(|(is_content, _)| is_content)
        };
        poll_until(&format!("an answer to {url} by {vip}"), PATIENCE, is_served)
    }
}
