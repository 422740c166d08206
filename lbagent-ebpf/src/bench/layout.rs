//! What the benchmark's runner and its programs agree on. The runner includes this file by path.

/// Words in [`CASE`]'s only entry.
pub const CASE_WORDS: usize = 16;
/// Word: index into [`TARGETS`] of the program under test.
pub const TARGET: usize = 0;
/// Word: length of the frame in bytes.
pub const LENGTH: usize = 1;
/// Word: the number of flows less one; a power of two less one.
pub const FLOW_MASK: usize = 2;
/// Word: how far the generator's state is shifted to give the flow: 32 for its random upper half,
/// 0 for its lower half, which does not repeat within 2^32 packets.
pub const FLOW_SHIFT: usize = 3;
/// First word of the frame's headers.
pub const FRAME: usize = 4;
/// Words of headers in an IPv4 frame: Ethernet 14, IPv4 20, TCP 20 bytes, and two more.
pub const FRAME_WORDS_V4: usize = 7;
/// Words of headers in an IPv6 frame: Ethernet 14, IPv6 40, TCP 20 bytes, and six more.
pub const FRAME_WORDS_V6: usize = 10;

/// The case being measured (ARRAY of one entry).
pub const CASE: &str = "CASE";
/// The programs that can be measured (PROG_ARRAY).
pub const TARGETS: &str = "TARGETS";
/// Entries of `TARGETS`.
pub const TARGET_COUNT: u32 = 8;

/// VIPs of the floor programs ([`lbagent_common::VipKey`] → IPv4 address as on the wire, HASH).
pub const FLOOR_VIPS: &str = "FLOOR_VIPS";
/// Table of `floor_stateless`: slot → backend (`u32`, ARRAY).
pub const FLOOR_RING: &str = "FLOOR_RING";
/// Slots in the table.
pub const FLOOR_RING_LEN: u32 = 65_537;
/// Backends of `floor_stateless`: IPv4 address as on the wire (`u32`, ARRAY).
pub const FLOOR_BACKENDS: &str = "FLOOR_BACKENDS";
/// Entries of `FLOOR_BACKENDS`.
pub const FLOOR_BACKENDS_LEN: u32 = 128;
