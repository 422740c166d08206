//! The real daemon on a gateway of namespaces.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Serialize;
use serde_json::Value;

use crate::http::{Request, Response};
use crate::netns::HostNs;
use crate::poll::{poll_for, retry};
use crate::topology::{Topology, VIPS};

/// Where the agent listens by default.
pub const API: &str = "127.0.0.1:7480";
/// Where the harness writes the configuration.
pub const CONFIG_PATH: &str = "/run/lbagent.toml";
/// Where the agent keeps its state.
pub const STATE_DIR: &str = "/var/lib/lbagent";
/// Where the agent pins its objects.
pub const BPFFS_DIR: &str = "/sys/fs/bpf/lbagent";

/// How long a start may take: verifying the programs is most of it, which takes a busy machine many
/// seconds.
pub const START: Duration = Duration::from_secs(60);

/// The agent's configuration file. Everything that a test leaves out is left to the defaults, except
/// the capacities, which are small so that many agents fit on one machine.
#[derive(Clone, Debug, Serialize)]
pub struct Config {
    /// See the agent's documentation.
    pub client_interfaces: Vec<String>,
    /// See the agent's documentation.
    pub backend_interfaces: Vec<String>,
    /// See the agent's documentation.
    pub vips: Vec<IpAddr>,
    /// `l2` or `routed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vip_mode: Option<&'static str>,
    /// `auto`, `native` or `generic`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub xdp_mode: Option<&'static str>,
    /// `pass` or `drop`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unpublished_ports: Option<&'static str>,
    /// Members of `[api]`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub api: BTreeMap<&'static str, toml::Value>,
    /// Members of `[terminator]`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub terminator: BTreeMap<&'static str, toml::Value>,
    /// Members of `[flow]`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub flow: BTreeMap<&'static str, u32>,
    /// Members of `[answers]`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub answers: BTreeMap<&'static str, u32>,
    /// Members of `[redirect]`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub redirect: BTreeMap<&'static str, &'static str>,
    /// Members of `[syn_shield]`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub syn_shield: BTreeMap<&'static str, toml::Value>,
    /// Members of `[limits]`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub limits: BTreeMap<&'static str, u32>,
}

impl Config {
    /// For a topology's interfaces and the usual VIPs.
    pub fn new(topology: &Topology) -> Self {
        Self::between(topology.client_interface(), topology.backend_interfaces())
    }

    /// For an interface towards clients, those towards backends, and the usual VIPs.
    pub fn between(client_interface: &str, backend_interfaces: Vec<String>) -> Self {
        Self {
            client_interfaces: vec![client_interface.into()],
            backend_interfaces,
            vips: VIPS.to_vec(),
            vip_mode: None,
            xdp_mode: None,
            unpublished_ports: None,
            // Tests of the data plane have nobody to keep out.
            api: [("loopback_without_token", true.into())].into(),
            terminator: BTreeMap::new(),
            flow: BTreeMap::new(),
            answers: BTreeMap::new(),
            redirect: BTreeMap::new(),
            syn_shield: BTreeMap::new(),
            limits: [
                ("vips", 64),
                ("slots", 1 << 16),
                ("backends", 64),
                ("returns", 64),
                ("conns", 1 << 14),
                ("nat_flows", 1 << 12),
            ]
            .into(),
        }
    }

    /// As TOML.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("tables come after values")
    }
}

/// A daemon and the host that it runs on. Dropping it kills the daemon; what it left on the host
/// goes with the host.
#[derive(Debug)]
pub struct Agent {
    host: HostNs,
    child: Option<Child>,
    log: File,
    /// BPF object to run instead of the embedded one, a path on the host.
    pub object: Option<PathBuf>,
}

impl Agent {
    /// Writes the configuration and starts the daemon; returns when its API answers.
    pub fn start(host: &HostNs, config: &Config) -> Result<Self> {
        Self::start_with(host, &config.to_toml())
    }

    /// As [`Agent::start`], with a configuration as text.
    pub fn start_with(host: &HostNs, config: &str) -> Result<Self> {
        let mut agent = Self::prepare(host, config)?;
        agent.launch()?;
        Ok(agent)
    }

    /// Writes the configuration and starts nothing.
    pub fn prepare(host: &HostNs, config: &str) -> Result<Self> {
        host.run(|| fs::write(CONFIG_PATH, config))
            .context("writing the configuration")?;
        Ok(Self {
            host: host.clone(),
            child: None,
            log: new_log()?,
            object: None,
        })
    }

    /// Starts the daemon again and waits until its API answers.
    pub fn launch(&mut self) -> Result<()> {
        self.spawn()?;
        let wait = retry("the agent's API", START, || {
            if let Some(status) = self.exited()? {
                return Ok(Err(status));
            }
            let ready = self.get("/v1/x/status")?;
            ensure!(
                ready.status == 200,
                "status {}: {}",
                ready.status,
                ready.body
            );
            Ok(Ok(()))
        });
        match wait {
            Ok(Ok(())) => Ok(()),
            Ok(Err(status)) => bail!("the agent ended with {status}; its log:\n{}", self.log()?),
            Err(error) => Err(error.context(format!("its log:\n{}", self.log()?))),
        }
    }

