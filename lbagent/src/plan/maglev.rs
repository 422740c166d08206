//! Weighted Maglev tables (Eisenbud et al., Maglev, NSDI 2016, section 3.4).
//!
//! Every backend walks the slots in an order of its own, given by a keyed hash of its UUID, and
//! takes the first free one when it is its turn. Two things differ from the paper: shares are
//! fixed beforehand by the method of the largest remainder, so that they are exact to one slot
//! for any weights, and turns are dealt out in proportion to the weights.
//!
//! The table depends on nothing but (seed, UUIDs, weights, length), so every gateway builds the
//! same one.

use uuid::Uuid;

/// Builds a table: for every slot the index of its owner in `backends`, which must be ordered by
/// UUID and hold each once. `None` when there is no slot or no backend with a weight.
///
/// `len` must be a prime, so that every step width visits all slots.
pub fn build(backends: &[(Uuid, u16)], seed: u64, len: u32) -> Option<Vec<u32>> {
    debug_assert!(
        backends.is_sorted_by(|a, b| a.0 < b.0),
        "ordered by UUID, each once"
    );
    let top_weight = backends
        .iter()
        .map(|(_, weight)| *weight)
        .max()
        .filter(|top| *top > 0)?;
    if len == 0 {
        return None;
    }
    let quotas = quotas(backends, seed, len);
    let turns = turns(backends, &quotas, top_weight);
    let mut walks: Vec<Walk> = backends
        .iter()
        .map(|(uuid, _)| Walk::new(uuid, seed, len))
        .collect();
    let mut owners = vec![0; len as usize];
    let mut taken = vec![0_u64; (len as usize).div_ceil(64)];
    for owner in turns {
        let slot = walks[owner as usize].next_free(&mut taken, len);
        owners[slot as usize] = owner;
    }
    Some(owners)
}

/// Who takes a slot, turn by turn, until all quotas are used up. In each round the heaviest backend
/// has a turn; one of half the weight has one in every second round. Within a round they follow each
/// other in their order.
///
/// Sorted by round instead of asked in each round, because with one heavy backend and many light
/// ones nearly all who were asked would have no turn.
fn turns(backends: &[(Uuid, u16)], quotas: &[u32], top_weight: u16) -> Vec<u32> {
    let shares = || {
        let weights = backends.iter().map(|(_, weight)| u64::from(*weight));
        (0_u32..).zip(weights.zip(quotas.iter().map(|quota| u64::from(*quota))))
    };
    let round = |weight: u64, turn: u64| (turn * u64::from(top_weight)).div_ceil(weight) as usize;
    let rounds = shares().filter(|(_, (_, quota))| *quota > 0);
    let rounds = rounds
        .map(|(_, (weight, quota))| round(weight, quota))
        .max();
    // First how many turns each round has, then the place of its next one.
    let mut places = vec![0_usize; rounds.unwrap_or(0) + 2];
    for (_, (weight, quota)) in shares() {
        (1..=quota).for_each(|turn| places[round(weight, turn) + 1] += 1);
    }
    for index in 1..places.len() {
        places[index] += places[index - 1];
    }
    let mut turns = vec![0; places.last().copied().unwrap_or(0)];
    for (owner, (weight, quota)) in shares() {
        for turn in 1..=quota {
            let place = &mut places[round(weight, turn)];
            turns[*place] = owner;
            *place += 1;
        }
    }
    turns
}

/// How many slots each backend gets: the exact share rounded down, and one more for those with
/// the largest remainders until all slots are given out. Ties go by hash, not by UUID, so that
/// backends created first are not always the favoured ones.
fn quotas(backends: &[(Uuid, u16)], seed: u64, len: u32) -> Vec<u32> {
    let total: u64 = backends.iter().map(|(_, weight)| u64::from(*weight)).sum();
    let share = |weight: u16| u64::from(weight) * u64::from(len);
    let mut quotas: Vec<u32> = backends
        .iter()
        .map(|(_, weight)| u32::try_from(share(*weight) / total).unwrap_or(len))
        .collect();
    let mut order: Vec<usize> = (0..backends.len()).filter(|i| backends[*i].1 > 0).collect();
    order.sort_by_cached_key(|i| {
        let (uuid, weight) = &backends[*i];
        (
            u64::MAX - share(*weight) % total,
            hash(seed, uuid, Salt::Tie),
            *uuid,
        )
    });
    let given: u32 = quotas.iter().sum();
    for i in order.into_iter().take((len - given) as usize) {
        quotas[i] += 1;
    }
    quotas
}

/// One backend's walk over the slots.
struct Walk {
    position: u32,
    step: u32,
}

impl Walk {
    fn new(uuid: &Uuid, seed: u64, len: u32) -> Self {
        let below = |hash: u64, bound: u32| (hash % u64::from(bound.max(1))) as u32;
        Self {
            position: below(hash(seed, uuid, Salt::Offset), len),
            // 1 .. len-1; a table of one slot is walked in steps of 1.
            step: below(hash(seed, uuid, Salt::Step), len - 1) + 1,
        }
    }

