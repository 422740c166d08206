//! `SOURCES`: which clients a service group admits.

use crate::Addr;

/// A source prefix of one policy, as an LPM trie compares it. Size 24, alignment 4.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceKey {
    /// Significant bits of what follows: [`POLICY_BITS`](Self::POLICY_BITS) and the prefix of the
    /// address's mapped form.
    pub prefix_len: u32,
    /// [`crate::VipEntry::policy_id`], in network byte order as a trie compares it.
    policy_id: u32,
    /// First address of the prefix.
    pub addr: Addr,
}

impl SourceKey {
    /// Bits of the policy's id.
    pub const POLICY_BITS: u32 = 32;

    /// A prefix of `prefix_len` bits (of 128, so 96 + n for an IPv4 prefix of n).
    #[inline(always)]
    pub const fn new(policy_id: u32, addr: Addr, prefix_len: u8) -> Self {
        Self {
            prefix_len: Self::POLICY_BITS + prefix_len as u32,
            policy_id: policy_id.to_be(),
            addr,
        }
    }

    /// From a prefix length and [`data`](Self::data).
    #[inline(always)]
    pub const fn from_parts(prefix_len: u32, data: [u32; 5]) -> Self {
        let [policy_id, a, b, c, d] = data;
        Self {
            prefix_len,
            policy_id,
            addr: Addr::from_wire([a, b, c, d]),
        }
    }

    /// What follows the prefix length.
    #[inline(always)]
    pub const fn data(&self) -> [u32; 5] {
        let [a, b, c, d] = self.addr.wire();
        [self.policy_id, a, b, c, d]
    }

    /// The policy's id.
    #[inline(always)]
    pub const fn policy_id(&self) -> u32 {
        u32::from_be(self.policy_id)
    }
}

/// What becomes of packets from a prefix. Size 4, alignment 4.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SourceEntry {
    /// [`ALLOW`](Self::ALLOW) or [`DENY`](Self::DENY).
    pub verdict: u32,
}

impl SourceEntry {
    /// Admitted.
    pub const ALLOW: u32 = 0;
    /// Dropped.
    pub const DENY: u32 = 1;
}
