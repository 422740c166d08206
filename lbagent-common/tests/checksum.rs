//! Incremental checksums against a full recompute.

use lbagent_common::checksum::Difference;
use proptest::prelude::*;

/// RFC 1071: the one's complement of the one's-complement sum of all 16-bit words.
fn full(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(u16::from_be_bytes([
            pair[0],
            pair.get(1).copied().unwrap_or(0),
        ]));
    }
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn half(bytes: &[u8], at: usize) -> u16 {
    u16::from_ne_bytes(bytes[at..at + 2].try_into().unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    /// Words at any aligned place, 16-bit and 32-bit replacements mixed, as NAT does them.
    #[test]
    fn equals_a_full_recompute(
        mut bytes in prop::collection::vec(any::<u8>(), 40..=64),
        words in prop::collection::vec((0usize..8, any::<u32>()), 0..6),
        halves in prop::collection::vec((16usize..20, any::<u16>()), 0..4),
    ) {
        let old = full(&bytes);
        let mut difference = Difference::NONE;
        for (index, new) in words {
            difference = difference.word(word(&bytes, index * 4), new);
            bytes[index * 4..index * 4 + 4].copy_from_slice(&new.to_ne_bytes());
        }
        for (index, new) in halves {
            difference = difference.half(half(&bytes, index * 2), new);
            bytes[index * 2..index * 2 + 2].copy_from_slice(&new.to_ne_bytes());
        }
        let updated = u16::from_be(difference.apply(old.to_be()));
        // 0x0000 and 0xffff are the same number; only an all-zero packet makes the difference.
        let expected = full(&bytes);
        prop_assert!(
            updated == expected || (updated == 0xffff && expected == 0)
                || (updated == 0 && expected == 0xffff),
            "{updated:04x} {expected:04x}"
        );
        prop_assert!(bytes.iter().all(|byte| *byte == 0) || updated == expected);
    }

    /// What the kernel's helper folds gives the same checksum.
    #[test]
    fn wsum_is_the_same_sum(old in any::<[u32; 5]>(), new in any::<[u32; 5]>(), check in any::<u16>()) {
        let difference = old.iter().zip(&new).fold(Difference::NONE, |sum, (a, b)| sum.word(*a, *b));
        let mut sum = u64::from(difference.wsum()) + u64::from(!check);
        while sum >> 16 != 0 {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        prop_assert_eq!(difference.apply(check), !(sum as u16));
    }
}