    /// Takes the next free slot on the walk. There is one, as the quotas add up to the table.
    fn next_free(&mut self, taken: &mut [u64], len: u32) -> u32 {
        loop {
            let slot = self.position;
            let next = slot + self.step;
            self.position = if next >= len { next - len } else { next };
            let (word, bit) = ((slot / 64) as usize, 1 << (slot % 64));
            if taken[word] & bit == 0 {
                taken[word] |= bit;
                return slot;
            }
        }
    }
}

/// Makes independent hashes of one key.
#[derive(Clone, Copy)]
#[repr(u64)]
enum Salt {
    Offset = 1,
    Step = 2,
    Tie = 3,
}

/// Keyed hash of a UUID: its two halves, read big-endian as RFC 9562 writes them, each absorbed
/// by addition and stirred by the finaliser of splitmix64 (Steele, Lea, Flood, OOPSLA 2014).
fn hash(seed: u64, uuid: &Uuid, salt: Salt) -> u64 {
    let (high, low) = uuid.as_u64_pair();
    let state = mix(seed.wrapping_add(GOLDEN.wrapping_mul(salt as u64)));
    let state = mix(state.wrapping_add(high).wrapping_add(GOLDEN));
    mix(state.wrapping_add(low).wrapping_add(GOLDEN))
}

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

const fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use lbagent_common::{LADDER, table_len};
    use nix::time::ClockId;
    use proptest::prelude::*;

    use super::*;

    fn backends(count: usize, salt: u128) -> Vec<(Uuid, u16)> {
        let mut all: Vec<_> = (0..count as u128)
            .map(|i| {
                let spread = (i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
                (Uuid::from_u128(spread ^ salt), 1)
            })
            .collect();
        all.sort();
        all
    }

    fn counts(owners: &[u32], backends: usize) -> Vec<u32> {
        let mut counts = vec![0; backends];
        for owner in owners {
            counts[*owner as usize] += 1;
        }
        counts
    }

    fn table_of(backends: &[(Uuid, u16)], seed: u64, len: u32) -> Vec<Uuid> {
        let owners = build(backends, seed, len).expect("a table");
        owners
            .into_iter()
            .map(|owner| backends[owner as usize].0)
            .collect()
    }

    #[track_caller]
    fn check_even(count: usize, len: u32) {
        let owners = build(&backends(count, 7), 42, len).expect("a table");
        let counts = counts(&owners, count);
        let (least, most) = (counts.iter().min(), counts.iter().max());
        let spread = most.zip(least).map(|(most, least)| most - least);
        assert!(
            spread <= Some(1),
            "{count} backends over {len} slots differ by {spread:?}"
        );
    }

    #[test]
    fn equal_weights_differ_by_at_most_one_slot() {
        for count in [1, 2, 3, 5, 10, 64, 100, 655, 1000] {
            check_even(count, table_len(count));
            check_even(count, 65_537);
        }
        check_even(3, 2);
        check_even(1, 1);
        check_even(5, 1);
    }

    #[test]
    fn nothing_to_build_from_gives_no_table() {
        assert_eq!(build(&[], 1, 509), None);
        assert_eq!(build(&[(Uuid::from_u128(1), 0)], 1, 509), None);
        assert_eq!(build(&backends(3, 1), 1, 0), None);
    }

    /// Slots that changed hands although their owner stayed, in percent of the table.
    fn needless_moves(count: usize, len: u32, seed: u64) -> f64 {
        let all = backends(count, u128::from(seed));
        let gone = all[seed as usize % count].0;
        let rest: Vec<_> = all
            .iter()
            .copied()
            .filter(|(uuid, _)| *uuid != gone)
            .collect();
        let (before, after) = (table_of(&all, seed, len), table_of(&rest, seed, len));
        let moved = before
            .iter()
            .zip(&after)
            .filter(|(a, b)| **a != gone && a != b)
            .count();
        moved as f64 * 100.0 / f64::from(len)
    }

    #[track_caller]
    fn check_disruption(count: usize, len: u32, at_most_percent: f64) {
        let mean = (0..20)
            .map(|seed| needless_moves(count, len, seed))
            .sum::<f64>()
            / 20.0;
        assert!(
            mean <= at_most_percent,
            "{count} over {len}: {mean:.2} % > {at_most_percent} %"
        );
    }

    /// Bounds as measured, rounded up: they hold the algorithm to what it does today.
    #[test]
    fn a_removal_moves_few_slots_of_those_who_stay() {
        check_disruption(3, table_len(3), 1.0);
        check_disruption(5, table_len(5), 2.0);
        check_disruption(10, table_len(10), 3.0);
        check_disruption(50, table_len(50), 2.0);
        check_disruption(100, 65_537, 1.0);
        check_disruption(500, 65_537, 1.0);
    }

    /// A walk that degenerates (a step that does not visit all slots, a quota that nobody can
    /// fill) would not end, or take seconds.
    #[test]
    fn the_largest_table_is_built_quickly() {
        let all = backends(100, 9);
        let begun = std::time::Instant::now();
        assert!(build(&all, 1, 65_537).is_some());
        let elapsed = begun.elapsed();
        assert!(elapsed < std::time::Duration::from_secs(2), "{elapsed:?}");
    }

    /// With one heavy backend a table costs no more than twice the time; the best of some runs
    /// counts. `cargo test --release` shows the figures of optimised code: the goal is 3 ms.
    #[test]
    fn uneven_weights_cost_no_time() {
        let even = backends(100, 9);
        let mut uneven = even.clone();
        uneven[42].1 = 1000;
        // Of this thread, however busy the machine is, and by turns, whatever its caches hold.
        let now = || Duration::from(ClockId::CLOCK_THREAD_CPUTIME_ID.now().expect("a clock"));
        let time = |backends: &[(Uuid, u16)]| {
            let begun = now();
            assert!(build(backends, 1, 65_537).is_some());
            now() - begun
        };
        let runs = (0..15).map(|_| [time(&even), time(&uneven)]);
        let best =
            |one: [Duration; 2], other: [Duration; 2]| [one[0].min(other[0]), one[1].min(other[1])];
        let [even, uneven] = runs.reduce(best).expect("fifteen runs");
        println!(
            "65537 slots x 100 backends: even {even:?}, one of 1000 times the weight {uneven:?}"
        );
        assert!(uneven < 2 * even, "{uneven:?} against {even:?}");
    }

    #[test]
    fn the_order_of_input_leaves_no_trace_in_1000_tables() {
        let all = backends(23, 5);
        let want = build(&all, 42, 2039);
        let mut shuffled = all.clone();
        for round in 0..1000_u64 {
            shuffled.sort_by_key(|(uuid, _)| hash(round, uuid, Salt::Tie));
            assert_ne!(shuffled, all, "round {round} is not shuffled");
            // What the planner does: it walks instances by UUID.
            let by_uuid: std::collections::BTreeMap<_, _> = shuffled.iter().copied().collect();
            let ordered: Vec<_> = by_uuid.into_iter().collect();
            assert_eq!(build(&ordered, 42, 2039), want);
        }
    }

    /// The bytes are part of what gateways must agree on: a change of this digest is a change of
    /// every table in the field.
    #[test]
    fn the_table_is_the_same_on_every_machine() {
        let mut weighted = backends(17, 3);
        for (i, (_, weight)) in weighted.iter_mut().enumerate() {
            *weight = 1 + i as u16 * 3;
        }
        let owners = build(&weighted, 0x0123_4567_89ab_cdef, 2039).expect("a table");
        let digest = owners
            .iter()
            .fold(0xcbf2_9ce4_8422_2325_u64, |state, owner| {
                let bytes = owner.to_be_bytes();
                bytes.iter().fold(state, |s, b| {
                    (s ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3)
                })
            });
        assert_eq!(digest, GOLDEN_DIGEST);
    }

    const GOLDEN_DIGEST: u64 = 12_277_051_520_135_565_909;

    fn weighted() -> impl Strategy<Value = Vec<(Uuid, u16)>> {
        prop::collection::btree_map(any::<u128>().prop_map(Uuid::from_u128), 0_u16..2000, 1..40)
            .prop_map(|map| map.into_iter().collect())
    }

    proptest! {
        #[test]
        fn every_share_is_exact_to_one_slot(
            backends in weighted(),
            seed: u64,
            size in 0..4_usize,
        ) {
            let len = LADDER[size];
            let total: u64 = backends.iter().map(|(_, weight)| u64::from(*weight)).sum();
            let Some(owners) = build(&backends, seed, len) else {
                prop_assert_eq!(total, 0);
                return Ok(());
            };
            for ((_, weight), got) in backends.iter().zip(counts(&owners, backends.len())) {
                let exact = f64::from(*weight) * f64::from(len) / total as f64;
                prop_assert!((f64::from(got) - exact).abs() < 1.0, "{got} of exactly {exact}");
            }
        }

        #[test]
        fn history_leaves_no_trace(backends in weighted(), seed: u64, rotate in 0..40_usize) {
            let mut shuffled = backends.clone();
            let by = rotate % shuffled.len();
            shuffled.rotate_left(by);
            shuffled.sort();
            prop_assert_eq!(build(&backends, seed, 509), build(&shuffled, seed, 509));
        }

        /// Weights say shares, so what they have in common says nothing: all instances at 100
        /// have the table that all at 1 have.
        #[test]
        fn only_the_ratio_of_weights_counts(
            backends in prop::collection::btree_map(any::<u128>(), 0..60_u16, 1..40),
            seed: u64,
            factor in 1..1000_u16,
            size in 0..4_usize,
        ) {
            let of = |factor| -> Vec<(Uuid, u16)> {
                backends.iter().map(|(uuid, weight)| (Uuid::from_u128(*uuid), weight * factor))
                    .collect()
            };
            prop_assert_eq!(build(&of(1), seed, LADDER[size]), build(&of(factor), seed, LADDER[size]));
        }

        #[test]
        fn another_seed_gives_another_table(seed: u64) {
            let all = backends(5, 1);
            prop_assert_ne!(build(&all, seed, 509), build(&all, !seed, 509));
        }
    }
}
