//! Counters that each CPU has its own share of.

use aya::Pod;
use lbagent_common::{PacketCounter, TrafficCounter};

/// A counter that adds up over CPUs.
pub trait Sum: Pod + Default {
    /// This counter and another one's share.
    #[must_use]
    fn plus(self, other: &Self) -> Self;
}

impl Sum for u64 {
    fn plus(self, other: &Self) -> Self {
        self + other
    }
}

impl Sum for PacketCounter {
    fn plus(self, other: &Self) -> Self {
        let Self { packets, bytes } = *other;
        Self {
            packets: self.packets + packets,
            bytes: self.bytes + bytes,
        }
    }
}

impl Sum for TrafficCounter {
    fn plus(self, other: &Self) -> Self {
        let Self {
            flows,
            in_packets,
            in_bytes,
            out_packets,
            out_bytes,
        } = *other;
        Self {
            flows: self.flows + flows,
            in_packets: self.in_packets + in_packets,
            in_bytes: self.in_bytes + in_bytes,
            out_packets: self.out_packets + out_packets,
            out_bytes: self.out_bytes + out_bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_add_up_by_field() {
        let one = TrafficCounter {
            flows: 1,
            in_packets: 2,
            in_bytes: 3,
            out_packets: 4,
            out_bytes: 5,
        };
        let sum = [one, one, one]
            .iter()
            .fold(TrafficCounter::default(), |sum, next| sum.plus(next));
        assert_eq!(
            sum,
            TrafficCounter {
                flows: 3,
                in_packets: 6,
                in_bytes: 9,
                out_packets: 12,
                out_bytes: 15
            }
        );
    }
}
