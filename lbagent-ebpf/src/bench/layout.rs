//! What the benchmark's runner and its programs agree on. The runner includes this file by path.

/// Words in the only entry of the map `CASE`: the case being measured.
pub const CASE_WORDS: usize = 16;
/// Word: index into `TARGETS` of the program under test.
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

/// Entries of `TARGETS`, the programs that can be measured.
pub const TARGET_COUNT: u32 = 8;

/// Slots in `FLOOR_RING`, the table of `floor_stateless`.
pub const FLOOR_RING_LEN: u32 = 65_537;
/// Entries of `FLOOR_BACKENDS`, the backends of `floor_stateless`.
pub const FLOOR_BACKENDS_LEN: u32 = 128;
