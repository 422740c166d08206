//! Connections that wait for the next request.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::{Rc, Weak};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use super::{H2c, Http1};

/// For how long a connection waits for its next request.
const IDLE: Duration = Duration::from_secs(30);

/// How often connections are looked at that wait.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Most connections that wait for one address.
const MAX_IDLE: usize = 512;

/// The connections of a thread to instances that are not in use, or shared.
#[derive(Debug, Default)]
pub struct Pool {
    kept: RefCell<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    /// The one used last is at the end.
    http1: HashMap<SocketAddr, Vec<Http1>>,
    h2c: HashMap<SocketAddr, Vec<Shared>>,
    /// Held by who makes a connection that others will share.
    turns: HashMap<SocketAddr, Rc<Mutex<()>>>,
    is_swept: bool,
}

#[derive(Debug)]
struct Shared {
    connection: H2c,
    last_used: Instant,
}

impl Pool {
    /// A connection to the first of the addresses that has one that is ready: the one used last, so
    /// that those no longer needed grow old.
    pub fn take(
        &self,
        addresses: &[IpAddr],
        port: u16,
        context: &mut Context<'_>,
    ) -> Option<Http1> {
        let mut kept = self.kept.borrow_mut();
        for address in addresses {
            let Some(waiting) = kept.http1.get_mut(&SocketAddr::new(*address, port)) else {
                continue;
            };
            while let Some(mut connection) = waiting.pop() {
                if connection.poll_is_ready(context) {
                    return Some(connection);
                }
            }
        }
        None
    }

    /// Keeps a connection whose exchange is over, if it takes another request.
    pub fn give_back(self: &Rc<Self>, mut connection: Http1, context: &mut Context<'_>) {
        if !connection.poll_is_ready(context) {
            return;
        }
        connection.rest();
        let mut kept = self.kept.borrow_mut();
        let waiting = kept.http1.entry(connection.address()).or_default();
        if waiting.len() < MAX_IDLE {
            waiting.push(connection);
        }
        self.ensure_swept(&mut kept);
    }

    /// A share of a connection to the first of the addresses that has one with room.
    pub fn share(&self, addresses: &[IpAddr], port: u16) -> Option<H2c> {
        let mut kept = self.kept.borrow_mut();
        for address in addresses {
            let Some(shared) = kept.h2c.get_mut(&SocketAddr::new(*address, port)) else {
                continue;
            };
            shared.retain(|shared| !shared.connection.is_over());
            for shared in shared {
                if let Some(share) = shared.connection.share() {
                    shared.last_used = Instant::now();
                    return Some(share);
                }
            }
        }
        None
    }

    /// Whose turn it is to make a connection that others will share: a burst of requests must not
    /// make one each. Whoever has waited asks for a share again.
    pub fn turn(&self, addresses: &[IpAddr], port: u16) -> Rc<Mutex<()>> {
        let Some(address) = addresses.first() else {
            return Rc::default();
        };
        let mut kept = self.kept.borrow_mut();
        let turn = kept.turns.entry(SocketAddr::new(*address, port));
        Rc::clone(turn.or_default())
    }

    /// Keeps a new connection, and returns a share of it.
    pub fn keep(self: &Rc<Self>, address: SocketAddr, connection: H2c) -> H2c {
        let Some(share) = connection.first_share() else {
            return connection;
        };
        let mut kept = self.kept.borrow_mut();
        kept.h2c.entry(address).or_default().push(Shared {
            connection,
            last_used: Instant::now(),
        });
        self.ensure_swept(&mut kept);
        share
    }

    /// Connections that wait or are shared.
    pub fn len(&self) -> usize {
        let kept = self.kept.borrow();
        let http1: usize = kept.http1.values().map(Vec::len).sum();
        http1 + kept.h2c.values().map(Vec::len).sum::<usize>()
    }

    /// Whether no connection waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn ensure_swept(self: &Rc<Self>, kept: &mut Kept) {
        if !kept.is_swept {
            kept.is_swept = true;
            tokio::task::spawn_local(sweep(Rc::downgrade(self)));
        }
    }

    /// Closes what has waited for too long or was closed by the other side.
    fn remove_old(&self, now: Instant) {
        let mut kept = self.kept.borrow_mut();
        let is_old = |since: Instant| now.saturating_duration_since(since) > IDLE;
        let mut context = Context::from_waker(Waker::noop());
        kept.http1.retain(|_, waiting| {
            waiting.retain_mut(|connection| {
                !is_old(connection.idle_since()) && connection.poll_is_ready(&mut context)
            });
            !waiting.is_empty()
        });
        kept.turns.retain(|_, turn| Rc::strong_count(turn) > 1);
        kept.h2c.retain(|_, shared| {
            shared.retain(|shared| {
                let connection = &shared.connection;
                let is_unused = connection.is_alone() && is_old(shared.last_used);
                !connection.is_over() && !is_unused
            });
            !shared.is_empty()
        });
    }
}

/// Looks at the connections of a pool again and again, for as long as the pool is there.
async fn sweep(pool: Weak<Pool>) {
    loop {
        tokio::time::sleep(SWEEP_INTERVAL).await;
        let Some(pool) = pool.upgrade() else {
            return;
        };
        pool.remove_old(Instant::now());
    }
}
