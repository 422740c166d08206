//! Slots that changed hands settle again, on every gateway, and what was stored is not needed any more.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use lbagent_tests::fleet::Fleet;
use lbagent_tests::poll::{keep_pace, poll_until};
use lbagent_tests::require_root;

use super::{Flow, assert_all_talk, open_tcp};

/// Silence after which a flow counts as gone: the least that the agent takes, in seconds.
const WINDOW_S: u32 = 60;
/// Two windows, and a pass of the agent's timer.
const SETTLED: Duration = Duration::from_secs(2 * WINDOW_S as u64 + 40);

/// Family and index of a flow's slot.
fn place(fleet: &Fleet, flow: &Flow) -> (bool, u32) {
    (flow.vip.is_ipv4(), flow.slot(fleet, 0).index)
}

#[test]
fn slots_settle_except_those_with_flows_of_their_first_owner() {
    require_root!();
    let mut fleet = Fleet::start("nat", 4, 3, |_, config| {
        config.flow.insert("settle_after_s", WINDOW_S);
    })
    .unwrap();
    fleet.route([1, 0]).unwrap();
    let flows = open_tcp(&fleet);
    fleet.attach(3).unwrap();
    let is_changed = |flow: &Flow| !flow.is_settled(&fleet, 0);
    let (mut old, _) = flows.into_iter().partition::<Vec<_>, _>(is_changed);
    let held: BTreeSet<_> = old.iter().map(|flow| place(&fleet, flow)).collect();
    assert!(!old.is_empty(), "no flow's slot has changed");
    let mut young = open_tcp(&fleet);
    young.retain(|flow| is_changed(flow) && !held.contains(&place(&fleet, flow)));
    assert!(!young.is_empty(), "no flow was born on a changed slot");
    assert_all_talk(&mut old, "after the change");
    for flow in old.iter().chain(&young) {
        assert!(flow.trace(&fleet, 0).stored.is_some(), "not stored");
    }

    // Both gateways have their own clocks and their own flows: the second one has none.
    let is_open = |flow: &Flow| {
        [0, 1]
            .iter()
            .any(|gateway| !flow.is_settled(&fleet, *gateway))
    };
    let mut start = Instant::now();
    poll_until("the slots to settle", SETTLED, || {
        assert_all_talk(&mut old, "while their slots stay changed");
        assert_all_talk(&mut young, "while their slots settle");
        keep_pace(start, Duration::from_secs(1));
        start = Instant::now();
        !young.iter().any(is_open)
    })
    .unwrap();

    for flow in &old {
        let slot = flow.slot(&fleet, 0);
        assert!(!slot.is_settled, "the slot of a flow that goes on settled");
        let owner = slot.previous.expect("the first owner is alive");
        assert_eq!(owner.name, flow.backend);
    }
    let mut fresh = open_tcp(&fleet);
    for flow in &fresh {
        let is_held = held.contains(&place(&fleet, flow));
        assert_eq!(flow.is_settled(&fleet, 0), !is_held);
        assert_eq!(flow.trace(&fleet, 0).stored.is_some(), is_held);
    }
    assert!(fresh.iter().any(|flow| flow.backend == "b4"));
    assert_all_talk(&mut old, "beside settled slots");
    // What was born on a changed slot may move now, and what was born since may too.
    fresh.retain(|flow| !held.contains(&place(&fleet, flow)));
    fleet.route([0, 1]).unwrap();
    assert_all_talk(&mut young, "at the gateway that never saw them");
    assert_all_talk(&mut fresh, "at the gateway that never saw them either");
}
