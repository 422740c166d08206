//! What the programs may do only while the agent says so, again and again: settings that no plan asks for.

use lbagent_common::Settings;

use super::kernel::{KernelDataplane, Surroundings};
use super::read::tick;
use super::{DataplaneError, Sampling, cookies};

/// How long the programs go on using next hops without hearing from the agent, in ticks of 2^30 ns:
/// 30 s. Later they ask the routing table for each packet. As long they answer SYNs with cookies.
const LEASE_TICKS: u32 = 28;

/// The part of [`Settings`] that changes while nothing is asked for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Running {
    next_hops_until: u32,
    cookies_until: [u32; 2],
    sample_shift: u32,
    sample_until: u32,
    sample_outcomes: u64,
}

impl Running {
    /// Where nobody but the caller says how addresses are reached, and until when.
    pub(super) fn unattended() -> Self {
        Self {
            next_hops_until: u32::MAX,
            cookies_until: [u32::MAX; 2],
            ..Self::default()
        }
    }

    /// A plan's settings with this part.
    pub(super) const fn within(self, settings: &Settings) -> Settings {
        let Self {
            next_hops_until,
            cookies_until,
            sample_shift,
            sample_until,
            sample_outcomes,
        } = self;
        Settings {
            next_hops_until,
            cookies_until,
            sample_shift,
            sample_until,
            sample_outcomes,
            ..*settings
        }
    }
}

impl KernelDataplane {
    /// Lets the programs go on using next hops.
    pub(super) fn renew_next_hops(&mut self) -> Result<(), DataplaneError> {
        let Surroundings::Host(host) = &self.surroundings else {
            return Ok(());
        };
        if !host.is_followed() {
            return Ok(());
        }
        let settings = &mut self.loaded.maps.settings;
        let current = settings.get(0)?;
        // An entry that was never written says nothing yet.
        if current.abi_version == 0 {
            return Ok(());
        }
        self.running.next_hops_until = tick().saturating_add(LEASE_TICKS);
        settings.put(0, &self.running.within(&current))
    }

    /// Lets the programs answer SYNs with cookies, or tells what keeps them from it.
    pub(super) fn renew_cookies(&mut self, wanted: bool) -> Result<(), DataplaneError> {
        let Surroundings::Host(host) = &mut self.surroundings else {
            return Ok(());
        };
        let ready = if wanted {
            cookies::require().and_then(|()| host.ensure_syncookies())
        } else {
            Ok(())
        };
        let until = match &ready {
            Ok(()) if wanted => tick().saturating_add(LEASE_TICKS),
            _ => 0,
        };
        let settings = &mut self.loaded.maps.settings;
        let current = settings.get(0)?;
        // An entry that was never written says nothing yet.
        if current.abi_version != 0 && current.cookies_until != [until; 2] {
            self.running.cookies_until = [until; 2];
            let next_hops_until = current.next_hops_until;
            let running = Running {
                next_hops_until,
                ..self.running
            };
            settings.put(0, &running.within(&current))?;
        }
        ready
    }

    /// Lets the programs sample packets for a while.
    pub(super) fn renew_sampling(&mut self, sampling: Sampling) -> Result<(), DataplaneError> {
        let Sampling { shift, outcomes } = sampling;
        self.running.sample_shift = shift;
        self.running.sample_outcomes = outcomes;
        self.running.sample_until = match shift {
            0 => 0,
            _ => tick().saturating_add(Sampling::LEASE_TICKS),
        };
        let settings = &mut self.loaded.maps.settings;
        let current = settings.get(0)?;
        // An entry that was never written says nothing yet; the first one comes with this.
        if current.abi_version == 0 {
            return Ok(());
        }
        // Next hops are renewed elsewhere, and the entry has the latest.
        let until = current.next_hops_until;
        let running = Running {
            next_hops_until: until,
            ..self.running
        };
        settings.put(0, &running.within(&current))
    }
}
