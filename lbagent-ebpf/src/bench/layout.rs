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
/// Words of headers in an IPv4 frame: Ethernet 14, IPv4 20, TCP 20 bytes, and ten more, where a SYN
/// has its MSS.
pub const FRAME_WORDS_V4: usize = 8;
/// Words of headers in an IPv6 frame: Ethernet 14, IPv6 40, TCP 20 bytes, and six more, likewise.
pub const FRAME_WORDS_V6: usize = 10;

/// Words in the only entry of `WHOLE`: a frame that is restored to its end, a power of two.
pub const WHOLE_WORDS: usize = 128;

/// Entries of `TARGETS`, the programs that can be measured.
pub const TARGET_COUNT: u32 = 8;

/// Slots in `FLOOR_RING`, the table of `floor_stateless`.
pub const FLOOR_RING_LEN: u32 = 65_537;
/// Entries of `FLOOR_BACKENDS`, the backends of `floor_stateless`.
pub const FLOOR_BACKENDS_LEN: u32 = 128;

/// Words in the only entry of `LIVE_FRAME`: what the generator of live frames sends.
pub const LIVE_WORDS: usize = 9;
/// Word: sum of the 16-bit words of the IP header, as on the wire, checksum taken as zero.
pub const LIVE_IP_SUM: usize = 0;
/// Word: the same of the TCP pseudo-header and segment.
pub const LIVE_TCP_SUM: usize = 1;
/// First word of the headers; the source port and the two low bytes of the source address are zero.
pub const LIVE_HEADERS: usize = 2;
/// The number of flows less one.
pub const LIVE_FLOW_MASK: u32 = 0xffff;
/// Source ports are this or above. Flows that differ only in this bit of the scattered port differ
/// in the scattered address, because the multiplier's upper half is odd.
pub const LIVE_PORT_FIRST: u16 = 0x8000;

/// Entries of `LIVE_ARRIVED`.
pub const ARRIVED_LEN: u32 = 257;
/// Entry for frames that are not as expected.
pub const ARRIVED_OTHER: u32 = 256;

/// Words in the only entry of `LIVE_EXPECTED`.
pub const EXPECTED_WORDS: usize = 3;
/// Word: IP protocol of the outermost header.
pub const EXPECTED_PROTOCOL: usize = 0;
/// Word: outermost destination address as on the wire, masked.
pub const EXPECTED_DESTINATION: usize = 1;
/// Word: the mask.
pub const EXPECTED_MASK: usize = 2;
