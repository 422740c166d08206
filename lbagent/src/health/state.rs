//! Hysteresis: how often in a row something must happen before it counts.

/// What a check says, after the results so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) is_healthy: bool,
    /// Results in a row that speak against that.
    pub(super) against: u8,
}

impl Tally {
    pub(super) const fn new(is_healthy: bool) -> Self {
        Self {
            is_healthy,
            against: 0,
        }
    }

    /// Takes a result up; tells whether the check says something else now.
    pub(super) fn observe(&mut self, is_success: bool, rise: u8, fall: u8) -> bool {
        if is_success == self.is_healthy {
            self.against = 0;
            return false;
        }
        self.against = self.against.saturating_add(1);
        let needed = if is_success { rise } else { fall };
        if self.against < needed {
            return false;
        }
        *self = Self::new(is_success);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Results as text: `+` a success, `-` a failure; `want` is what the check says after each,
    /// `H` or `U`.
    #[track_caller]
    fn check(is_healthy: bool, (rise, fall): (u8, u8), results: &str, want: &str) {
        let mut tally = Tally::new(is_healthy);
        let said = results.chars().map(|result| {
            let before = tally.is_healthy;
            let changed = tally.observe(result == '+', rise, fall);
            assert_eq!(changed, before != tally.is_healthy);
            if tally.is_healthy { 'H' } else { 'U' }
        });
        assert_eq!(said.collect::<String>(), want, "{results}");
    }

    #[test]
    fn only_results_in_a_row_count() {
        check(true, (2, 3), "---", "HHU");
        check(true, (2, 3), "--+--+--+", "HHHHHHHHH");
        check(true, (2, 3), "---+-+-++", "HHUUUUUUH");
        check(true, (1, 1), "-+-+", "UHUH");
        check(false, (2, 3), "+-++", "UUUH");
        check(
            false,
            (100, 3),
            &"+".repeat(100),
            &format!("{}H", "U".repeat(99)),
        );
        check(
            true,
            (1, 100),
            &"-".repeat(100),
            &format!("{}U", "H".repeat(99)),
        );
    }
}
