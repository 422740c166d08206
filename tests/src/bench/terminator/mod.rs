//! `cargo xtask bench terminator`: lbterm beside HAProxy and nginx.
//!
//! Each proxy has one thread on the first CPU; what loads them and what they pass requests on to is on
//! the second. All run all the time and take turns in every round. What a request costs is the CPU time
//! of the proxy's processes, which other work on the machine moves far less than rates; ratios compare
//! figures of the same round, and what is printed is their median.

mod client;
mod costs;
mod feed;
mod figures;
mod load;
mod origin;
mod pki;
mod proxies;
mod stage;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;

use figures::{Goal, Results};
use stage::{Effort, Stage};

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Proxy {
    /// lbagent's terminator, fed as by the agent.
    Lbterm,
    /// Debian's HAProxy.
    Haproxy,
    /// Debian's nginx.
    Nginx,
}

impl Proxy {
    const ALL: [Self; 3] = [Self::Lbterm, Self::Haproxy, Self::Nginx];
    /// Those that lbterm is compared with.
    const RIVALS: [Self; 2] = [Self::Haproxy, Self::Nginx];

    fn name(self) -> &'static str {
        match self {
            Self::Lbterm => "lbterm",
            Self::Haproxy => "haproxy",
            Self::Nginx => "nginx",
        }
    }
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Measure {
    /// Requests over kept connections, `tls+http`, HTTP/1.1.
    Https,
    /// Requests, `tls+http`, HTTP/2.
    Http2,
    /// Requests over kept connections, `http`.
    Http,
    /// Answers of 64 KiB, `tls+http`, HTTP/1.1.
    HttpsLarge,
    /// Handshakes with a certificate for P-256.
    Ecdsa,
    /// Handshakes with a certificate for RSA, 2048 bits.
    Rsa,
    /// Handshakes that resume a session.
    Resumed,
    /// Small answers through `tls` alone.
    Stream,
    /// Answers of 64 KiB through `tls` alone.
    StreamLarge,
    /// Milliseconds that 99 of 100 requests do not exceed at a fixed rate, `tls+http`.
    P99,
    /// KiB of memory for each idle connection, `tls+http`.
    Idle,
}

impl Measure {
    /// What a proxy is loaded with as much as it takes.
    const LOADS: [Self; 9] = [
        Self::Https,
        Self::Http2,
        Self::Http,
        Self::HttpsLarge,
        Self::Ecdsa,
        Self::Rsa,
        Self::Resumed,
        Self::Stream,
        Self::StreamLarge,
    ];

    /// As the JSON and `--only` name it.
    fn name(self) -> &'static str {
        match self {
            Self::Https => "https",
            Self::Http2 => "http2",
            Self::Http => "plain_http",
            Self::HttpsLarge => "https_64k",
            Self::Ecdsa => "handshake_p256",
            Self::Rsa => "handshake_rsa",
            Self::Resumed => "handshake_resumed",
            Self::Stream => "tls",
            Self::StreamLarge => "tls_64k",
            Self::P99 => "p99",
            Self::Idle => "idle_memory",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Https => "HTTPS, HTTP/1.1",
            Self::Http2 => "HTTPS, HTTP/2",
            Self::Http => "HTTP/1.1 without TLS",
            Self::HttpsLarge => "HTTPS, bodies of 64 KiB",
            Self::Ecdsa => "full handshake, P-256",
            Self::Rsa => "full handshake, RSA-2048",
            Self::Resumed => "resumed handshake",
            Self::Stream => "tls only, small",
            Self::StreamLarge => "tls only, 64 KiB",
            Self::P99 => "p99 at a fixed rate",
            Self::Idle => "idle HTTPS connection",
        }
    }

    fn unit(self) -> &'static str {
        match self {
            Self::P99 => "ms",
            Self::Idle => "KiB",
            _ => "µs",
        }
    }

    /// Whether the ratio is the rival's figure by lbterm's, so that more is better, and not the
    /// other way round.
    fn is_speed(self) -> bool {
        !matches!(self, Self::P99 | Self::Idle)
    }
}

const GOALS: &[Goal] = &[
    Goal::new(Measure::Https, 1.25, 1.35),
    Goal::new(Measure::Http2, 1.0, 1.2),
    Goal::new(Measure::Http, 1.0, 1.0),
    Goal::new(Measure::HttpsLarge, 1.1, 1.1),
    Goal::new(Measure::Ecdsa, 2.5, 2.0),
    Goal::new(Measure::Rsa, 1.6, 1.6),
    Goal::new(Measure::Resumed, 1.8, 1.5),
    Goal::new(Measure::Stream, 1.2, 1.1),
    Goal::new(Measure::StreamLarge, 1.0, 0.9),
    Goal::new(Measure::P99, 1.0, 1.0),
    Goal::new(Measure::Idle, 1.5, 1.5),
];

/// How to measure and where to write.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// One short round.
    pub quick: bool,
    /// Fail when a goal is missed.
    pub check: bool,
    /// Where the figures go.
    pub json: Option<PathBuf>,
    /// Measure only what has a name that begins so: for profiles.
    pub only: Option<String>,
}

impl Options {
    fn wants(&self, measure: Measure) -> bool {
        let only = self.only.as_deref().unwrap_or("");
        measure.name().starts_with(only)
    }
}

/// Measures and reports. Returns whether the run is good: goals count only when asked for.
pub fn run(options: &Options) -> Result<bool> {
    let start = Instant::now();
    let effort = Effort::of(options.quick);
    let stage = Stage::build()?;
    let mut results = Results::default();
    if options.wants(Measure::Idle) {
        stage.measure_idle(&effort, &mut results)?;
    }
    stage.measure_loads(&effort, options, &mut results)?;
    print!("{}", results.table(GOALS));
    println!("took {} s", start.elapsed().as_secs());
    if let Some(path) = &options.json {
        results.write_json(GOALS, path)?;
    }
    match results.missed(GOALS) {
        Some(line) if options.check => {
            println!("{line}");
            Ok(false)
        }
        _ => Ok(true),
    }
}
