//! Packets through the rig's programs, and what they moved.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use aya::programs::{TestRun, TestRunAttrs, TestRunOptions};
use lbagent::dataplane::Dataplane;
use lbagent_common::{BackendId, Outcome, TrafficCounter};
use uuid::Uuid;

use super::Rig;
use crate::syscalls::link_address;

/// `XDP_DROP`, `XDP_PASS`, `XDP_TX`, `XDP_REDIRECT` (enum xdp_action, include/uapi/linux/bpf.h).
const XDP_ACTIONS: [(u32, Action); 4] = [
    (1, Action::Drop),
    (2, Action::Pass),
    (3, Action::Transmit),
    (4, Action::Redirect),
];
/// `TC_ACT_UNSPEC`, `TC_ACT_SHOT`, `TC_ACT_REDIRECT` (include/uapi/linux/pkt_cls.h).
const TC_ACTIONS: [(u32, Action); 3] = [
    (u32::MAX, Action::Pass),
    (2, Action::Drop),
    (7, Action::Redirect),
];

/// What a program returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Discard.
    Drop,
    /// To the kernel.
    Pass,
    /// Out of the same interface.
    Transmit,
    /// Out of another interface.
    Redirect,
}

/// Which program sees the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// `lb_ingress`.
    Client,
    /// `lb_return`.
    Backend,
}

/// What became of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran {
    /// What the program returned.
    pub action: Action,
    /// The one reason that was counted.
    pub outcome: Outcome,
    /// The frame afterwards.
    pub frame: Vec<u8>,
    /// The backend whose counters moved, by instance name.
    pub backend: Option<String>,
}

impl Rig {
    /// Packets by outcome so far.
    pub fn outcomes(&mut self) -> Result<BTreeMap<Outcome, u64>> {
        let counters = self.dataplane.counters(&[], &[])?.outcomes;
        Ok(Outcome::ALL
            .iter()
            .zip(counters)
            .map(|(outcome, c)| (*outcome, c.packets))
            .collect())
    }

    /// Traffic by instance name, both families together.
    pub fn backends(&mut self) -> Result<BTreeMap<String, TrafficCounter>> {
        let entries = self.actual()?.backends;
        let ids: Vec<BackendId> = entries.keys().copied().collect();
        let counters = self.dataplane.counters(&[], &ids)?.backends;
        let mut traffic: BTreeMap<String, TrafficCounter> = BTreeMap::new();
        for (id, entry) in entries {
            let uuid = Uuid::from_bytes(entry.instance);
            let name = self
                .desired
                .instances
                .get(&uuid)
                .map_or("?", |instance| &instance.name);
            let counter = counters.get(&id).copied().unwrap_or_default();
            let sum = traffic.entry(name.into()).or_default();
            sum.flows += counter.flows;
            sum.in_packets += counter.in_packets;
            sum.in_bytes += counter.in_bytes;
            sum.out_packets += counter.out_packets;
            sum.out_bytes += counter.out_bytes;
        }
        Ok(traffic)
    }

    /// Runs one packet and finds out which counters moved.
    pub fn run(&mut self, side: Side, frame: &[u8]) -> Result<Ran> {
        let ((), ran) = self.run_after(side, frame, |_| ())?;
        Ok(ran)
    }

    /// As [`Rig::run`], with a look at the rig right before the packet.
    pub fn run_after<T>(
        &mut self,
        side: Side,
        frame: &[u8],
        look: impl FnOnce(&Self) -> T,
    ) -> Result<(T, Ran)> {
        let (outcomes, backends) = (self.outcomes()?, self.backends()?);
        let seen = look(self);
        let (action, frame) = self.run_uncounted(side, frame)?;
        let moved: Vec<Outcome> = self
            .outcomes()?
            .into_iter()
            .flat_map(|(outcome, packets)| {
                std::iter::repeat_n(outcome, (packets - outcomes[&outcome]) as usize)
            })
            .collect();
        ensure!(moved.len() == 1, "a packet has one outcome, not {moved:?}");
        let backend = self
            .backends()?
            .into_iter()
            .find(|(name, counter)| {
                let before = backends.get(name).copied().unwrap_or_default();
                counter.in_packets + counter.out_packets > before.in_packets + before.out_packets
            })
            .map(|(name, _)| name);
        let ran = Ran {
            action,
            outcome: moved[0],
            frame,
            backend,
        };
        Ok((seen, ran))
    }

    /// Has a client's packet handled as if it came in now: what passes goes up to the kernel.
    pub fn deliver(&mut self, frame: &[u8]) -> Result<()> {
        let mut frame = frame.to_vec();
        frame[..6].copy_from_slice(&link_address("cl0")?);
        let context = words(&[0, frame.len() as u32, 0, self.client_interface, 0, 0]);
        let options = TestRunOptions {
            data_in: Some(&frame),
            ctx_in: Some(&context),
            repeat: 1,
            attrs: TestRunAttrs::new().xdp_live_frames(1),
            ..TestRunOptions::default()
        };
        self.dataplane.ingress_program()?.test_run(options)?;
        Ok(())
    }

    /// Runs one packet without looking at counters: for loops over many.
    pub fn run_uncounted(&mut self, side: Side, frame: &[u8]) -> Result<(Action, Vec<u8>)> {
        let (action, out, _) = self.run_timed(side, frame)?;
        Ok((action, out))
    }

    /// As [`Rig::run_uncounted`], and how long it took by the kernel's clock.
    pub fn run_timed(&mut self, side: Side, frame: &[u8]) -> Result<(Action, Vec<u8>, Duration)> {
        // Room for the longest answer.
        let mut out = vec![0; frame.len() + 1024];
        let (result, actions): (_, &[(u32, Action)]) = match side {
            Side::Client => {
                // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index.
                let context = words(&[0, frame.len() as u32, 0, self.client_interface, 0, 0]);
                let options = options(frame, &mut out, &context);
                (
                    self.dataplane.ingress_program()?.test_run(options)?,
                    &XDP_ACTIONS,
                )
            }
            Side::Backend => {
                // struct __sk_buff: `ifindex` is its eleventh word, all others stay zero.
                let mut fields = [0; 48];
                fields[10] = self.backend_interface;
                let context = words(&fields);
                let options = options(frame, &mut out, &context);
                (
                    self.dataplane.return_program()?.test_run(options)?,
                    &TC_ACTIONS,
                )
            }
        };
        out.truncate(result.data_size_out as usize);
        let action = actions
            .iter()
            .find(|(code, _)| *code == result.return_value);
        let (_, action) = action.with_context(|| format!("action {}", result.return_value))?;
        Ok((*action, out, result.duration))
    }
}

fn options<'a>(frame: &'a [u8], out: &'a mut [u8], context: &'a [u8]) -> TestRunOptions<'a> {
    TestRunOptions {
        data_in: Some(frame),
        data_out: Some(out),
        ctx_in: Some(context),
        repeat: 1,
        ..TestRunOptions::default()
    }
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}
