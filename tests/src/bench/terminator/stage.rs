//! Where the proxies stand, and the rounds in which they are measured.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rustls::RootCertStore;
use tempfile::TempDir;

use super::client::{Dial, Handshakes, Idle};
use super::figures::{Results, Sample};
use super::load::{self, Load};
use super::origin::{self, Origin};
use super::pki::Pki;
use super::proxies::{OTHER_CPU, Port, Running, address};
use super::{Measure, Options, Proxy};
use crate::bench::programs::{Usable, cpus};
use crate::netns::{NetNs, set_sysctl};
use crate::poll::keep_pace;

/// How long a load runs before it counts: connections and handshakes are made meanwhile.
const LEAD: Duration = Duration::from_millis(400);
/// Requests a second where saturation was not measured.
const FALLBACK_RATE: f64 = 5_000.0;
/// Open files of this process and of each that it starts.
const FILES: u64 = 20_000;

/// How much is measured.
pub(super) struct Effort {
    rounds: u32,
    window: Duration,
    at_rate: Duration,
    idle: usize,
}

impl Effort {
    pub(super) fn of(quick: bool) -> Self {
        let [window, at_rate] = match quick {
            true => [1000, 1500],
            false => [2500, 4000],
        }
        .map(Duration::from_millis);
        Self {
            rounds: if quick { 1 } else { 3 },
            window,
            at_rate,
            idle: if quick { 2_000 } else { 10_000 },
        }
    }
}

/// A namespace with what all proxies need.
pub(super) struct Stage {
    ns: NetNs,
    directory: TempDir,
    pki: Pki,
    roots: Arc<RootCertStore>,
    origin: Origin,
    usable: Usable,
}

impl Stage {
    /// Builds it, and puts this thread on the CPU of those that are not measured.
    pub(super) fn build() -> Result<Self> {
        ensure!(
            cpus() >= 2,
            "this takes two CPUs: one for the proxies alone"
        );
        allow_files()?;
        let usable = Usable::here()?;
        usable.pin(OTHER_CPU)?;
        let ns = NetNs::new("terminator")?;
        // Connections made and ended by the thousand must not run out of ports.
        ns.run(|| set_sysctl("net/ipv4/ip_local_port_range", "10000 65000"))?;
        let pki = Pki::new()?;
        let directory = tempfile::tempdir()?;
        pki.write(directory.path())?;
        Ok(Self {
            roots: Arc::new(pki.roots()?),
            origin: Origin::start(&ns)?,
            ns,
            directory,
            pki,
            usable,
        })
    }

    fn start(&self, proxy: Proxy) -> Result<Running> {
        let directory = self.directory.path();
        Running::start(proxy, &self.ns, directory, &self.pki, &self.usable)
    }

    fn dial(&self, proxy: Proxy, measure: Measure) -> Dial {
        let (port, identity) = match measure {
            Measure::Rsa => (Port::Rsa, &self.pki.rsa),
            _ => (Port::Https, &self.pki.ecdsa),
        };
        Dial {
            to: address(proxy, port),
            name: identity.name,
            roots: Arc::clone(&self.roots),
            is_resuming: measure == Measure::Resumed,
        }
    }

    /// What idle connections take, of proxies that have done nothing else.
    pub(super) fn measure_idle(&self, effort: &Effort, results: &mut Results) -> Result<()> {
        for proxy in Proxy::ALL {
            let running = self.start(proxy)?;
            let dial = self.dial(proxy, Measure::Idle);
            let open = |count| self.ns.run(|| Idle::open(&dial, count));
            // What a first connection makes the proxy allocate is no connection's.
            drop(open(1).context(proxy.name())?);
            let before = running.memory()?;
            let idle = open(effort.idle).context(proxy.name())?;
            let cost = (running.memory()? - before) / effort.idle as f64;
            drop(idle);
            results.add(Measure::Idle, proxy, Sample { cost, rate: None });
            eprintln!("{} idle connections: {}", effort.idle, proxy.name());
        }
        Ok(())
    }