    /// Starts the daemon and waits for nothing.
    pub fn spawn(&mut self) -> Result<()> {
        let log = self.log.try_clone()?;
        self.spawn_logging_to(log.into())
    }

    /// As [`Agent::spawn`], with its output somewhere else than in [`Agent::log`].
    pub fn spawn_logging_to(&mut self, log: OwnedFd) -> Result<()> {
        let mut command = self.command(&["run", "--config", CONFIG_PATH]);
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        self.child = Some(command.spawn().context("starting lbagent")?);
        Ok(())
    }

    /// `lbagent ARGS…` on the same host.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.host.command(binary("LBAGENT_BIN", "lbagent"));
        command
            .args(arguments)
            .env_remove("RUST_BACKTRACE")
            .envs(self.object.iter().map(|path| ("LBAGENT_BPF_OBJECT", path)))
            .env("LBAGENT_LOG", "info,lbagent=debug");
        command
    }

    /// Runs `lbagent ARGS…` to its end.
    pub fn run(&self, arguments: &[&str]) -> Result<Ended> {
        Ended::of(&mut self.command(arguments))
    }

    /// Process id of the running daemon.
    pub fn pid(&self) -> Result<u32> {
        Ok(self
            .child
            .as_ref()
            .context("the agent is not running")?
            .id())
    }

    /// `kill -9`, and waits for the end.
    pub fn kill(&mut self) -> Result<()> {
        let mut child = self.child.take().context("the agent is not running")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// SIGTERM, and waits for the end.
    pub fn terminate(&mut self) -> Result<ExitStatus> {
        kill(Pid::from_raw(self.pid()? as i32), Signal::SIGTERM)?;
        self.wait_for_end()
    }

    /// Waits until the daemon ends by itself.
    pub fn wait_for_end(&mut self) -> Result<ExitStatus> {
        poll_for("the agent to end", START, || self.exited().transpose())?
    }

    fn exited(&mut self) -> Result<Option<ExitStatus>> {
        let Some(child) = &mut self.child else {
            bail!("the agent is not running")
        };
        let status = child.try_wait()?;
        if status.is_some() {
            self.child = None;
        }
        Ok(status)
    }

    /// Everything that the daemon wrote so far, over all its starts.
    pub fn log(&self) -> Result<String> {
        // Reading must not move the position: the daemon shares it.
        let mut text = vec![0; self.log.metadata()?.len() as usize];
        self.log.read_exact_at(&mut text, 0)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// One request to the API.
    pub fn request(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Response> {
        let body = body.map(Value::to_string);
        let request = Request {
            method,
            path,
            token: None,
            body,
        };
        self.send(&request)
    }

    /// One request to the API, as it is.
    pub fn send(&self, request: &Request<'_>) -> Result<Response> {
        let api: SocketAddr = API.parse().expect("a constant");
        self.host.run(|| request.send(api))
    }

    /// Runs `work` where the daemon runs. Sockets that it returns stay there.
    pub fn on_host<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.host.run(work)
    }

    /// `GET`.
    pub fn get(&self, path: &str) -> Result<Response> {
        self.request("GET", path, None)
    }

    /// A request that must succeed; returns the answer's `data`.
    pub fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        let response = self.request(method, path, body)?;
        let json = response.json()?;
        let done = response.status == 200 && json["status"] == "success";
        ensure!(
            done,
            "{method} {path} {}: {} {json}",
            body.unwrap_or(&Value::Null),
            response.status
        );
        Ok(json["data"].clone())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if self.child.is_some()
            && let Err(error) = self.kill()
        {
            eprintln!("killing lbagent: {error:#}");
        }
        if std::thread::panicking() {
            eprintln!(
                "--- log of lbagent ---\n{}---",
                self.log().unwrap_or_default()
            );
        }
    }
}

/// What a command left behind.
#[derive(Clone, Debug)]
pub struct Ended {
    /// Exit code; 128 + n after signal n.
    pub code: i32,
    /// What it printed.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
}

impl Ended {
    /// Runs a command to its end, without input.
    pub fn of(command: &mut Command) -> Result<Self> {
        let output = command
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("running {}", command.get_program().display()))?;
        let signal = || output.status.signal().map_or(-1, |signal| 128 + signal);
        Ok(Self {
            code: output.status.code().unwrap_or_else(signal),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }
}

/// Where a binary is: named by the environment, or built beside the running one.
pub fn binary(variable: &str, name: &str) -> PathBuf {
    if let Some(path) = std::env::var_os(variable) {
        return path.into();
    }
    let own = std::env::current_exe().expect("a running process has a path");
    let beside = |directory: &Path| directory.join(name);
    // Tests run in target/PROFILE/deps, binaries in target/PROFILE.
    own.ancestors()
        .skip(1)
        .take(2)
        .map(beside)
        .find(|path| path.exists())
        .unwrap_or(name.into())
}

/// A file that is gone when it is closed.
fn new_log() -> Result<File> {
    let log = File::options()
        .read(true)
        .append(true)
        .custom_flags(libc::O_TMPFILE)
        .open(std::env::temp_dir());
    // Not every file system has files without a name.
    log.or_else(|_| tempfile::tempfile())
        .context("making a log file")
}
