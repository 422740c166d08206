//! Packets that the programs answer themselves: the frame becomes its own answer and leaves by the
//! interface that it came in by.

pub mod echo;
pub mod too_big;

use crate::packet::Context;

/// Makes sender and receiver of the frame, whose Ethernet header lies at an offset, change places in
/// the one at its front.
#[inline(always)]
fn turn_around<C: Context>(ctx: &C, offset: usize) -> Option<()> {
    let [a, b, c, d, e, f]: [u16; 6] = ctx.load(offset)?;
    ctx.store(0, [d, e, f, a, b, c])
}
