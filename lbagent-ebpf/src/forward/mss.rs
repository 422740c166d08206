//! The MSS in clients' SYNs to encapsulated services, lowered to what fits in the outer packet.
//!
//! It bounds what the backend sends, and what some stacks send to a peer that states less than they
//! do. What bounds the client's segments is the MSS of the SYN-ACK, which does not pass the gateway:
//! `lbagent decap` lowers that one at the backend.

use lbagent_common::checksum::Difference;

use crate::packet::Context;

/// Transport headers lie below this offset.
const OFFSET_MASK: usize = 0x1ff;
/// Offset of the data offset in a TCP header (RFC 9293, section 3.1).
const DATA_OFFSET: usize = 12;
const TCP_LEN: usize = 20;
/// A TCP header has room for this many bytes of options.
const OPTIONS_LEN: usize = 40;
/// Option kinds and a length (RFC 9293, section 3.2).
const OPTION_END: u8 = 0;
const OPTION_NOTHING: u8 = 1;
const OPTION_MSS: u8 = 2;
const OPTION_MSS_LEN: u8 = 4;

/// Lowers the MSS option of a SYN, whose TCP header lies at `tcp`, to `limit`, if it has one that
/// is larger; 0 where nothing was changed.
#[inline(always)]
pub fn lower<C: Context>(ctx: &C, tcp: u32, limit: u32) -> u32 {
    u32::from(lower_option(ctx, tcp, limit).is_some())
}

#[inline(always)]
fn lower_option<C: Context>(ctx: &C, tcp: u32, limit: u32) -> Option<()> {
    // Masked, because Linux 6.1 forgets what a comparison told about a value that lies on the stack;
    // and hidden from the compiler, which would mask one half of the register and use the other.
    let tcp = core::hint::black_box(tcp as usize) & OFFSET_MASK;
    let [words, _]: [u8; 2] = ctx.load(tcp + DATA_OFFSET)?;
    let options_len = (usize::from(words >> 4) * 4).checked_sub(TCP_LEN)?;
    // Byte by byte instead of option by option: so every turn of the loop has the same few states
    // for the verifier. The bound is hidden from the compiler, which would write the loop out.
    let mut skip = 0_u8;
    let mut index = 0;
    while index < core::hint::black_box(OPTIONS_LEN) && index + 4 <= options_len {
        // Hidden as well: the compiler would count from the option's end, and address it with
        // negative offsets, which the verifier takes for accesses outside of the packet.
        let offset = core::hint::black_box(tcp + TCP_LEN + index);
        index += 1;
        if skip > 0 {
            skip -= 1;
            continue;
        }
        let [kind, len]: [u8; 2] = ctx.load(offset)?;
        match kind {
            OPTION_END => return None,
            OPTION_NOTHING => {}
            OPTION_MSS if len == OPTION_MSS_LEN => {
                let old: u16 = ctx.load(offset + 2)?;
                if u32::from(u16::from_be(old)) <= limit {
                    return None;
                }
                let new = (limit as u16).to_be();
                ctx.store(offset + 2, new)?;
                // A word at an odd place counts with its bytes swapped; `index` is one ahead.
                let is_odd = index % 2 == 0;
                let word = |value: u16| if is_odd { value.swap_bytes() } else { value };
                let difference = Difference::NONE.half(word(old), word(new));
                return ctx.update_tcp_checksum(tcp, difference);
            }
            _ if len < 2 => return None,
            _ => skip = len - 1,
        }
    }
    None
}
