//! Connections that wait for the next request.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::{Rc, Weak};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use super::{Bare, H2c, Http1};

/// For how long a connection waits for its next request.
const IDLE: Duration = Duration::from_secs(30);

/// How often connections are looked at that wait.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Most connections that wait for one address.
const MAX_IDLE: usize = 512;

/// A connection that one request uses at a time, and that waits for the next one.
pub trait Keepable {
    /// Where it leads.
    fn address(&self) -> SocketAddr;

    /// When it was last used.
    fn idle_since(&self) -> Instant;

    /// Whether it has answered a request before.
    fn is_reused(&self) -> bool;

    /// Whether a request may be sent now. Sees whether the instance has closed it meanwhile.
    fn poll_is_ready(&mut self, context: &mut Context<'_>) -> bool;

    /// It waits for the next request from now on.
    fn rest(&mut self);
}

impl<C: Keepable> Keepable for Box<C> {
    fn address(&self) -> SocketAddr {
        C::address(self)
    }

    fn idle_since(&self) -> Instant {
        C::idle_since(self)
    }

    fn is_reused(&self) -> bool {
        C::is_reused(self)
    }

    fn poll_is_ready(&mut self, context: &mut Context<'_>) -> bool {
        C::poll_is_ready(self, context)
    }

    fn rest(&mut self) {
        C::rest(self);
    }
}

/// Connections of one kind that wait, by where they lead. The one used last is at the end.
#[derive(Debug)]
struct Waiting<C>(foldhash::HashMap<SocketAddr, Vec<C>>);

impl<C> Default for Waiting<C> {
    fn default() -> Self {
        Self(foldhash::HashMap::default())
    }
}

impl<C: Keepable> Waiting<C> {
    fn take(&mut self, addresses: &[IpAddr], port: u16, context: &mut Context<'_>) -> Option<C> {
        for address in addresses {
            let Some(waiting) = self.0.get_mut(&SocketAddr::new(*address, port)) else {
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

    fn keep(&mut self, mut connection: C) {
        connection.rest();
        let waiting = self.0.entry(connection.address()).or_default();
        if waiting.len() < MAX_IDLE {
            waiting.push(connection);
        }
    }

    fn remove_old(&mut self, is_old: impl Fn(Instant) -> bool) {
        let mut context = Context::from_waker(Waker::noop());
        self.0.retain(|_, waiting| {
            waiting.retain_mut(|connection| {
                !is_old(connection.idle_since()) && connection.poll_is_ready(&mut context)
            });
            !waiting.is_empty()
        });
    }

    fn len(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }
}

/// The connections of a thread to instances that are not in use, or shared.
#[derive(Debug, Default)]
pub struct Pool {
    kept: RefCell<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    bare: Waiting<Box<Bare>>,
    http1: Waiting<Http1>,
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
        self.kept.borrow_mut().http1.take(addresses, port, context)
    }

    /// As [`Self::take`], for a request without a body.
    pub fn take_bare(
        &self,
        addresses: &[IpAddr],
        port: u16,
        context: &mut Context<'_>,
    ) -> Option<Box<Bare>> {
        self.kept.borrow_mut().bare.take(addresses, port, context)
    }

    /// Keeps a connection whose exchange is over, if it takes another request.
    pub fn give_back(self: &Rc<Self>, mut connection: Http1, context: &mut Context<'_>) {
        if connection.poll_is_ready(context) {
            let mut kept = self.kept.borrow_mut();
            kept.http1.keep(connection);
            self.ensure_swept(&mut kept);
        }
    }

    /// As [`Self::give_back`].
    pub fn give_back_bare(self: &Rc<Self>, mut connection: Box<Bare>, context: &mut Context<'_>) {
        if connection.poll_is_ready(context) {
            let mut kept = self.kept.borrow_mut();
            kept.bare.keep(connection);
            self.ensure_swept(&mut kept);
        }
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
        kept.bare.len() + kept.http1.len() + kept.h2c.values().map(Vec::len).sum::<usize>()
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
        kept.bare.remove_old(is_old);
        kept.http1.remove_old(is_old);
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
