//! The keyed flow hash, the same on every gateway and architecture.

use crate::{Addr, Port, Protocol};

/// Odd constants of splitmix64 (Steele, Lea, Flood: Fast splittable pseudorandom number
/// generators, OOPSLA 2014).
const MIX_1: u64 = 0xbf58_476d_1ce4_e5b9;
const MIX_2: u64 = 0x94d0_49bb_1331_11eb;

#[inline(always)]
const fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(MIX_1);
    let value = (value ^ (value >> 27)).wrapping_mul(MIX_2);
    value ^ (value >> 31)
}

/// Hash of a client's flow to a VIP port. The VIP's address is left out on purpose: a group
/// reached through two VIP addresses of one family keeps a client port on one backend.
#[inline(always)]
pub const fn flow_hash(
    seed: u64,
    client: &Addr,
    client_port: Port,
    vip_port: Port,
    protocol: Protocol,
) -> u64 {
    let (high, low) = client.halves();
    let ports = (client_port.get() as u64) << 32 | (vip_port.get() as u64) << 8 | protocol.0 as u64;
    let hash = mix(seed ^ low);
    let hash = mix(hash ^ high.rotate_left(32) ^ ports.wrapping_mul(MIX_2));
    mix(hash.wrapping_add(seed))
}

/// The `attempt`th port, from 1 on, that a rewritten source may get: an index below `count`, which
/// follows from the flow alone.
#[inline(always)]
pub const fn source_port_index(
    client: &Addr,
    client_port: Port,
    vip_id: u32,
    attempt: u32,
    count: u32,
) -> u32 {
    let [a, b, c, d] = client.wire();
    let mixed = (a ^ b ^ c ^ d)
        .wrapping_add((client_port.get() as u32).wrapping_mul(0x9e37_79b1))
        .wrapping_add(vip_id)
        .wrapping_mul(0x85eb_ca6b);
    // Lemire's multiplication instead of a division: the count is not known to be non-zero here.
    let index = ((mixed as u64 * count as u64) >> 32) as u32 + attempt;
    if index >= count {
        index.wrapping_sub(count)
    } else {
        index
    }
}

/// Index of a hash's slot in a table of `len` slots, by multiplication instead of division
/// (Lemire, Fast random integer generation in an interval, 2019). `len` 0 gives 0.
#[inline(always)]
pub const fn slot_index(hash: u64, len: u32) -> u32 {
    (((hash >> 32) * len as u64) >> 32) as u32
}
