//! Floor programs: IPv4 only, no options, no safety nets beyond what the verifier asks for.

use aya_ebpf::helpers::generated::bpf_xdp_adjust_head;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap};
use aya_ebpf::programs::XdpContext;
use lbagent_common::{Addr, Port, Protocol, VipKey, hash};
use network_types::eth::EthHdr;
use network_types::ip::Ipv4Hdr;

use crate::layout;

/// VIP → IPv4 address to encapsulate to, as on the wire.
#[map]
static FLOOR_VIPS: HashMap<VipKey, u32> = HashMap::with_max_entries(1024, 0);
/// Slot → backend.
#[map]
static FLOOR_RING: Array<u32> = Array::with_max_entries(layout::FLOOR_RING_LEN, 0);
/// Backend → IPv4 address, as on the wire.
#[map]
static FLOOR_BACKENDS: Array<u32> = Array::with_max_entries(layout::FLOOR_BACKENDS_LEN, 0);

const ETHERTYPE_IPV4: u16 = 0x0800_u16.to_be();
/// IPv4 in IPv4 (RFC 2003).
const PROTOCOL_IPIP: u8 = 4;
/// Version 4, five words of header; no service class.
const VERSION_AND_CLASS: u16 = 0x4500_u16.to_be();
/// Source of the outer header: 10.255.255.1.
const OUTER_SOURCE: u32 = 0x0aff_ff01_u32.to_be();
/// Any number serves as the seed of a hash that nobody attacks.
const SEED: u64 = 0x5eed;
/// Bytes that the outer header adds.
const OUTER: usize = Ipv4Hdr::LEN;

/// What the floors read of a packet.
struct Flow {
    client: u32,
    client_port: Port,
    vip: VipKey,
    total_len: u16,
}

/// `floor_ref`.
#[inline(always)]
pub fn encapsulate_to_vip(ctx: &XdpContext) -> Option<()> {
    let flow = parse(ctx)?;
    // SAFETY: nobody writes the map while the benchmark runs.
    let destination = *unsafe { FLOOR_VIPS.get(flow.vip) }?;
    encapsulate(ctx, &flow, destination)
}

/// `floor_stateless`.
#[inline(always)]
pub fn encapsulate_to_backend(ctx: &XdpContext) -> Option<()> {
    let flow = parse(ctx)?;
    // SAFETY: as above.
    unsafe { FLOOR_VIPS.get(flow.vip) }?;
    let client = Addr::from_wire_v4(flow.client);
    let VipKey { port, protocol, .. } = flow.vip;
    let hash = hash::flow_hash(SEED, &client, flow.client_port, port, protocol);
    let backend = *FLOOR_RING.get(hash::slot_index(hash, layout::FLOOR_RING_LEN))?;
    encapsulate(ctx, &flow, *FLOOR_BACKENDS.get(backend)?)
}

#[inline(always)]
fn parse(ctx: &XdpContext) -> Option<Flow> {
    const L3: usize = EthHdr::LEN;
    const L4: usize = L3 + Ipv4Hdr::LEN;
    if load::<u16>(ctx, 12)? != ETHERTYPE_IPV4 || load::<u8>(ctx, L3)? != 0x45 {
        return None;
    }
    let destination = Addr::from_wire_v4(load(ctx, L3 + 16)?);
    let destination_port = Port::from_wire(load(ctx, L4 + 2)?);
    Some(Flow {
        client: load(ctx, L3 + 12)?,
        client_port: Port::from_wire(load(ctx, L4)?),
        vip: VipKey::new(destination, destination_port, Protocol(load(ctx, L3 + 9)?)),
        total_len: load(ctx, L3 + 2)?,
    })
}

/// Pushes the outer header and sends the frame back to where it came from.
#[inline(always)]
fn encapsulate(ctx: &XdpContext, flow: &Flow, destination: u32) -> Option<()> {
    // SAFETY: the helper checks that there is room.
    if unsafe { bpf_xdp_adjust_head(ctx.ctx, -(OUTER as i32)) } != 0 {
        return None;
    }
    // The former Ethernet header lies behind the new one; its addresses change places.
    for half in 0..3 {
        let former_destination: u16 = load(ctx, OUTER + half * 2)?;
        let former_source: u16 = load(ctx, OUTER + 6 + half * 2)?;
        store(ctx, half * 2, former_source)?;
        store(ctx, 6 + half * 2, former_destination)?;
    }
    store(ctx, 12, ETHERTYPE_IPV4)?;
    const L3: usize = EthHdr::LEN;
    let total_len = (u16::from_be(flow.total_len) + OUTER as u16).to_be();
    let ttl_and_protocol = u16::from_ne_bytes([64, PROTOCOL_IPIP]);
    let mut sum = u32::from(VERSION_AND_CLASS) + u32::from(total_len) + u32::from(ttl_and_protocol);
    for address in [OUTER_SOURCE, destination] {
        sum += (address & 0xffff) + (address >> 16);
    }
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    store(ctx, L3, VERSION_AND_CLASS)?;
    store(ctx, L3 + 2, total_len)?;
    store(ctx, L3 + 4, 0_u32)?;
    store(ctx, L3 + 8, ttl_and_protocol)?;
    store(ctx, L3 + 10, !(sum as u16))?;
    store(ctx, L3 + 12, OUTER_SOURCE)?;
    store(ctx, L3 + 16, destination)
}

#[inline(always)]
fn at<T>(ctx: &XdpContext, offset: usize) -> Option<*mut T> {
    let pointer = ctx.data() + offset;
    (pointer + size_of::<T>() <= ctx.data_end()).then_some(pointer as *mut T)
}

#[inline(always)]
fn load<T: Copy>(ctx: &XdpContext, offset: usize) -> Option<T> {
    let pointer = at::<T>(ctx, offset)?;
    // SAFETY: `at` checked the bounds; only integers are loaded. The instruction set defines loads
    // at odd addresses, and the verifier refuses them on machines that cannot do them.
    Some(unsafe { pointer.read() })
}

#[inline(always)]
fn store<T: Copy>(ctx: &XdpContext, offset: usize, value: T) -> Option<()> {
    let pointer = at::<T>(ctx, offset)?;
    // SAFETY: as for `load`.
    unsafe { pointer.write(value) };
    Some(())
}
