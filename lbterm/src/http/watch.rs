//! Clients that keep a connection and do nothing with it.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use lbagent_api::terminator::Limits;
use tokio::time::Sleep;

use super::framing::Place;
use super::pulse::Pulse;

/// Why a connection ends before its client wants it to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overdue {
    /// A head took too long (slowloris).
    Head,
    /// Nothing came or went although it could have.
    Idle,
}

/// Looks at a connection when something may be overdue. Its timer is not moved with each request:
/// when it is over, it tells from what was last seen.
pub struct Watch {
    timer: Pin<Box<Sleep>>,
    head: Duration,
    idle: Duration,
    watches_head: bool,
}

impl Watch {
    /// Of a connection that begins now.
    pub fn new(limits: &Limits) -> Self {
        let head = Duration::from_millis(limits.head_timeout_ms.into());
        let idle = Duration::from_millis(limits.idle_timeout_ms.into());
        Self {
            timer: Box::pin(tokio::time::sleep(head.min(idle))),
            head,
            idle,
            watches_head: false,
        }
    }

    /// Ready when the connection is to be closed.
    pub fn poll(
        &mut self,
        context: &mut Context<'_>,
        pulse: &Pulse,
        in_flight: u32,
    ) -> Poll<Overdue> {
        let is_in_head = pulse.place() == Place::Head;
        if is_in_head && !self.watches_head {
            // Heads mostly come in one piece: this is seldom.
            self.timer
                .as_mut()
                .reset((pulse.head_began() + self.head).into());
        }
        self.watches_head = is_in_head;
        while self.timer.as_mut().poll(context).is_ready() {
            let now = Instant::now();
            let (overdue, deadline) = self.deadline(pulse, in_flight, now);
            if deadline <= now {
                return Poll::Ready(overdue);
            }
            self.timer.as_mut().reset(deadline.into());
        }
        Poll::Pending
    }

    /// What would be overdue next, and when. While requests are in flight and nobody keeps anybody
    /// waiting, it is looked at again later.
    fn deadline(&self, pulse: &Pulse, in_flight: u32, now: Instant) -> (Overdue, Instant) {
        if in_flight > 0 {
            let deadline = match pulse.stalled_since() {
                Some(since) => since + self.idle,
                None => now + self.idle,
            };
            return (Overdue::Idle, deadline);
        }
        match pulse.place() {
            Place::Head => (Overdue::Head, pulse.head_began() + self.head),
            _ => (Overdue::Idle, pulse.last_byte() + self.idle),
        }
    }
}
