//! `ANSWERS`: how many packets the programs may still answer themselves.

/// What one CPU may answer in the current tick. Size 8, alignment 4.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AnswerBudget {
    /// The tick that `used` counts in.
    pub tick: u32,
    /// Packets answered in it.
    pub used: u32,
}
