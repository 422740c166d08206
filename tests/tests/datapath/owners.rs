//! Who owns a flow while backends come, drain and go.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use lbagent::desired::{InstanceState, Transport};
use lbagent_tests::packet_builder::{Segment, describe, tcp, udp};
use lbagent_tests::prog_run::{CLIENT_V4, Rig, Side, VIP_V4};
use lbagent_tests::require_root;
use time::Duration;

use crate::at;

const FLOWS: u16 = 600;

fn client(flow: u16) -> SocketAddr {
    at(&format!("{CLIENT_V4}:{}", 10_000 + flow))
}

/// The backend that a flow's packet goes to, `None` when it goes nowhere.
fn owner(rig: &mut Rig, flow: u16, segment: Segment) -> Option<SocketAddr> {
    let frame = tcp(client(flow), at(&format!("{VIP_V4}:5432")), segment, b"");
    destination(rig, &frame)
}

fn udp_owner(rig: &mut Rig, flow: u16) -> Option<SocketAddr> {
    let frame = udp(client(flow), at(&format!("{VIP_V4}:53")), b"x");
    destination(rig, &frame)
}

fn destination(rig: &mut Rig, frame: &[u8]) -> Option<SocketAddr> {
    let (_, out) = rig.run_uncounted(Side::Client, frame).unwrap();
    (out != frame).then(|| describe(&out).expect("right checksums").destination)
}

fn owners(rig: &mut Rig, segment: Segment) -> BTreeMap<u16, SocketAddr> {
    (0..FLOWS)
        .map(|flow| (flow, owner(rig, flow, segment).expect("forwarded")))
        .collect()
}

/// Checks that established flows go where they went, naming only those that don't.
#[track_caller]
fn assert_kept(rig: &mut Rig, before: &BTreeMap<u16, SocketAddr>, when: &str) {
    let moved: Vec<String> = before
        .iter()
        .filter_map(|(&flow, &old)| {
            let new = owner(rig, flow, Segment::Ack);
            (new != Some(old)).then(|| format!("{flow}: {old} to {new:?}"))
        })
        .collect();
    assert!(
        moved.is_empty(),
        "{when}: {} flows moved, among them {}",
        moved.len(),
        moved[0]
    );
}

fn rig(backends: usize) -> Rig {
    let mut rig = Rig::new().unwrap();
    let group = rig.group(
        "db",
        &[(5432, 5432, Transport::Tcp), (53, 53, Transport::Udp)],
    );
    for index in 0..backends {
        let address = format!("10.66.0.{}", 11 + index);
        rig.instance(&format!("i{index}"), group, &[&address])
            .unwrap();
    }
    rig.reconcile().unwrap();
    rig
}

fn instance(rig: &Rig, index: usize) -> uuid::Uuid {
    *rig.desired.instances.keys().nth(index).unwrap()
}

fn drain(rig: &mut Rig, index: usize) {
    let deadline = rig.now + Duration::seconds(60);
    let state = InstanceState::draining(rig.now, deadline);
    let uuid = instance(rig, index);
    rig.set_state(uuid, state);
    rig.reconcile().unwrap();
}

#[test]
fn flows_spread_over_all_backends_and_stay() {
    require_root!();
    let mut rig = rig(3);
    let first = owners(&mut rig, Segment::Syn);
    assert_kept(&mut rig, &first, "unchanged");
    for index in 0..3 {
        let address = at(&format!("10.66.0.{}:5432", 11 + index));
        let flows = first.values().filter(|owner| **owner == address).count();
        assert!(
            (120..=280).contains(&flows),
            "{address} has {flows} of {FLOWS} flows"
        );
    }
}

#[test]
fn added_backends_take_new_flows_only() {
    require_root!();
    let mut rig = rig(3);
    let before = owners(&mut rig, Segment::Syn);
    let group = *rig.desired.service_groups.keys().next().unwrap();
    rig.instance("new", group, &["10.66.0.50"]).unwrap();
    rig.reconcile().unwrap();
    assert_eq!(
        owners(&mut rig, Segment::Ack),
        before,
        "established flows moved"
    );
    let new = (0..FLOWS)
        .map(|flow| owner(&mut rig, flow + 20_000, Segment::Syn).unwrap())
        .filter(|owner| *owner == at("10.66.0.50:5432"))
        .count();
    assert!(new > 60, "the new backend got {new} of {FLOWS} new flows");
}

