//! Instances move between service groups.

use std::time::Duration;

use serde_json::json;

use super::accounts::{THEM, add_their_account};
use super::*;

const NO_DRAIN: Duration = Duration::ZERO;
const DRAIN: Duration = Duration::from_secs(30);

fn named(name: &str) -> Selector {
    Selector::Name(name.into())
}

struct Fixture {
    desired: Desired,
    _directory: tempfile::TempDir,
}

/// Group `web` with instance `a`, which made it, and the empty group `other`.
fn fixture() -> Fixture {
    let directory = tempfile::tempdir().unwrap();
    let (_, desired) = open(directory.path());
    let fixture = Fixture {
        desired,
        _directory: directory,
    };
    fixture.group("other", 2);
    fixture.create("a", 1, NewInstanceGroup::Create(group("web", 1)));
    fixture
}

impl Fixture {
    fn group(&self, name: &str, port: u16) {
        let made = self
            .desired
            .create_service_groups(US, &[group(name, port)], &gateway(), NOW);
        assert!(made.unwrap().outcome[0].is_ok());
    }

    fn create(&self, name: &str, host: u8, group: NewInstanceGroup) {
        let new = instance(name, host, group);
        let made = self.desired.create_instances(US, &[new], &gateway(), NOW);
        assert!(made.unwrap().outcome[0].is_ok());
    }

    fn put(
        &self,
        name: &str,
        group: Option<&str>,
        drain: Duration,
        now: OffsetDateTime,
    ) -> Result<Move, String> {
        let (name, group) = (named(name), group.map(named));
        let written = self
            .desired
            .set_service_group(US, &name, group.as_ref(), drain, now);
        written.unwrap().outcome.map_err(|error| error.to_string())
    }

    /// The name of an instance's group, and its state.
    fn place(&self, name: &str) -> (Option<String>, InstanceState) {
        let state = self.desired.current();
        let instance = state.instance(US, &named(name)).unwrap();
        let group = instance.service_group;
        let group = group.map(|uuid| state.service_groups[&uuid].name.clone());
        (group, instance.state.clone())
    }

    #[track_caller]
    fn check_place(&self, name: &str, group: Option<&str>) {
        let expected = (group.map(str::to_owned), InstanceState::Running);
        assert_eq!(self.place(name), expected);
    }

    fn has_group(&self, name: &str) -> bool {
        self.desired
            .current()
            .service_group(US, &named(name))
            .is_some()
    }

    #[track_caller]
    fn check_refused(&self, name: &str, group: Option<&str>, drain: Duration, message: &str) {
        let before = self.desired.current();
        let error = self.put(name, group, drain, NOW).unwrap_err();
        assert!(error.contains(message), "{error}");
        assert_eq!(before, self.desired.current(), "something was changed");
    }
}

#[test]
fn a_group_made_for_an_instance_goes_with_the_last_and_stays_after_a_second() {
    let fixture = fixture();
    let moved = fixture.put("a", Some("other"), NO_DRAIN, NOW).unwrap();
    assert_eq!(moved.deleted.unwrap().name, "web");
    fixture.check_place("a", Some("other"));
    assert!(!fixture.has_group("web"));
    // Its name and its port are free again.
    fixture.create("b", 2, NewInstanceGroup::Create(group("web", 1)));
    let moved = fixture.put("a", Some("web"), NO_DRAIN, NOW).unwrap();
    assert_eq!(moved.deleted, None);
    assert!(fixture.has_group("other"));
    for name in ["a", "b"] {
        assert_eq!(
            fixture.put(name, None, NO_DRAIN, NOW).unwrap().deleted,
            None
        );
        fixture.check_place(name, None);
    }
    assert!(fixture.has_group("web"), "its second instance made it stay");
}

#[test]
fn what_is_so_already_is_not_written() {
    let fixture = fixture();
    let generation = fixture.desired.current().generation;
    fixture.put("a", Some("web"), DRAIN, NOW).unwrap();
    assert_eq!(fixture.desired.current().generation, generation);
    fixture.put("a", None, NO_DRAIN, NOW).unwrap();
    assert_eq!(fixture.desired.current().generation, generation + 1);
    fixture.put("a", None, DRAIN, NOW).unwrap();
    assert_eq!(fixture.desired.current().generation, generation + 1);
}

#[test]
fn with_a_drain_it_leaves_at_the_deadline() {
    let fixture = fixture();
    let leaving = |to: Option<&str>, deadline| {
        let state = fixture.desired.current();
        let to = to.map(|name| state.service_group(US, &named(name)).unwrap().uuid);
        InstanceState::Draining {
            since: NOW,
            deadline,
            then: AfterDrain::Leaves { to },
        }
    };
    let web = Some("web".to_owned());
    fixture.put("a", Some("other"), DRAIN, NOW).unwrap();
    let expected = (web.clone(), leaving(Some("other"), NOW + DRAIN));
    assert_eq!(fixture.place("a"), expected);
    // The last request holds.
    let later = NOW + Duration::from_secs(10);
    fixture.put("a", None, DRAIN, later).unwrap();
    assert_eq!(fixture.place("a"), (web, leaving(None, later + DRAIN)));
    assert_eq!(
        fixture.desired.expire_drains(NOW + DRAIN).unwrap().outcome,
        0
    );
    fixture.put("a", Some("other"), DRAIN, later).unwrap();
    assert_eq!(
        fixture
            .desired
            .expire_drains(later + DRAIN)
            .unwrap()
            .outcome,
        1
    );
    fixture.check_place("a", Some("other"));
    assert!(!fixture.has_group("web"));
}

