//! How a stage ends: onwards with a value, or here with a reason.

use lbagent_common::Outcome;

use crate::apart::Scalar;

/// A packet that goes no further; the reason is what gets counted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Unchanged, to the kernel.
    Pass(Outcome),
    /// Discarded.
    Drop(Outcome),
    /// Turned into an answer to its sender, which leaves by the interface that it came in by.
    Answer(Outcome),
}

/// Where a rewritten packet leaves.
#[derive(Clone, Copy)]
pub enum Egress {
    /// By the interface that it came in by, with the tag of this VLAN; 0 for none.
    Transmit {
        /// The VLAN.
        vlan: u32,
    },
    /// By the interface with this index, likewise.
    Redirect {
        /// The interface.
        ifindex: u32,
        /// The VLAN.
        vlan: u32,
    },
    /// By the interface with this index, whose next hop the kernel has to resolve first.
    Resolve(u32),
}

/// How a packet ended, as one number: what functions with a stack frame of their own return.
/// Larger values would travel through memory, padding included, which the verifier refuses to load
/// where a pointer was stored before.
#[derive(Clone, Copy)]
pub struct Packed(u64);

/// Where the VLAN is in [`Packed`]: above the kind of end.
const VLAN_SHIFT: u32 = 40;
const VLAN_MASK: u32 = 0x0fff;

impl Packed {
    /// Not ended yet.
    pub const ONWARDS: Self = Self(0);
    /// The stage has nothing to do with the packet.
    pub const NOTHING: Self = Self(u64::MAX);
    const RETURNING: u64 = 1 << 63;

    /// Whether this is [`NOTHING`](Self::NOTHING).
    #[inline(always)]
    pub fn is_nothing(self) -> bool {
        self.0 == Self::NOTHING.0
    }

    /// Of a packet on its way back to a client.
    #[inline(always)]
    pub fn returning(self) -> Self {
        Self(self.0 | Self::RETURNING)
    }

    /// Which way it went.
    #[inline(always)]
    pub fn direction(self) -> Direction {
        if self.0 & Self::RETURNING != 0 {
            Direction::Return
        } else {
            Direction::Forward
        }
    }

    /// Whether the packet was sent.
    #[inline(always)]
    pub fn is_sent(self) -> bool {
        matches!(self.result(), Some(Ok(_)))
    }

    /// Ended with a packet that passes.
    pub const fn passed(outcome: Outcome) -> Self {
        Self(4 << 32 | outcome as u64)
    }

    /// Whether the packet is left to the kernel.
    #[inline(always)]
    pub fn is_passed(self) -> bool {
        matches!(self.result(), Some(Err(Stop::Pass(_))))
    }

    /// Taken, and not answered.
    #[inline(always)]
    pub const fn absorbed() -> Self {
        Self::dropped(Outcome::AbsorbAck)
    }

    /// Discarded.
    pub const fn dropped(outcome: Outcome) -> Self {
        Self(5 << 32 | outcome as u64)
    }

    /// From a result.
    #[inline(always)]
    pub fn new(result: Result<Egress, Stop>) -> Self {
        let (kind, vlan, value) = match result {
            Ok(Egress::Transmit { vlan }) => (1, vlan, 0),
            Ok(Egress::Redirect { ifindex, vlan }) => (2, vlan, ifindex),
            Ok(Egress::Resolve(ifindex)) => (3, 0, ifindex),
            Err(Stop::Pass(outcome)) => (4, 0, outcome as u32),
            Err(Stop::Drop(outcome)) => (5, 0, outcome as u32),
            Err(Stop::Answer(outcome)) => (6, 0, outcome as u32),
        };
        Self(u64::from(vlan) << VLAN_SHIFT | kind << 32 | u64::from(value))
    }

    /// The reason why a packet goes no further, if there is one: for stages that send nothing.
    #[inline(always)]
    pub fn onwards(self) -> Result<(), Stop> {
        match self.result() {
            Some(Err(stop)) => Err(stop),
            Some(Ok(_)) | None => Ok(()),
        }
    }

    /// The result; `None` where the packet goes on.
    #[inline(always)]
    pub fn result(self) -> Option<Result<Egress, Stop>> {
        let value = self.0 as u32;
        let outcome = || Outcome::from_index(value).unwrap_or(Outcome::DropNotConfigured);
        let vlan = (self.0 >> VLAN_SHIFT) as u32 & VLAN_MASK;
        Some(match self.0 >> 32 & 0xff {
            0 => return None,
            1 => Ok(Egress::Transmit { vlan }),
            2 => Ok(Egress::Redirect {
                ifindex: value,
                vlan,
            }),
            3 => Ok(Egress::Resolve(value)),
            4 => Err(Stop::Pass(outcome())),
            6 => Err(Stop::Answer(outcome())),
            _ => Err(Stop::Drop(outcome())),
        })
    }
}

impl Scalar for Packed {
    const NONE: Self = Self::dropped(Outcome::DropNotConfigured);

    #[inline(always)]
    fn number(self) -> u64 {
        self.0
    }

    #[inline(always)]
    fn from_number(number: u64) -> Self {
        Self(number)
    }
}

/// Which way a packet from the backend side goes.
#[derive(Clone, Copy)]
pub enum Direction {
    /// To another backend, through a VIP.
    Forward,
    /// Back to a client.
    Return,
}

impl Direction {
    /// Counted when the packet left with a known link address.
    #[inline(always)]
    pub fn redirected(self) -> Outcome {
        match self {
            Self::Forward => Outcome::ForwardRedirect,
            Self::Return => Outcome::ReturnRedirect,
        }
    }

    /// Counted when the kernel has to resolve the link address.
    #[inline(always)]
    pub fn resolved(self) -> Outcome {
        match self {
            Self::Forward => Outcome::ForwardKernel,
            Self::Return => Outcome::ReturnKernel,
        }
    }
}
