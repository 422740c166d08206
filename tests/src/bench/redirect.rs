//! What a redirect to HTTPS costs the gateway, answered in XDP, by lbterm, nginx and HAProxy.
//!
//! Each client opens a connection, asks once, and reads to its end. What counts for XDP is the time that
//! `lb_ingress` ran, by the kernel's own account, for every packet of the connections; for the others, the
//! CPU time of their processes, so without what the kernel does in interrupts for them.

mod flood;
mod names;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use aya::programs::ProgramInfo;
use aya::sys::{Stats, enable_stats};

use super::control::{Figure, Options, report};
use super::programs::{Program, SBIN};
use super::report::median;
use crate::agent::BPFFS_DIR;
use crate::poll::{SOON, retry};
use crate::redirect_site::Site;
use crate::topology::{VIP4, VIP6};

const REQUEST: &[u8] = b"GET /a/path?with=a&query HTTP/1.1\r\nHost: web.lb.internal\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n";
/// The same in two segments: lbterm's.
const SPLIT: usize = 40;
/// Threads that ask.
const CLIENTS: usize = 2;
/// Of what the better of the two others needs, XDP may need so much.
const GOAL: f64 = 0.33;

const NGINX: &str = "daemon off; master_process off; pid nginx.pid; events { worker_connections 4096; }
http { access_log off; client_body_temp_path bodies; proxy_temp_path answers; fastcgi_temp_path fastcgi;
uwsgi_temp_path uwsgi; scgi_temp_path scgi; server { listen 8081; keepalive_timeout 0; return 308 https://$host$request_uri; } }
";
const HAPROXY: &str = "global
  nbthread 1
  maxconn 4096
defaults
  mode http
  timeout connect 5s
  timeout client 5s
  timeout server 5s
frontend f
  bind :8082
  option httpclose
  http-request redirect scheme https code 308
";

/// Who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Xdp,
    Lbterm,
    Nginx,
    Haproxy,
}

impl Way {
    const ALL: [Self; 4] = [Self::Xdp, Self::Lbterm, Self::Nginx, Self::Haproxy];

    const fn name(self) -> &'static str {
        match self {
            Self::Xdp => "XDP",
            Self::Lbterm => "lbterm, after XDP passed it up",
            Self::Nginx => "nginx return 308",
            Self::Haproxy => "HAProxy http-request redirect",
        }
    }

    const fn port(self) -> u16 {
        match self {
            Self::Xdp | Self::Lbterm => 80,
            Self::Nginx => 8081,
            Self::Haproxy => 8082,
        }
    }
}

/// Measures, prints, and tells whether every goal is met, if that was asked.
pub fn run(options: &Options) -> Result<bool> {
    let _counting = enable_stats(Stats::RunTime).context("the kernel's account of programs")?;
    let stage = Stage::build()?;
    let (rounds, time) = if options.quick { (2, 1) } else { (7, 3) };
    let mut costs: [Vec<f64>; 4] = Default::default();
    let mut rates: [Vec<f64>; 4] = Default::default();
    for round in 1..=rounds {
        for (index, way) in Way::ALL.into_iter().enumerate() {
            let (rate, cost) = stage.measure(way, Duration::from_secs(time))?;
            rates[index].push(rate);
            costs[index].push(cost);
        }
        eprintln!("round {round} of {rounds}");
    }
    let mut figures = Vec::new();
    let middle = |values: &mut Vec<f64>| median(values).context("no rounds");
    let mut by_way = Vec::new();
    for (index, way) in Way::ALL.into_iter().enumerate() {
        let (rate, cost) = (middle(&mut rates[index])?, middle(&mut costs[index])?);
        let what = |what: &str| format!("{}: {what}", way.name());
        figures.push(Figure::new(what("redirects"), rate, "/sec", None));
        figures.push(Figure::new(what("CPU a redirect"), cost * 1e3, "ns", None));
        by_way.push(cost);
    }
    let better = by_way[2].min(by_way[3]);
    let ratio = by_way[0] / better;
    let what = "XDP's CPU to that of the better of the two";
    figures.push(Figure::new(what, ratio, "×", Some(GOAL)));
    drop(stage);
    eprintln!("names");
    figures.extend(names::measure(options.quick)?);
    eprintln!("floods of SYNs");
    figures.extend(flood::measure(options.quick)?);
    report(&figures, options)
}

struct Stage {
    site: Site,
    nginx: Program,
    haproxy: Program,
    _directory: tempfile::TempDir,
}