    /// All rounds of all loads.
    pub(super) fn measure_loads(
        &self,
        effort: &Effort,
        options: &Options,
        results: &mut Results,
    ) -> Result<()> {
        let mut running = Proxy::ALL
            .into_iter()
            .map(|proxy| self.start(proxy))
            .collect::<Result<Vec<_>>>()?;
        let wanted = |measure: &Measure| options.wants(*measure);
        for round in 1..=effort.rounds {
            for measure in Measure::LOADS.into_iter().filter(wanted) {
                for proxy in &running {
                    let sample = self.sample(proxy, measure, effort.window);
                    let name = proxy.proxy.name();
                    let sample = sample.with_context(|| format!("{}, {name}", measure.title()))?;
                    results.add(measure, proxy.proxy, sample);
                }
            }
            if options.wants(Measure::P99) {
                let rate = results.least_rate(Measure::Https);
                let rate = rate.map_or(FALLBACK_RATE, |rate| rate / 2.0);
                for proxy in &running {
                    let sample = self.p99(proxy.proxy, rate, effort.at_rate);
                    let sample = sample.with_context(|| proxy.proxy.name())?;
                    results.add(Measure::P99, proxy.proxy, sample);
                }
            }
            // Nobody is always the first after a pause.
            running.rotate_left(1);
            eprintln!("round {round} of {}", effort.rounds);
        }
        Ok(())
    }

    fn sample(&self, proxy: &Running, measure: Measure, window: Duration) -> Result<Sample> {
        let to = |port| address(proxy.proxy, port);
        let http1 = |scheme, port, path| Load::http1(&self.ns, scheme, to(port), path);
        let load = match measure {
            Measure::Https => http1("https", Port::Https, origin::SMALL),
            Measure::Http => http1("http", Port::Http, origin::SMALL),
            Measure::HttpsLarge => http1("https", Port::Https, origin::LARGE),
            Measure::Stream => http1("https", Port::Stream, origin::SMALL),
            Measure::StreamLarge => http1("https", Port::Stream, origin::LARGE),
            Measure::Http2 => {
                let time = LEAD + window + LEAD;
                Load::http2(&self.ns, to(Port::Https), origin::SMALL, time)
            }
            Measure::Ecdsa | Measure::Rsa | Measure::Resumed => {
                let dial = self.dial(proxy.proxy, measure);
                let handshakes = Handshakes::start(&self.ns, &dial);
                let sample = observe(proxy, window, || handshakes.done());
                handshakes.finish()?;
                return sample;
            }
            Measure::P99 | Measure::Idle => unreachable!("these are no loads"),
        }?;
        let sample = observe(proxy, window, || self.origin.answered());
        load.finish()?;
        sample
    }

    fn p99(&self, proxy: Proxy, rate: f64, time: Duration) -> Result<Sample> {
        let log = self.directory.path().join("times");
        let to = address(proxy, Port::Https);
        let mut times = load::times_at_rate(&self.ns, to, origin::SMALL, rate, time, &log)?;
        times.sort_by(f64::total_cmp);
        let index = (times.len() * 99).div_ceil(100).saturating_sub(1);
        let slow = times.get(index).context("no request was answered")?;
        Ok(Sample {
            cost: slow / 1e3,
            rate: Some(rate),
        })
    }
}

/// As many files as the idle connections take, on both sides.
fn allow_files() -> Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    ensure!(
        most >= FILES,
        "this takes {FILES} open files; the limit (ulimit -Hn) is {most}"
    );
    setrlimit(Resource::RLIMIT_NOFILE, FILES, most).context("more open files")
}

/// What one of those that are counted costs the proxy while time passes.
fn observe(proxy: &Running, window: Duration, count: impl Fn() -> u64) -> Result<Sample> {
    keep_pace(Instant::now(), LEAD);
    let (began, cpu, counted) = (Instant::now(), proxy.cpu_time()?, count());
    keep_pace(began, window);
    let (took, cpu, counted) = (
        began.elapsed(),
        proxy.cpu_time()? - cpu,
        (count() - counted) as f64,
    );
    ensure!(counted > 0.0, "nothing was answered");
    Ok(Sample {
        cost: cpu.as_secs_f64() * 1e6 / counted,
        rate: Some(counted / took.as_secs_f64()),
    })
}
