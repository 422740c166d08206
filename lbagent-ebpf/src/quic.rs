//! Stage 3, for QUIC: the backend that chose a packet's connection id.
//!
//! A client may change its address in the middle of a connection (RFC 9000, section 9), and the
//! flow hash with it. The connection id stays the server's choice, and where servers write their
//! server id into it (draft-ietf-quic-load-balancers, section 4: the plaintext algorithm), the
//! packet finds its way. What has no server id that is known, such as a client's first packet,
//! follows its flow hash.

use lbagent_common::{BackendEntry, BackendId, MAX_SERVER_ID, Protocol, QuicServerKey, VipEntry};
use network_types::udp::UdpHdr;

use crate::maps;
use crate::packet::{Context, Packet};

/// First bit: a long header (RFC 9000, section 17.2).
const LONG_HEADER: u8 = 0x80;
/// Offset of a long header's connection id: flags, version, length of the id.
const LONG_ID_OFFSET: usize = 6;
/// Offset of a short header's connection id: flags.
const SHORT_ID_OFFSET: usize = 1;
/// The connection id's first byte and the longest server id.
const ID_LEN: usize = MAX_SERVER_ID + 1;
/// Of the connection id's first byte, the bits that name the configuration.
const ROTATION_SHIFT: u8 = 5;

/// The living backend that chose the packet's connection id; 0 for none.
#[inline(always)]
pub fn select_server<C: Context>(ctx: &C, packet: &Packet, vip: &VipEntry) -> BackendId {
    if vip.quic_server_id_len == 0 || packet.protocol != Protocol::UDP {
        return 0;
    }
    ctx.quic_server(packet, vip)
}

/// [`select_server`] of a group with server ids.
#[inline(always)]
pub fn server<C: Context>(ctx: &C, packet: &Packet, vip: &VipEntry) -> BackendId {
    let len = vip.quic_server_id_len;
    match server_id(ctx, packet.l4_offset(), len, vip.quic_config_rotation) {
        Some(id) => {
            let key = QuicServerKey {
                policy_id: vip.policy_id,
                len,
                id,
            };
            maps::quic_server(&key)
                .filter(|id| maps::backend(*id).is_some_and(|backend| serves(backend, vip)))
                .unwrap_or(0)
        }
        None => 0,
    }
}

#[inline(always)]
fn serves(backend: &BackendEntry, vip: &VipEntry) -> bool {
    backend.is_alive() && backend.group_tag == vip.group_tag
}

/// The server id in the connection id, then zeros.
#[inline(always)]
fn server_id<C: Context>(
    ctx: &C,
    l4_offset: usize,
    len: u8,
    rotation: u8,
) -> Option<[u8; MAX_SERVER_ID]> {
    // A packet with a server id is not shorter: its connection id of two bytes or more is followed
    // by at least 20 (RFC 9001, section 5.4.2).
    let header: [u8; LONG_ID_OFFSET + ID_LEN] = ctx.load(l4_offset + UdpHdr::LEN)?;
    let is_long = header[0] & LONG_HEADER != 0;
    if is_long && header[LONG_ID_OFFSET - 1] <= len {
        return None;
    }
    let mut id = [0; ID_LEN];
    let mut index = 0;
    while index < ID_LEN {
        id[index] = if is_long {
            header[LONG_ID_OFFSET + index]
        } else {
            header[SHORT_ID_OFFSET + index]
        };
        index += 1;
    }
    if id[0] >> ROTATION_SHIFT != rotation {
        return None;
    }
    let mut server = [0; MAX_SERVER_ID];
    let mut index = 0;
    while index < MAX_SERVER_ID {
        if index < usize::from(len) {
            server[index] = id[index + 1];
        }
        index += 1;
    }
    Some(server)
}