#[test]
fn established_flows_survive_a_change_of_the_table_size() {
    require_root!();
    let mut rig = rig(5);
    let before = owners(&mut rig, Segment::Syn);
    let group = *rig.desired.service_groups.keys().next().unwrap();
    for index in 0..3 {
        rig.instance(
            &format!("n{index}"),
            group,
            &[&format!("10.66.0.{}", 60 + index)],
        )
        .unwrap();
    }
    rig.reconcile().unwrap();
    let vip = rig
        .actual()
        .unwrap()
        .vips
        .into_values()
        .find(|vip| vip.table_len != 0)
        .unwrap();
    assert_ne!(
        vip.previous_len, vip.table_len,
        "the case needs another size"
    );
    assert_ne!(vip.previous_len, 0);
    assert_eq!(
        owners(&mut rig, Segment::Ack),
        before,
        "established flows moved"
    );
}

#[test]
fn established_flows_survive_several_changes_while_they_send() {
    require_root!();
    let mut rig = rig(2);
    let before = owners(&mut rig, Segment::Syn);
    let group = *rig.desired.service_groups.keys().next().unwrap();
    for index in 0..12 {
        rig.instance(
            &format!("n{index}"),
            group,
            &[&format!("10.66.0.{}", 60 + index)],
        )
        .unwrap();
        rig.reconcile().unwrap();
        assert_eq!(
            owners(&mut rig, Segment::Ack),
            before,
            "moved by change {index}"
        );
    }
}

#[test]
fn silent_flows_survive_several_changes() {
    require_root!();
    let mut rig = rig(2);
    let before = owners(&mut rig, Segment::Syn);
    let group = *rig.desired.service_groups.keys().next().unwrap();
    for index in 0..12 {
        rig.instance(
            &format!("n{index}"),
            group,
            &[&format!("10.66.0.{}", 60 + index)],
        )
        .unwrap();
        rig.reconcile().unwrap();
    }
    assert_kept(&mut rig, &before, "after twelve changes in silence");
}

#[test]
fn a_draining_backend_keeps_its_flows_and_gets_no_new_ones() {
    require_root!();
    let mut rig = rig(3);
    let before = owners(&mut rig, Segment::Syn);
    drain(&mut rig, 0);
    assert_eq!(
        owners(&mut rig, Segment::Ack),
        before,
        "established flows moved"
    );
    let draining = at("10.66.0.11:5432");
    for flow in 0..FLOWS {
        assert_ne!(
            owner(&mut rig, flow + 20_000, Segment::Syn).unwrap(),
            draining
        );
    }
    for flow in 0..FLOWS {
        let kept = owner(&mut rig, flow + 20_000, Segment::Ack).unwrap();
        assert_ne!(kept, draining, "a flow born while draining went back");
    }
    rig.now += Duration::seconds(61);
    rig.reconcile().unwrap();
    for (flow, owner) in owners(&mut rig, Segment::Ack) {
        assert_ne!(owner, draining, "flow {flow} after the deadline");
        if before[&flow] != draining {
            assert_eq!(owner, before[&flow], "flow {flow} of another backend moved");
        }
    }
}

#[test]
fn when_all_drain_established_flows_go_on_and_new_ones_end() {
    require_root!();
    let mut rig = rig(2);
    let before = owners(&mut rig, Segment::Syn);
    drain(&mut rig, 0);
    drain(&mut rig, 1);
    assert_kept(&mut rig, &before, "all draining");
    assert_eq!(owner(&mut rig, 30_000, Segment::Syn), None);
}

#[test]
fn udp_flows_stay_with_a_draining_backend_and_new_ones_avoid_it() {
    require_root!();
    let mut rig = rig(3);
    let before: Vec<_> = (0..FLOWS).map(|flow| udp_owner(&mut rig, flow)).collect();
    drain(&mut rig, 0);
    let after: Vec<_> = (0..FLOWS).map(|flow| udp_owner(&mut rig, flow)).collect();
    assert_eq!(after, before, "flows that go on moved");
    let draining = Some(at("10.66.0.11:53"));
    let strays = (0..FLOWS)
        .filter(|flow| udp_owner(&mut rig, flow + 20_000) == draining)
        .count();
    // Two flows that share one of 2^20 filter entries look like one; 600 × 600 / 2^20 is 0.3.
    assert!(
        strays <= 5,
        "{strays} new flows went to the draining backend"
    );
    for flow in 0..FLOWS {
        let second = udp_owner(&mut rig, flow + 20_000);
        assert!(
            second != draining || strays > 0,
            "a new flow went back on its second packet"
        );
    }
}

#[test]
fn stopped_backends_lose_their_flows_at_once_and_the_others_none() {
    require_root!();
    let mut rig = rig(3);
    let before = owners(&mut rig, Segment::Syn);
    let uuid = instance(&rig, 1);
    rig.set_state(uuid, InstanceState::Stopped);
    rig.reconcile().unwrap();
    let stopped = at("10.66.0.12:5432");
    for (flow, owner) in owners(&mut rig, Segment::Ack) {
        if before[&flow] == stopped {
            assert_ne!(owner, stopped);
        } else {
            assert_eq!(owner, before[&flow]);
        }
    }
}
