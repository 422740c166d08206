//! A router moves flows between the gateways by ECMP.

use std::time::Duration;

use lbagent_tests::fleet::{Back, Fleet, SEED};
use lbagent_tests::require_root;
use lbagent_tests::topology::VIPS;
use lbagent_tests::transfer::{Direction, Transfer};
use serde_json::json;

use super::{FLOWS, Flow, assert_all_talk, open_tcp};

/// [`FLOWS`] flows of each VIP by TCP and by UDP.
fn open(fleet: &Fleet) -> Vec<Flow> {
    let mut flows = open_tcp(fleet);
    for vip in VIPS {
        flows.extend((0..FLOWS).map(|_| Flow::open_udp(&fleet.client, vip).unwrap()));
    }
    flows
}

/// Long transfers of both VIPs and directions.
fn transfers(fleet: &Fleet) -> Vec<Transfer> {
    let start = |(vip, direction)| {
        let pace = Duration::from_secs(2);
        let to = Fleet::service(vip);
        Transfer::start(&fleet.client, to, direction, 20_000_000, pace).unwrap()
    };
    let ways = [Direction::Upload, Direction::Download];
    VIPS.into_iter()
        .flat_map(|vip| ways.map(|direction| (vip, direction)))
        .map(start)
        .collect()
}

#[track_caller]
fn start(mode: &str, backends: usize, members: usize) -> Fleet {
    Fleet::start(mode, backends, members, |_, _| {}).unwrap()
}

#[test]
fn flows_survive_moves_in_steady_state() {
    #[track_caller]
    fn check(mode: &str) {
        let fleet = start(mode, 3, 3);
        let mut flows = open(&fleet);
        let spread = fleet.forwarded().unwrap();
        assert!(spread[0] > 0 && spread[1] > 0, "{mode}: {spread:?}");
        let transfers = transfers(&fleet);
        let ways = [[1, 0], [0, 1], [3, 1], [1, 3], [0, 1], [1, 0], [1, 1]];
        for (round, weights) in ways.into_iter().cycle().take(21).enumerate() {
            let before = fleet.forwarded().unwrap();
            fleet.route(weights).unwrap();
            assert_all_talk(&mut flows, &format!("{mode}, round {round}, {weights:?}"));
            let after = fleet.forwarded().unwrap();
            for gateway in 0..2 {
                let is_used = after[gateway] > before[gateway];
                // What was on its way to the other one may still arrive there.
                assert!(is_used || weights[gateway] == 0, "{mode}, round {round}");
            }
        }
        for transfer in transfers {
            transfer.finish().unwrap();
        }
        for flow in &flows {
            for gateway in 0..2 {
                assert!(flow.is_settled(&fleet, gateway), "{mode}: a stored flow");
            }
        }
        let returned = fleet.returned().unwrap();
        assert_eq!(returned[0] > 0, mode == "nat", "{mode}: {returned:?}");
        assert_eq!(returned[1], 0, "{mode}: the way back moved");
    }
    require_root!();
    check("nat");
    check("dsr-ipip");
}

/// Shows that the other tests would notice gateways that choose differently.
#[test]
fn another_seed_loses_flows() {
    require_root!();
    let fleet = Fleet::start("nat", 3, 3, |number, config| {
        config.flow.insert("hash_seed", SEED + number as u32);
    })
    .unwrap();
    fleet.route([1, 0]).unwrap();
    let mut flows = open(&fleet);
    fleet.route([0, 1]).unwrap();
    let lost = flows.iter_mut().filter_map(|flow| flow.talk().err());
    let lost = lost.count();
    assert!(
        lost * 2 > flows.len(),
        "lost only {lost} of {}",
        flows.len()
    );
}

/// Requests by one gateway, replies by the other: with NAT either of them can undo it.
#[test]
fn replies_may_take_the_other_gateway() {
    require_root!();
    let fleet = start("nat", 3, 3);
    for (there, back) in [([1, 0], 1), ([0, 1], 0)] {
        fleet.route(there).unwrap();
        fleet.route_back(Back::Gateway(back)).unwrap();
        let before = fleet.returned().unwrap();
        let mut flows = open(&fleet);
        for transfer in transfers(&fleet) {
            transfer.finish().unwrap();
        }
        assert_all_talk(&mut flows, &format!("back by gateway {back}"));
        let after = fleet.returned().unwrap();
        assert!(after[back] > before[back], "{before:?} {after:?}");
        assert_eq!(after[1 - back], before[1 - back], "not by the other one");
        // Both directions change sides at once.
        fleet.route([there[1], there[0]]).unwrap();
        fleet.route_back(Back::Gateway(1 - back)).unwrap();
        assert_all_talk(&mut flows, "after both ways moved");
    }
}

