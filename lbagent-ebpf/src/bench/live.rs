//! Generator and sink of `cargo xtask bench traffic`: frames that really travel through devices.
//!
//! The generator is run with `BPF_F_TEST_XDP_LIVE_FRAMES`: what it answers with `XDP_TX` leaves the
//! device that the run is made for. The kernel uses a frame again once it is free, as whoever had
//! it left it, so the generator writes the headers anew, with right checksums: the kernel's own
//! forwarding looks at them.

use aya_ebpf::bindings::xdp_action;
use aya_ebpf::helpers::generated::bpf_redirect;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, PerCpuArray};
use aya_ebpf::programs::XdpContext;

use crate::layout;

/// The headers to send.
#[map]
static LIVE_FRAME: Array<[u64; layout::LIVE_WORDS]> = Array::with_max_entries(1, 0);
/// Frames generated so far.
#[map]
static LIVE_SENT: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);
/// Frames that arrived, by the last byte of the link address that they were sent to, and in the
/// last entry those that are not as expected.
#[map]
static LIVE_ARRIVED: PerCpuArray<u64> = PerCpuArray::with_max_entries(layout::ARRIVED_LEN, 0);
/// Where `live_forward` sends frames: an interface's index.
#[map]
static LIVE_NEXT: Array<u32> = Array::with_max_entries(1, 0);
/// What the sink expects to see.
#[map]
static LIVE_EXPECTED: Array<[u64; layout::EXPECTED_WORDS]> = Array::with_max_entries(1, 0);

/// An odd number (2^32 over the golden ratio), see `harness`.
const SCATTER: u32 = 0x9e37_79b1;
/// Offsets in an Ethernet frame with IPv4 and TCP, without options.
const PROTOCOL: usize = 23;
const IP_CHECKSUM: usize = 24;
const SOURCE_LOW: usize = 28;
const DESTINATION: usize = 30;
const SOURCE_PORT: usize = 34;
const TCP_CHECKSUM: usize = 50;

/// Writes the headers of one of the flows. The template's checksums are right for the flow whose
/// two fields are zero.
#[inline(always)]
pub fn generate(ctx: &XdpContext) -> Option<()> {
    let words = LIVE_FRAME.get(0)?;
    let sent = LIVE_SENT.get_ptr_mut(0)?;
    // SAFETY: the value is this CPU's own, and the runner starts one test run at a time.
    let number = unsafe {
        *sent = (*sent).wrapping_add(1);
        *sent
    };
    let scattered = (number as u32 & layout::LIVE_FLOW_MASK).wrapping_mul(SCATTER);
    let address = (scattered >> 16) as u16;
    // Ephemeral ports only. Both halves of the range differ in the address, see `layout`.
    let port = scattered as u16 | layout::LIVE_PORT_FIRST;
    let (start, end) = (ctx.data(), ctx.data_end());
    const HEADERS: usize = (layout::LIVE_WORDS - layout::LIVE_HEADERS) * size_of::<u64>();
    if start + HEADERS > end {
        return None;
    }
    for index in 0..layout::LIVE_WORDS - layout::LIVE_HEADERS {
        // SAFETY: `end` was checked above for all words; the instruction set defines stores at odd
        // addresses, and the verifier refuses them on machines that cannot do them.
        unsafe {
            (start as *mut u64)
                .add(index)
                .write(words[layout::LIVE_HEADERS + index])
        };
    }
    let ip = words[layout::LIVE_IP_SUM] as u32 + u32::from(address.to_be());
    let tcp =
        words[layout::LIVE_TCP_SUM] as u32 + u32::from(address.to_be()) + u32::from(port.to_be());
    for (offset, value) in [
        (SOURCE_LOW, address.to_be()),
        (SOURCE_PORT, port.to_be()),
        (IP_CHECKSUM, checksum(ip)),
        (TCP_CHECKSUM, checksum(tcp)),
    ] {
        // SAFETY: all four offsets lie within `HEADERS`, which was checked against the end.
        unsafe { ((start + offset) as *mut u16).write(value) };
    }
    Some(())
}

/// Folds a sum of 16-bit words as on the wire; the sum is below 2^18.
#[inline(always)]
fn checksum(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    !(sum as u16)
}

/// Sends a frame on as it is.
#[inline(always)]
pub fn forward() -> Option<u32> {
    let ifindex = *LIVE_NEXT.get(0)?;
    // SAFETY: takes numbers only.
    Some(unsafe { bpf_redirect(ifindex, 0) } as u32)
}

/// Counts a frame and drops it. What is not IPv4 is none of the generator's and passes.
#[inline(always)]
pub fn count(ctx: &XdpContext) -> Option<u32> {
    let (start, end) = (ctx.data(), ctx.data_end());
    if start + SOURCE_PORT > end {
        return Some(xdp_action::XDP_PASS);
    }
    let expected = LIVE_EXPECTED.get(0)?;
    // SAFETY: `end` was checked above, and the last of these bytes is the one before
    // `SOURCE_PORT`. Unaligned loads are as for the stores of the generator.
    let (ethertype, protocol, destination, station) = unsafe {
        (
            ((start + 12) as *const u16).read(),
            ((start + PROTOCOL) as *const u8).read(),
            ((start + DESTINATION) as *const u32).read(),
            ((start + 5) as *const u8).read(),
        )
    };
    if ethertype != 0x0800_u16.to_be() {
        return Some(xdp_action::XDP_PASS);
    }
    let right = u64::from(protocol) == expected[layout::EXPECTED_PROTOCOL]
        && destination & expected[layout::EXPECTED_MASK] as u32
            == expected[layout::EXPECTED_DESTINATION] as u32;
    let index = if right {
        u32::from(station)
    } else {
        layout::ARRIVED_OTHER
    };
    let arrived = LIVE_ARRIVED.get_ptr_mut(index)?;
    // SAFETY: the value is this CPU's own.
    unsafe { *arrived += 1 };
    Some(xdp_action::XDP_DROP)
}
