//! How a stage ends: onwards with a value, or here with a reason.

use lbagent_common::Outcome;

/// A packet that goes no further; the reason is what gets counted.
#[derive(Clone, Copy)]
pub enum Stop {
    /// Unchanged, to the kernel.
    Pass(Outcome),
    /// Discarded.
    Drop(Outcome),
}

/// Where a rewritten packet leaves.
#[derive(Clone, Copy)]
pub enum Egress {
    /// By the interface that it came in by.
    Transmit,
    /// By the interface with this index.
    Redirect(u32),
    /// By the interface with this index, whose next hop the kernel has to resolve first.
    Resolve(u32),
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