/// Flows from before any change, each seen by the second gateway for the first time after one, two
/// or three changes, silent until then.
#[test]
fn flows_from_before_a_change_survive_the_move_after_it() {
    #[track_caller]
    fn check(mode: &str) {
        let mut fleet = start(mode, 4, 3);
        fleet.route([1, 0]).unwrap();
        let mut cohorts: Vec<_> = (0..3).map(|_| open_tcp(&fleet)).collect();
        for (round, cohort) in cohorts.iter_mut().enumerate() {
            let what = ["a new backend", "a drain", "a weight"][round];
            match round {
                0 => fleet.attach(3).unwrap(),
                1 => drain(&mut fleet, 1),
                _ => fleet.edit(0, "policy", json!({ "weight": 400 })).unwrap(),
            }
            let is_changed = |flow: &&Flow| !flow.is_settled(&fleet, 1);
            let changed = cohort.iter().filter(is_changed).count();
            assert!(changed > 0, "{mode}, {what}: no flow's slot has changed");
            fleet.route([0, 1]).unwrap();
            let before = fleet.forwarded().unwrap();
            assert_all_talk(cohort, &format!("{mode}, after {what}"));
            let after = fleet.forwarded().unwrap();
            assert_eq!(after[0], before[0], "{mode}: not all by the second gateway");
            fleet.route([1, 0]).unwrap();
            assert_all_talk(cohort, &format!("{mode}, {what}, and back"));
        }
        fleet.route([1, 1]).unwrap();
        for cohort in &mut cohorts {
            assert_all_talk(cohort, &format!("{mode}, spread over both"));
        }
    }
    require_root!();
    check("nat");
    check("dsr-ipip");
}

fn drain(fleet: &mut Fleet, index: usize) {
    let now = time::OffsetDateTime::now_utc();
    let rfc3339 = &time::format_description::well_known::Rfc3339;
    let at = |moment: time::OffsetDateTime| moment.format(rfc3339).unwrap();
    let draining = json!({ "since": at(now), "deadline": at(now + Duration::from_secs(600)) });
    let state = json!({ "draining": draining });
    fleet.edit(index, "state", state).unwrap();
}

/// Past the guarantee: a flow born on a changed slot goes to the slot's first owner where its SYN
/// was not seen. On a settled slot nothing is past the guarantee.
#[test]
fn flows_born_after_a_change_survive_where_their_slot_did_not_change() {
    require_root!();
    let mut fleet = start("nat", 4, 3);
    fleet.route([1, 0]).unwrap();
    fleet.attach(3).unwrap();
    let flows = open_tcp(&fleet);
    let is_settled = |flow: &Flow| flow.is_settled(&fleet, 1);
    let (mut safe, mut young): (Vec<_>, Vec<_>) = flows.into_iter().partition(is_settled);
    assert!(!safe.is_empty() && !young.is_empty(), "one kind is missing");
    // The gateway that saw them keeps all of them.
    assert_all_talk(&mut young, "on their own gateway");
    for flow in &young {
        let trace = flow.trace(&fleet, 1);
        let slot = trace.slot.expect("a slot");
        let name = |owner: Option<lbagent_api::trace::TraceInstance>| owner.map(|it| it.name);
        // The one that it was born to, and the one that a gateway without its SYN would choose.
        assert_eq!(name(slot.current).as_deref(), Some(&*flow.backend));
        let chosen = trace.choice.and_then(|choice| choice.instance);
        assert_eq!(name(chosen), name(slot.previous));
    }
    fleet.route([0, 1]).unwrap();
    assert_all_talk(&mut safe, "of slots that did not change");
    let lost = young.iter_mut().filter_map(|flow| flow.talk().err());
    let lost = lost.count();
    println!(
        "of {} flows born on a changed slot, {lost} were reset by the other gateway's choice; {} of \
         other slots stayed",
        young.len(),
        safe.len()
    );
    // New ones of the second gateway agree with the first one's about everything but these.
    let mut flows = open_tcp(&fleet);
    assert_all_talk(&mut flows, "born at the second gateway");
}
