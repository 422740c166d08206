use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use lbagent_common::FragmentKey;

use super::store::{DEADLINE, nanos};
use super::*;

const MS: u64 = nanos(Duration::from_millis(1));
/// When everything here begins.
const START: u64 = 1_000_000 * MS;

/// A data plane in memory.
#[derive(Default)]
struct Memory {
    ring: VecDeque<HeldFrame>,
    decided: BTreeSet<FragmentKey>,
    sent: Vec<Vec<u8>>,
    looks: usize,
    is_broken: bool,
}

impl Gate for Memory {
    fn pop(&mut self) -> Option<HeldFrame> {
        self.ring.pop_front()
    }

    fn is_decided(&mut self, key: &FragmentKey) -> bool {
        self.looks += 1;
        self.decided.contains(key)
    }

    fn send(&mut self, frame: &HeldFrame) -> bool {
        self.sent.push(frame.frame.clone());
        !self.is_broken
    }
}

fn key(datagram: u32) -> FragmentKey {
    FragmentKey {
        identification: datagram,
        ..FragmentKey::default()
    }
}

/// A frame of a datagram, and its number within it.
fn frame(datagram: u32, number: u8, time_ns: u64) -> HeldFrame {
    HeldFrame {
        key: key(datagram),
        time_ns,
        ifindex: 2,
        frame: vec![datagram as u8, number],
    }
}

fn holder(capacity: usize, frames: impl IntoIterator<Item = HeldFrame>) -> Holder<Memory> {
    let memory = Memory {
        ring: frames.into_iter().collect(),
        ..Memory::default()
    };
    Holder::new(memory, capacity)
}

/// Waiting, released, expired, displaced, failed.
#[track_caller]
fn assert_counted(holder: &Holder<Memory>, expected: [u64; 5]) {
    let Counters {
        waiting,
        released,
        expired,
        displaced,
        failed,
    } = &*holder.counters;
    let counted = [waiting, released, expired, displaced, failed];
    assert_eq!(
        counted.map(|count| count.load(Ordering::Relaxed)),
        expected,
        "waiting, released, expired, displaced, failed"
    );
}

#[test]
fn a_datagram_is_let_go_when_its_first_fragment_has_come() {
    let frames = [
        frame(1, 2, START),
        frame(2, 1, START),
        frame(1, 1, START + 5),
    ];
    let mut holder = holder(10, frames);
    holder.pass(START + 10);
    assert_counted(&holder, [3, 0, 0, 0, 0]);
    holder.gate.decided.insert(key(1));
    holder.pass(START + 2 * MS);
    assert_counted(&holder, [1, 2, 0, 0, 0]);
    assert_eq!(holder.gate.sent, [[1, 2], [1, 1]], "as they came");
    // One that came into the ring before the first fragment, and is read after it.
    holder.gate.ring.push_back(frame(1, 3, START));
    holder.pass(START + 3 * MS);
    assert_counted(&holder, [1, 3, 0, 0, 0]);
}

#[test]
fn nothing_waits_for_longer_than_the_deadline() {
    let mut holder = holder(10, [frame(1, 1, START), frame(2, 1, START + MS)]);
    holder.pass(START + MS);
    assert_eq!(holder.idle(START + MS), Duration::from_millis(1));
    holder.pass(START + nanos(DEADLINE) - 1);
    assert_counted(&holder, [2, 0, 0, 0, 0]);
    holder.pass(START + nanos(DEADLINE));
    assert_counted(&holder, [1, 0, 1, 0, 0]);
    // What lay in the ring while there was no agent may belong to a datagram of long ago.
    holder.gate.ring.push_back(frame(3, 1, START));
    holder.gate.decided.insert(key(3));
    holder.pass(START + 2 * nanos(DEADLINE));
    assert_counted(&holder, [0, 0, 3, 0, 0]);
    assert!(holder.gate.sent.is_empty());
    assert_eq!(holder.idle(START + 2 * nanos(DEADLINE)), IDLE);
}

#[test]
fn the_oldest_datagram_gives_way() {
    let mut holder = holder(3, (1..=5).map(|number| frame(number, 1, START)));
    holder.pass(START);
    assert_counted(&holder, [3, 0, 0, 2, 0]);
    holder.gate.decided.extend((1..=5).map(key));
    holder.pass(START + MS);
    assert_eq!(holder.gate.sent, [[3, 1], [4, 1], [5, 1]]);
    // One datagram alone may fill the store.
    holder.gate.decided.clear();
    holder
        .gate
        .ring
        .extend((1..=4).map(|number| frame(9, number, START)));
    holder.pass(START + 2 * MS);
    assert_counted(&holder, [1, 3, 0, 5, 0]);
}

/// A flood costs the agent no more than a batch at a time.
#[test]
fn one_pass_takes_and_sends_a_batch() {
    let flood = (0..5 * BATCH as u32).map(|number| frame(number, 1, START));
    let mut holder = holder(CAPACITY, flood);
    holder.pass(START);
    assert_counted(&holder, [BATCH as u64, 0, 0, 0, 0]);
    assert_eq!(holder.idle(START), Duration::ZERO, "there is more");
    for _ in 0..5 {
        holder.pass(START);
    }
    assert_counted(&holder, [5 * BATCH as u64, 0, 0, 0, 0]);
    holder.gate.decided.extend((0..5 * BATCH as u32).map(key));
    holder.pass(START + MS);
    assert_counted(&holder, [4 * BATCH as u64, BATCH as u64, 0, 0, 0]);
    assert_eq!(holder.idle(START + MS), Duration::ZERO, "others are due");
}

/// A fragment waits at most twice as long as it must.
#[test]
fn looks_get_rare_as_a_datagram_gets_old() {
    let mut holder = holder(10, [frame(1, 1, START)]);
    let mut now = START;
    while now < START + nanos(DEADLINE) {
        holder.pass(now);
        let wait = nanos(holder.idle(now));
        assert!(wait <= (now - START).max(MS), "{wait} at {}", now - START);
        now += wait;
    }
    assert!(
        (8..=13).contains(&holder.gate.looks),
        "{}",
        holder.gate.looks
    );
}

#[test]
fn what_could_not_be_sent_is_counted() {
    let mut holder = holder(10, [frame(1, 1, START)]);
    holder.gate.is_broken = true;
    holder.gate.decided.insert(key(1));
    holder.pass(START);
    assert_counted(&holder, [0, 0, 0, 0, 1]);
}
