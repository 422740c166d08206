//! SYNs for other ports with handlers, answered by cookies when there are too many.

use std::net::{IpAddr, SocketAddr};

use lbagent::dataplane::Dataplane as _;
use lbagent::plan::SynShield;
use lbagent_common::{Outcome, VipEntry};
use lbagent_tests::poll::{SOON, poll_until};
use lbagent_tests::prog_run::{Action, Side};
use lbagent_tests::redirect_rig::{ISN, syn};
use lbagent_tests::require_root;
use lbagent_tests::tcp_segment::{TcpSegment, flags};

use super::{Web, families};
use crate::assert_untouched;

/// Both families' clients and port 443 of the VIPs.
fn https(port: u16) -> [(SocketAddr, SocketAddr); 2] {
    families(port).map(|(client, vip)| (client, SocketAddr::new(vip.ip(), 443)))
}

fn web(shield: SynShield) -> Web {
    let mut web = Web::new();
    web.rig.gateway.syn_shield = shield;
    web.rig.reconcile().unwrap();
    web.lend(u32::MAX).unwrap();
    web
}

#[test]
fn off_it_answers_nothing() {
    require_root!();
    let mut web = web(SynShield::Off);
    for (client, vip) in https(2000) {
        for _ in 0..20 {
            let frame = syn().frame(client, vip);
            let ran = web.run(&frame);
            assert_untouched(&ran, Action::Pass, Outcome::PassTerminate, &frame);
        }
    }
}

#[test]
fn on_it_answers_every_syn_and_nothing_else() {
    require_root!();
    let mut web = web(SynShield::Always);
    for (client, vip) in https(2000) {
        let ran = web.run(&syn().frame(client, vip));
        assert_eq!(
            (ran.action, ran.outcome),
            (Action::Transmit, Outcome::AnswerShield)
        );
        let answer = TcpSegment::of_answer(&ran.frame, client, vip).unwrap();
        assert_eq!(answer.flags, flags::SYN | flags::ACK);
        // The kernel completes it: whatever comes next is its own.
        for more in [0, flags::PSH, flags::FIN, flags::RST] {
            let frame = TcpSegment {
                sequence: ISN.wrapping_add(1),
                acknowledged: answer.sequence.wrapping_add(1),
                flags: flags::ACK | more,
                options: Vec::new(),
                ..syn()
            }
            .frame(client, vip);
            let ran = web.run(&frame);
            assert_untouched(&ran, Action::Pass, Outcome::PassTerminate, &frame);
        }
        // Without a terminator there is nothing to shield.
        web.listeners.clear();
        let frame = syn().frame(client, vip);
        let ran = web.run(&frame);
        assert_untouched(&ran, Action::Pass, Outcome::PassTerminate, &frame);
        web.listen().unwrap();
    }
}

/// The first ones of each tick are the kernel's, each VIP counted for itself.
#[test]
fn automatic_it_answers_those_above_the_threshold() {
    require_root!();
    const PER_TICK: u32 = 8;
    // One CPU counts, on which the test stays.
    let mut cpus = nix::sched::CpuSet::new();
    cpus.set(0).unwrap();
    nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &cpus).unwrap();
    let mut web = web(SynShield::Above {
        per_second: PER_TICK,
    });
    for family in https(2000) {
        let began = web.rig.tick().unwrap();
        let mut passed = Vec::new();
        for port in 3000..3100 {
            let mut client = family.0;
            client.set_port(port);
            let ran = web.run(&syn().frame(client, family.1));
            match ran.outcome {
                Outcome::PassTerminate => passed.push(port),
                outcome => assert_eq!(outcome, Outcome::AnswerShield),
            }
        }
        // Ticks end meanwhile; on a slow machine many.
        let ticks = web.rig.tick().unwrap() - began + 1;
        let most = (ticks * PER_TICK) as usize;
        assert!(
            (PER_TICK as usize..=most).contains(&passed.len()),
            "{passed:?}"
        );
        assert_eq!(passed[..4], [3000, 3001, 3002, 3003], "the first ones");
        // It is told, if the machine is fast enough for a flood.
        let (client, vip) = family;
        let frame = syn().frame(client, vip);
        let is_told = || {
            for _ in 0..4 * PER_TICK {
                web.rig.run_uncounted(Side::Client, &frame).unwrap();
            }
            web.flooded().contains(&vip.ip())
        };
        poll_until("the flood to be told", SOON, is_told).unwrap();
    }
    // So is that it is over.
    let calm = || web.flooded().is_empty();
    poll_until("the flood to be over", SOON, calm).unwrap();
}

impl Web {
    /// VIPs with more SYNs than the kernel gets, as the agent tells.
    fn flooded(&mut self) -> Vec<IpAddr> {
        let vips = self.rig.actual().unwrap().vips;
        let counters = self.rig.dataplane.counters(&[], &[]).unwrap();
        let is_flooded = |(_, entry): &(_, VipEntry)| counters.flooded.contains(&entry.vip_index);
        let flooded = vips.into_iter().filter(is_flooded);
        flooded.map(|(key, _)| key.addr.into()).collect()
    }
}

/// What a kernel without the helpers for cookies is left with.
#[test]
fn without_the_helpers_everything_is_the_kernels() {
    require_root!();
    let mut web = web(SynShield::Always);
    let verified = |web: &mut Web| {
        let program = web.rig.dataplane.ingress_program().unwrap();
        program.info().unwrap().verified_instruction_count()
    };
    let with_helpers = verified(&mut web);
    web.rig.dataplane.lose_cookies("cl0").unwrap();
    assert!(
        verified(&mut web) < with_helpers,
        "their callers are not looked at"
    );
    web.rig.reconcile().unwrap();
    web.lend(u32::MAX).unwrap();
    web.listen().unwrap();
    for port in [80, 443] {
        for (client, vip) in families(2000) {
            let frame = syn().frame(client, SocketAddr::new(vip.ip(), port));
            let ran = web.run(&frame);
            assert_untouched(&ran, Action::Pass, Outcome::PassTerminate, &frame);
        }
    }
}
