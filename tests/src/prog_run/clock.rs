//! Time as the rig's programs and planner see it.

use std::time::Duration;

use anyhow::Result;
use lbagent_common::ConnEntry;

use super::Rig;

impl Rig {
    /// Lets time pass: everything that was stored becomes older by so many ticks.
    pub fn advance(&mut self, ticks: u32) -> Result<()> {
        let older = |tick: u32| tick.saturating_sub(ticks);
        let vips = self.actual()?.vips;
        let maps = self.dataplane.maps_mut();
        for index in 0..maps.conns.buckets() {
            let Some(mut bucket) = maps.conns.bucket(index) else {
                continue;
            };
            for entry in bucket.ways.iter_mut().filter(|entry| entry.backend != 0) {
                let mark = entry.last_seen & ConnEntry::ESTABLISHED;
                entry.last_seen = older(entry.tick()) | mark;
            }
            maps.conns.put_bucket(index, bucket);
        }
        for id in vips.values().map(|entry| entry.vip_id) {
            let refused = maps.refusals.get(id)?;
            maps.refusals.put(id, &older(refused))?;
        }
        self.ahead += ticks;
        Ok(())
    }

    /// The planner's clock, which is the programs' clock if [`advance`](Self::advance) is taken for
    /// the passing of time.
    pub fn tick(&self) -> Result<u32> {
        let now = Duration::from(nix::time::ClockId::CLOCK_MONOTONIC_COARSE.now()?);
        Ok((now.as_nanos() >> 30) as u32 + self.ahead)
    }

    /// Waits until the programs' clock stands still for a quarter of a second more, so that what is
    /// told before a packet is told of the same tick as what the packet meets.
    pub fn await_calm_clock(&self) -> Result<()> {
        const TICK: u128 = 1 << 30;
        loop {
            let now = Duration::from(nix::time::ClockId::CLOCK_MONOTONIC_COARSE.now()?);
            if now.as_nanos() % TICK < TICK / 4 * 3 {
                return Ok(());
            }
            std::thread::yield_now();
        }
    }
}
