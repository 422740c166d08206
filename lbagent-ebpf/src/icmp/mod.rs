//! ICMP that concerns VIPs: errors about packets of balanced flows go to whoever sent the packet,
//! echo requests are answered.
//!
//! None of this is on the way of ordinary packets. The stages keep what they know in a [`Work`] of
//! their CPU instead of on the stack, of which the stages above leave too little.

mod error;
mod message;
mod quote;
mod rewrite;

use lbagent_common::{Addr, BackendId, NatFlowKey, Outcome, Port, VipKey};

pub use self::error::to_client;
use self::message::Message;
use crate::answer::echo;
use crate::kernel::Hop;
use crate::maps;
use crate::outcome::{Packed, Stop};
use crate::packet::{Context, Packet};

/// What the stages know of an ICMP message. Integers only: it begins as zeros.
pub struct Work {
    /// The message itself; its transport header is the ICMP header.
    pub message: Packet,
    /// The flow of the quoted packet, as the receiver of that packet answers it: source and
    /// destination have changed places.
    pub flow: Packet,
    /// Offset of the quoted packet from the Ethernet header.
    quote_offset: u32,
    /// Offset of the quoted transport header.
    quoted_l4_offset: u32,
    /// Offset of the quoted transport checksum, 0 where the quote ends before it.
    quoted_check_offset: u32,
    /// Whether an error waits for [`to_client`].
    is_return: u32,
    /// The addresses that the message gets.
    source: Addr,
    destination: Addr,
    /// The addresses and ports that the quoted packet gets.
    quoted_source: Addr,
    quoted_destination: Addr,
    quoted_source_port: Port,
    quoted_destination_port: Port,
    /// Index into `VIP_COUNTERS`.
    vip_id: u32,
    backend: BackendId,
    hop: Hop,
    /// Where a stored flow is looked for.
    key: NatFlowKey,
}

/// Handles what is for a VIP's address: errors about its replies go to the backend that sent them.
/// [`Packed::ONWARDS`] for everything else, which is untouched then.
#[inline(always)]
pub fn to_vip<C: Context>(ctx: &C) -> Packed {
    const PASS: Stop = Stop::Pass(Outcome::PassIcmp);
    let Some(work) = maps::icmp_work() else {
        return Packed::new(Err(Stop::Drop(Outcome::DropNotConfigured)));
    };
    work.is_return = 0;
    let message = message::read(ctx, work);
    if message == Message::Foreign {
        return Packed::ONWARDS;
    }
    let is_vip = is_vip_address(work) != 0;
    match message {
        // On the backend side the kernel answers.
        Message::Echo if is_vip && C::REDIRECTS_BY_XDP => echo::answer(ctx, &work.message),
        Message::Error if quote::read(ctx, work) != 0 => {
            if is_vip {
                error::to_backend(ctx, work)
            } else {
                work.is_return = 1;
                Packed::ONWARDS
            }
        }
        _ if is_vip => Packed::new(Err(PASS)),
        _ => Packed::ONWARDS,
    }
}

#[inline(never)]
fn is_vip_address(work: &Work) -> u32 {
    u32::from(maps::vip(&VipKey::address(work.message.destination)).is_some())
}

/// Offsets as the verifier wants them: with a bound, which numbers that come out of memory have not.
impl Work {
    #[inline(always)]
    fn icmp_offset(&self) -> usize {
        self.message.l4_offset() & 0x7f
    }

    #[inline(always)]
    fn quote_offset(&self) -> usize {
        self.quote_offset as usize & 0x7f
    }

    #[inline(always)]
    fn quoted_l4_offset(&self) -> usize {
        self.quoted_l4_offset as usize & 0xff
    }

    #[inline(always)]
    fn quoted_check_offset(&self) -> usize {
        self.quoted_check_offset as usize & 0xff
    }
}