#[test]
fn a_request_to_leave_can_be_taken_back_and_hurried() {
    let fixture = fixture();
    for take_back in [true, false] {
        fixture.put("a", None, DRAIN, NOW).unwrap();
        if take_back {
            fixture.put("a", Some("web"), NO_DRAIN, NOW).unwrap();
        } else {
            fixture.desired.start_instances(US, &[named("a")]).unwrap();
        }
        fixture.check_place("a", Some("web"));
        assert_eq!(
            fixture
                .desired
                .expire_drains(NOW + 2 * DRAIN)
                .unwrap()
                .outcome,
            0
        );
    }
    fixture.put("a", Some("other"), DRAIN, NOW).unwrap();
    fixture.put("a", Some("other"), NO_DRAIN, NOW).unwrap();
    fixture.check_place("a", Some("other"));
}

#[test]
fn where_the_other_group_is_gone_it_serves_none() {
    let fixture = fixture();
    fixture.put("a", Some("other"), DRAIN, NOW).unwrap();
    let gone = fixture.desired.delete_service_groups(US, &[named("other")]);
    assert!(gone.unwrap().outcome[0].is_ok());
    fixture.desired.expire_drains(NOW + DRAIN).unwrap();
    fixture.check_place("a", None);
}

#[test]
fn a_stopped_instance_stays_stopped_and_one_that_stops_stays() {
    let fixture = fixture();
    let stop = |drain| {
        let request = StopRequest {
            selector: named("a"),
            drain,
            only_if: None,
        };
        let stopped = fixture.desired.stop_instances(US, &[request], NOW);
        assert!(stopped.unwrap().outcome[0].is_ok());
    };
    stop(DRAIN);
    fixture.check_refused("a", None, DRAIN, "'a' drains in order to be stopped");
    fixture.check_refused("a", Some("other"), NO_DRAIN, "start it again first");
    stop(NO_DRAIN);
    fixture.put("a", Some("other"), DRAIN, NOW).unwrap();
    let expected = (Some("other".to_owned()), InstanceState::Stopped);
    assert_eq!(fixture.place("a"), expected);
}

#[test]
fn what_does_not_go_together_is_refused() {
    let fixture = fixture();
    let other = || NewInstanceGroup::Join(named("other"));
    fixture.create("twin", 1, other());
    for drain in [NO_DRAIN, DRAIN] {
        fixture.check_refused("nobody", None, drain, "No instance with name 'nobody'");
        fixture.check_refused("a", Some("no"), drain, "No service group with name 'no'");
        let taken = "Address 10.0.0.1 belongs to instance 'twin' of service group 'other' already";
        fixture.check_refused("a", Some("other"), drain, taken);
    }
    let gone = fixture.desired.delete_instances(US, &[named("twin")], NOW);
    assert!(gone.unwrap().outcome[0].is_ok());
    fixture.create("b", 2, other());
    let policy = |id: &str| serde_json::from_value(json!({"quic_server_id": id})).unwrap();
    for name in ["a", "b"] {
        let set = fixture
            .desired
            .set_instance_policy(US, &named(name), &policy("01"));
        assert!(set.unwrap().outcome.is_ok());
    }
    let taken = "QUIC server id 01 belongs to instance 'b' of service group 'other' already";
    fixture.check_refused("a", Some("other"), NO_DRAIN, taken);
    let quic = serde_json::from_value(json!({"quic": {"server_id_length": 1}})).unwrap();
    let set = fixture
        .desired
        .set_group_policy(US, &named("other"), &quic, &gateway().vips);
    assert!(set.unwrap().outcome.is_ok());
    let set = fixture
        .desired
        .set_instance_policy(US, &named("a"), &policy("0102"));
    assert!(set.unwrap().outcome.is_ok());
    fixture.check_refused("a", Some("other"), DRAIN, "has a server id length of 1");
    // What came between is found at the deadline.
    let set = fixture
        .desired
        .set_instance_policy(US, &named("a"), &policy("03"));
    assert!(set.unwrap().outcome.is_ok());
    fixture.put("a", Some("other"), DRAIN, NOW).unwrap();
    let set = fixture
        .desired
        .set_instance_policy(US, &named("b"), &policy("03"));
    assert!(set.unwrap().outcome.is_ok());
    fixture.desired.expire_drains(NOW + DRAIN).unwrap();
    fixture.check_place("a", None);
}

#[test]
fn another_accounts_objects_cannot_be_told_from_none() {
    let fixture = fixture();
    add_their_account(&fixture.desired, Quotas::UNLIMITED);
    let made = fixture
        .desired
        .create_service_groups(THEM, &[group("theirs", 9)], &gateway(), NOW);
    let theirs = made.unwrap().outcome[0].clone().unwrap().uuid;
    let before = fixture.desired.current();
    let ours = before.instance(US, &named("a")).unwrap().uuid;
    let put = |caller, instance, group| {
        let (instance, group) = (Selector::Uuid(instance), Selector::Uuid(group));
        let put = fixture
            .desired
            .set_service_group(caller, &instance, Some(&group), NO_DRAIN, NOW);
        put.unwrap().outcome.unwrap_err()
    };
    let group = JoinError::NoServiceGroup(Selector::Uuid(theirs));
    assert_eq!(put(US, ours, theirs), MembershipError::Join(group));
    let instance = MembershipError::NoInstance(Selector::Uuid(ours));
    assert_eq!(put(THEM, ours, theirs), instance);
    assert_eq!(before, fixture.desired.current());
}
