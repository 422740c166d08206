//! A wire that loses and reorders what it carries: a program between the client and the switch.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::net_link::Netlink;
use crate::netns::NetNs;
use crate::random::Random;
use crate::syscalls::{FrameSocket, Offload, interface_index, set_offload};
use crate::topology::Topology;

/// The switch's port towards the client.
const CLIENT: &str = "cl0";
/// The program's own end of a link whose other end is in the switch.
const WIRE: &str = "wire0";
const PORT: &str = "wire1";
/// A frame that overtakers do not come for goes on after this long.
const HELD: Duration = Duration::from_millis(8);

/// What happens to TCP segments, in percent. The rest passes untouched, or neighbours would not be
/// found.
#[derive(Clone, Copy, Debug)]
pub struct Faults {
    /// Lost.
    pub lost: usize,
    /// Held until up to three others have overtaken it.
    pub held: usize,
}

/// Numbers of frames, both ways.
#[derive(Debug, Default)]
pub struct Counts {
    /// TCP segments that came.
    pub segments: AtomicU64,
    /// Lost ones.
    pub lost: AtomicU64,
    /// Overtaken ones.
    pub overtaken: AtomicU64,
}

/// The running program; it ends, and the client is cut off, when this is dropped.
#[derive(Debug)]
pub struct LossyWire {
    stop: Arc<AtomicBool>,
    /// What it did.
    pub counts: Arc<Counts>,
    threads: Vec<JoinHandle<()>>,
}

impl LossyWire {
    /// Puts the program between the client of a topology with a switch and that switch.
    pub fn insert(topology: &Topology, faults: Faults) -> Result<Self> {
        let switch = topology.switch.as_ref().context("no switch")?;
        // The program carries frames as they are on a wire.
        topology
            .gateway
            .run(|| set_offload("eth0", Offload::TxChecksum, false))?;
        let (stop, counts) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(Counts::default()),
        );
        splice(switch)?;
        let ways = [(CLIENT, WIRE, 1), (WIRE, CLIENT, 2)];
        let start = |(from, to, seed)| -> Result<JoinHandle<()>> {
            let open = |name| -> Result<FrameSocket> {
                let socket = switch.run(|| FrameSocket::open(interface_index(name)?))?;
                socket.ignore_sent()?;
                Ok(socket)
            };
            let way = Way {
                from: open(from)?,
                to: open(to)?,
                faults,
                random: Random::new(seed),
                held: Vec::new(),
                counts: Arc::clone(&counts),
            };
            let stop = Arc::clone(&stop);
            Ok(std::thread::spawn(move || way.carry(&stop)))
        };
        let threads = ways.into_iter().map(start).collect::<Result<_>>()?;
        Ok(Self {
            stop,
            counts,
            threads,
        })
    }
}

impl Drop for LossyWire {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // One that has panicked has said so.
            let _ = thread.join();
        }
    }
}

/// Takes the client's port out of the switch, and puts the program's link in.
fn splice(switch: &NetNs) -> Result<()> {
    let mut leave = switch.command("ip");
    let left = leave.args(["link", "set", CLIENT, "nomaster"]).status()?;
    ensure!(left.success(), "{leave:?}");
    switch.run(|| {
        let net = Netlink::open()?;
        net.add_veth(WIRE, switch, PORT)?;
        net.add_port("br0", PORT)
    })
}

/// One direction.
struct Way {
    from: FrameSocket,
    to: FrameSocket,
    faults: Faults,
    random: Random,
    /// Frames that wait, with the number of those that may still overtake them.
    held: Vec<(usize, Vec<u8>)>,
    counts: Arc<Counts>,
}

impl Way {
    fn carry(mut self, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            match self.from.receive(HELD) {
                Ok(Some(frame)) => self.frame(frame),
                Ok(None) => self.release(|_| true),
                // An interface that is gone: so is whoever would look at what is carried.
                Err(_) => return,
            }
        }
    }

    fn frame(&mut self, frame: Vec<u8>) {
        if !is_tcp(&frame) {
            return self.send(&frame);
        }
        self.counts.segments.fetch_add(1, Ordering::Relaxed);
        if self.random.below(100) < self.faults.lost {
            self.counts.lost.fetch_add(1, Ordering::Relaxed);
        } else if self.random.below(100) < self.faults.held {
            let overtakers = 1 + self.random.below(3);
            self.held.push((overtakers, frame));
        } else {
            self.send(&frame);
            let overtaken = self.held.len() as u64;
            self.counts
                .overtaken
                .fetch_add(overtaken, Ordering::Relaxed);
            self.held.iter_mut().for_each(|(left, _)| *left -= 1);
            self.release(|left| left == 0);
        }
    }

    fn release(&mut self, is_due: impl Fn(usize) -> bool) {
        let all = std::mem::take(&mut self.held).into_iter();
        let (due, held): (Vec<_>, Vec<_>) = all.partition(|(left, _)| is_due(*left));
        self.held = held;
        due.iter().for_each(|(_, frame)| self.send(frame));
    }

    fn send(&self, frame: &[u8]) {
        // A queue that is full is one more loss.
        let _ = self.to.send(frame);
    }
}

fn is_tcp(frame: &[u8]) -> bool {
    const TCP: u8 = 6;
    match frame.get(12..14) {
        Some([0x08, 0x00]) => frame.get(23) == Some(&TCP),
        Some([0x86, 0xdd]) => frame.get(20) == Some(&TCP),
        _ => false,
    }
}
