//! What the plan has to know of terminators.

use std::sync::Arc;

use super::{Condition, Family};

/// The families that a terminator's listening socket is registered for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terminator {
    /// IPv4.
    pub v4: bool,
    /// IPv6.
    pub v6: bool,
}

impl Terminator {
    /// Whether it takes connections to VIPs of this family.
    pub const fn takes(self, family: Family) -> bool {
        match family {
            Family::V4 => self.v4,
            Family::V6 => self.v6,
        }
    }
}

/// What becomes of connections to a port with handlers while no terminator is registered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WithoutTerminator {
    /// The client gets a reset.
    #[default]
    Reset,
    /// Whatever is bound to the port on the host gets them.
    Pass,
}

/// How it is with terminators, for the reconciler.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TerminatorView {
    /// Who takes connections.
    pub takes: Terminator,
    /// Objects that the terminator cannot serve as they were asked for.
    pub faults: Arc<Vec<Condition>>,
}