impl Stage {
    fn build() -> Result<Self> {
        let site = Site::start(|_| {})?;
        let directory = tempfile::tempdir()?;
        let host = &site.gateway.topology.gateway;
        let start = |program: &str, file: &str, text: &str, options: &[&str]| -> Result<Program> {
            let path = directory.path().join(file);
            fs::write(&path, text)?;
            let mut command: Command = host.command(format!("{SBIN}/{program}"));
            command.args(options).arg(&path);
            Program::start(&mut command)
        };
        let prefix = directory.path().display().to_string();
        let nginx = start(
            "nginx",
            "nginx.conf",
            NGINX,
            &["-p", &prefix, "-e", "stderr", "-c"],
        )?;
        let haproxy = start("haproxy", "haproxy.cfg", HAPROXY, &["-db", "-q", "-f"])?;
        let stage = Self {
            site,
            nginx,
            haproxy,
            _directory: directory,
        };
        for way in Way::ALL {
            retry(way.name(), SOON, || stage.check(way))?;
        }
        Ok(stage)
    }

    /// One exchange, looked at.
    fn check(&self, way: Way) -> Result<()> {
        let before = self.site.redirects()?;
        let answer = self.client(|| exchange(way))?;
        let head = String::from_utf8_lossy(&answer).to_lowercase();
        let location = "location: https://web.lb.internal/a/path?with=a&query\r\n";
        ensure!(head.contains(" 308 ") && head.contains(location), "{head}");
        let at_nic = self.site.redirects()? - before;
        ensure!(at_nic == u64::from(way == Way::Xdp), "{way:?}: {at_nic}");
        Ok(())
    }

    fn client<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.site.gateway.topology.client.run(work)
    }

    /// Redirects a second, and microseconds of CPU for each.
    fn measure(&self, way: Way, time: Duration) -> Result<(f64, f64)> {
        let (before, redirects) = (self.spent(way)?, self.site.redirects()?);
        let begun = Instant::now();
        let ask = || -> Result<u64> {
            let mut count = 0;
            while begun.elapsed() < time {
                exchange(way)?;
                count += 1;
            }
            Ok(count)
        };
        let asked: u64 = self.client(|| {
            std::thread::scope(|scope| {
                let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(ask)).collect();
                let counts = clients
                    .into_iter()
                    .map(|client| client.join().expect("a client"));
                counts.sum::<Result<u64>>()
            })
        })?;
        let rate = asked as f64 / begun.elapsed().as_secs_f64();
        let spent = self.spent(way)? - before;
        let at_nic = self.site.redirects()? - redirects;
        ensure!(
            way != Way::Xdp || at_nic >= asked,
            "of {asked} redirects {at_nic} were answered in XDP"
        );
        Ok((rate, spent.as_secs_f64() * 1e6 / asked as f64))
    }

    /// CPU time of whoever answers, so far.
    fn spent(&self, way: Way) -> Result<Duration> {
        match way {
            Way::Xdp => self.site.gateway.topology.gateway.run(|| {
                let program = Path::new(BPFFS_DIR).join("active/lb_ingress");
                let info = ProgramInfo::from_pin(&program)
                    .with_context(|| format!("{}", program.display()))?;
                Ok(info.run_time())
            }),
            Way::Lbterm => {
                let terminator = self.site.terminator.as_ref().context("no terminator")?;
                cpu_time(terminator.pid())
            }
            Way::Nginx => cpu_time(self.nginx.0.id()),
            Way::Haproxy => cpu_time(self.haproxy.0.id()),
        }
    }
}

/// Asks once on a connection of its own.
fn exchange(way: Way) -> Result<Vec<u8>> {
    // lbterm's connections stay with the kernel for a minute, and their ports are not answered by XDP for
    // as long: so they are others.
    let vip = if way == Way::Lbterm { VIP6 } else { VIP4 };
    let to = SocketAddr::new(vip, way.port());
    let mut stream = TcpStream::connect(to)?;
    stream.set_nodelay(true)?;
    if way == Way::Lbterm {
        // Never whole in one segment. The terminator keeps connections unless asked not to.
        let (first, second) = REQUEST.split_at(SPLIT);
        stream.write_all(first)?;
        stream.write_all(&second[..second.len() - 2])?;
        stream.write_all(b"Connection: close\r\n\r\n")?;
    } else {
        stream.write_all(REQUEST)?;
    }
    let mut answer = Vec::with_capacity(512);
    stream.read_to_end(&mut answer)?;
    ensure!(answer.starts_with(b"HTTP/1.1 308"), "{way:?}: {answer:?}");
    Ok(answer)
}

/// CPU time of a process in both modes.
fn cpu_time(pid: u32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, in brackets, may hold anything.
    let fields = stat.rsplit_once(')').context("a name")?.1;
    let mut times = fields.split_whitespace().skip(11);
    let mut ticks = || -> Result<u64> { Ok(times.next().context("a time")?.parse()?) };
    // Of a hundredth of a second, as the kernel tells all programs.
    Ok(Duration::from_millis((ticks()? + ticks()?) * 10))
}
