//! Clients that are there while something changes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures_util::future::{join_all, try_join_all};
use lbagent_tests::https::{Sender, Trust, Version};
use lbagent_tests::netns::NetNs;
use lbagent_tests::poll::{SOON, poll_until};
use lbagent_tests::resident::block_on;
use lbagent_tests::site::{NAME, Site};
use lbagent_tests::topology::{VIP4, VIP6};

const VERSIONS: [Version; 2] = [Version::Http1, Version::Http2];

/// Clients that connect, ask a few times, and connect again; any failure ends them.
pub struct Load {
    stop: Arc<AtomicBool>,
    visits: Arc<AtomicU64>,
    thread: JoinHandle<Result<()>>,
}

impl Load {
    /// Asks a site at both VIPs, by both versions of HTTP.
    pub fn start(ns: &NetNs, trust: &Trust) -> Self {
        let (stop, visits) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (ns, trust) = (ns.clone(), trust.clone());
        let (until, done) = (Arc::clone(&stop), Arc::clone(&visits));
        let visitor = move |(vip, version)| {
            let (trust, until, done) = (trust.clone(), Arc::clone(&until), Arc::clone(&done));
            async move {
                let to = SocketAddr::new(vip, 443);
                while !until.load(Ordering::Relaxed) {
                    let number = done.fetch_add(1, Ordering::Relaxed);
                    let visited = visit(&trust, version, to).await;
                    visited.with_context(|| format!("{version:?} at {vip}, visit {number}"))?;
                }
                Ok(())
            }
        };
        let kinds = [VIP4, VIP6].map(|vip| VERSIONS.map(|version| (vip, version)));
        let thread = std::thread::spawn(move || {
            let visitors = kinds.into_iter().flatten().map(visitor);
            let visitors: Vec<_> = visitors.collect();
            let visited = block_on(&ns, || try_join_all(visitors)).map(drop);
            if let Err(error) = &visited {
                eprintln!("{error:#}");
            }
            visited
        });
        Self {
            stop,
            visits,
            thread,
        }
    }

    /// Waits for so many more visits.
    pub fn go_on(&self, more: u64) {
        let until = self.visits.load(Ordering::Relaxed) + more;
        let reached = || {
            assert!(!self.thread.is_finished(), "a visit failed");
            self.visits.load(Ordering::Relaxed) >= until
        };
        poll_until("more visits", Duration::from_secs(60), reached).unwrap();
    }

    /// The number of visits, none of which failed.
    #[track_caller]
    pub fn finish(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        if let Err(error) = self.thread.join().unwrap() {
            panic!("{error:#}");
        }
        self.visits.load(Ordering::Relaxed)
    }
}

/// One connection with several requests, fewer if the server says that it is to end.
async fn visit(trust: &Trust, version: Version, to: SocketAddr) -> Result<()> {
    const REQUESTS: usize = 3;
    let mut sender = trust.open(version, to, NAME).await?;
    for turn in 0..REQUESTS {
        let answered = sender.get("/").await;
        // The server's word to go came first: the request was never sent, and browsers then ask on
        // another connection (RFC 9113, 6.8).
        if version == Version::Http2 && answered.as_ref().is_err_and(was_kept_back) {
            break;
        }
        let (text, goes_on) = answered.with_context(|| format!("request {turn}"))?;
        if !text.ends_with(" by https") {
            bail!("request {turn}: {text}");
        }
        if !goes_on || !sender.is_ready().await {
            break;
        }
    }
    Ok(())
}

/// Whether a request failed before anything of it was sent.
fn was_kept_back(error: &anyhow::Error) -> bool {
    let mut errors = error.chain().filter_map(|it| it.downcast_ref());
    errors.any(hyper::Error::is_canceled)
}

/// Requests whose answers wait for the test: by both versions of HTTP, before the head of the
/// answer and in the middle of it.
pub struct Held {
    count: usize,
    thread: JoinHandle<Vec<Result<Last>>>,
}

/// How a held request ended.
pub struct Last {
    pub what: &'static str,
    pub version: Version,
    pub text: String,
    /// Whether the client may go on asking on this connection.
    pub goes_on: bool,
}

impl Held {
    /// Asks, and waits until the instances hold all of it. After its answer, a client of HTTP/2 looks for
    /// as long as `patience` whether the server tells it to go.
    pub fn start(site: &Site, patience: Duration) -> Self {
        for origin in &site.origins {
            origin.set_released(false);
        }
        let before = held(site);
        let (ns, trust) = (site.gateway.topology.client.clone(), site.trust.clone());
        let kinds = VERSIONS.map(|version| ["/held", "/half"].map(|what| (version, what)));
        let kinds: Vec<_> = kinds.into_iter().flatten().cycle().take(8).collect();
        let count = kinds.len();
        let to = SocketAddr::new(VIP4, 443);
        let thread = std::thread::spawn(move || {
            let ask = |(version, what): (Version, &'static str)| {
                let trust = trust.clone();
                async move {
                    let mut sender = trust.open(version, to, NAME).await?;
                    let (text, goes_on) = sender.get(what).await.with_context(|| what)?;
                    let goes_on = match version {
                        Version::Http1 => goes_on && sender.is_ready().await,
                        Version::Http2 => stays(&mut sender, patience).await,
                    };
                    Ok(Last {
                        what,
                        version,
                        text,
                        goes_on,
                    })
                }
            };
            block_on(&ns, || join_all(kinds.into_iter().map(ask)))
        });
        poll_until("the instances to hold requests", SOON, || {
            held(site) >= before + count
        })
        .unwrap();
        Self { count, thread }
    }

    /// Lets them be answered: each is, and to its end.
    #[track_caller]
    pub fn finish(self, site: &Site) -> Vec<Last> {
        for origin in &site.origins {
            origin.set_released(true);
        }
        let ended: Result<Vec<Last>> = self.thread.join().unwrap().into_iter().collect();
        let ended = ended.unwrap_or_else(|error| panic!("{error:#}"));
        assert_eq!(ended.len(), self.count);
        for last in &ended {
            assert!(
                last.text.ends_with(" by https"),
                "{}: {}",
                last.what,
                last.text
            );
        }
        ended
    }
}

/// Whether a client is not told to go within some time. HTTP/2 tells that in a frame of its own, which may
/// come a moment after the answer.
async fn stays(sender: &mut Sender, patience: Duration) -> bool {
    let until = Instant::now() + patience;
    let mut looks = tokio::time::interval(Duration::from_millis(10));
    loop {
        looks.tick().await;
        if !sender.is_ready().await {
            return false;
        }
        if Instant::now() >= until {
            return true;
        }
    }
}

fn held(site: &Site) -> usize {
    site.origins.iter().map(|origin| origin.held()).sum()
}
