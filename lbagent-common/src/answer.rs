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

impl AnswerBudget {
    /// Takes one in tick `now`, of so many; whether there was one left.
    #[inline(always)]
    pub const fn take(&mut self, now: u32, per_tick: u32) -> bool {
        if self.tick != now {
            self.tick = now;
            self.used = 0;
        }
        let is_left = self.used < per_tick;
        self.used = self.used.saturating_add(1);
        is_left
    }
}
