mod documents;

use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::desired::InstanceState;
use crate::plan::testing;
use crate::store::{Op, RedbStore, Store, Transaction};

const US: Caller = Caller::operator(crate::desired::DEFAULT_ACCOUNT);

/// A group and an instance as they were stored before there were policies.
const OLD_GROUP: &str = r#"{"uuid":"00000000-0000-4000-8000-000000000001","name":"web",
    "created_at":"2026-01-02T03:04:05Z","persistent":true,"soft_limit":1,"hard_limit":65535,
    "services":[{"port":80,"destination_port":80,"protocol":"tcp","ip":null},
                {"port":443,"destination_port":443,"protocol":"udp","ip":null}],
    "domains":["web.lb.internal"]}"#;
const OLD_INSTANCE: &str = r#"{"uuid":"00000000-0000-4000-8000-000000000002","name":"a",
    "created_at":"2026-01-02T03:04:05Z","state":{"state":"running"},
    "service_group":"00000000-0000-4000-8000-000000000001","addresses":["10.0.0.7/32"],
    "image":null}"#;

struct Fixture {
    store: Arc<RedbStore>,
    desired: Desired,
    _directory: tempfile::TempDir,
}

/// Group `web` with the instances `a` and `b`, from records of before.
fn fixture() -> Fixture {
    let directory = tempfile::tempdir().unwrap();
    let store = Arc::new(RedbStore::open(&directory.path().join("state.redb")).unwrap());
    let (group, a) = (
        "00000000-0000-4000-8000-000000000001",
        "00000000-0000-4000-8000-000000000002",
    );
    let b = a.replace("0002", "0003");
    let instance_b = OLD_INSTANCE
        .replace(a, &b)
        .replace("\"a\"", "\"b\"")
        .replace("10.0.0.7", "10.0.0.8");
    let records = [
        (format!("/groups/{group}"), OLD_GROUP.to_owned()),
        ("/names/groups/web".to_owned(), format!("\"{group}\"")),
        (format!("/instances/{a}"), OLD_INSTANCE.to_owned()),
        ("/names/instances/a".to_owned(), format!("\"{a}\"")),
        (format!("/instances/{b}"), instance_b),
        ("/names/instances/b".to_owned(), format!("\"{b}\"")),
    ];
    let ops = records.map(|(key, value)| Op::Put {
        key,
        value: value.into_bytes(),
    });
    let transaction = Transaction {
        ops: ops.to_vec(),
        ..Transaction::default()
    };
    store.txn(&transaction).unwrap();
    let desired = Desired::load(store.clone()).unwrap();
    Fixture {
        store,
        desired,
        _directory: directory,
    }
}

fn named(name: &str) -> Selector {
    Selector::Name(name.into())
}

fn read<P: serde::de::DeserializeOwned>(policy: Value) -> P {
    serde_json::from_value(policy).unwrap()
}

impl Fixture {
    fn set_group(&self, policy: Value) -> Result<ServiceGroup, SetPolicyError> {
        let written = self.desired.set_group_policy(
            US,
            &named("web"),
            &read(policy),
            &testing::gateway(&[]).vips,
        );
        written.unwrap().outcome
    }

    fn set_instance(&self, name: &str, policy: Value) -> Result<Instance, SetPolicyError> {
        let written = self
            .desired
            .set_instance_policy(US, &named(name), &read(policy));
        written.unwrap().outcome
    }

    /// Changes the group behind the API's back, as an endpoint that edits ports will.
    fn edit_group(&self, edit: impl Fn(&mut ServiceGroup)) {
        let edit = |draft: &mut Draft| {
            let mut group = draft.find_group(US, &named("web")).unwrap();
            edit(&mut group);
            draft.put_group(group);
        };
        self.desired.transact(edit).unwrap();
    }
}

#[track_caller]
fn check_refused<T: std::fmt::Debug>(result: Result<T, SetPolicyError>, message: &str) {
    assert_eq!(result.unwrap_err().to_string(), message);
}

#[test]
fn records_from_before_have_the_defaults() {
    let fixture = fixture();
    let state = fixture.desired.current();
    let group = state.service_group(US, &named("web")).unwrap();
    assert_eq!(group.policy, GroupPolicy::default());
    assert_eq!(group.policy.forwarding_mode, ForwardingMode::Nat);
    let instance = state.instance(US, &named("a")).unwrap();
    assert_eq!(instance.policy, InstancePolicy::default());
    assert_eq!(instance.policy.weight, 100);
    assert_eq!(instance.state, InstanceState::Running);
    // Who asks for nothing new goes on writing what the version before can read.
    let as_before = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    assert_eq!(serde_json::to_value(group).unwrap(), as_before(OLD_GROUP));
    assert_eq!(
        serde_json::to_value(instance).unwrap(),
        as_before(OLD_INSTANCE)
    );
}

#[test]
fn policies_are_stored_and_replaced_whole() {
    let fixture = fixture();
    let sources = json!({"allow": ["192.0.2.0/24"], "deny": ["2001:db8::/32"]});
    let quic = json!({"server_id_length": 8, "config_rotation": 2});
    let asked = json!({"forwarding_mode": "dsr-gue", "sources": sources, "quic": quic});
    fixture.set_group(asked.clone()).unwrap();
    let weighed = json!({"weight": 0, "quic_server_id": "0a0b0c0d01020304"});
    fixture.set_instance("a", weighed.clone()).unwrap();
    let before = fixture.desired.current();
    let again = Desired::load(fixture.store.clone()).unwrap().current();
    assert_eq!(again, before);
    let group = again.service_group(US, &named("web")).unwrap();
    assert_eq!(serde_json::to_value(&group.policy).unwrap(), asked);
    let policy = &again.instance(US, &named("a")).unwrap().policy;
    assert_eq!(serde_json::to_value(policy).unwrap(), weighed);
    // The same again is no change; something else replaces all of it.
    fixture.set_group(asked).unwrap();
    fixture.set_instance("a", weighed).unwrap();
    assert_eq!(fixture.desired.current().generation, before.generation);
    let group = fixture
        .set_group(json!({"quic": {"server_id_length": 8}}))
        .unwrap();
    assert_eq!(group.policy.forwarding_mode, ForwardingMode::Nat);
    assert!(group.policy.sources.is_empty());
    let instance = fixture.set_instance("a", json!({"weight": 7})).unwrap();
    assert_eq!(
        (instance.policy.weight, instance.policy.quic_server_id),
        (7, None)
    );
}

#[test]
fn a_mode_that_rewrites_no_ports_is_refused_where_ports_are_rewritten() {
    let fixture = fixture();
    fixture.edit_group(|group| group.services[1].destination_port = 8443);
    let generation = fixture.desired.current().generation;
    for mode in ["dsr-l2", "dsr-ipip", "dsr-gue"] {
        check_refused(
            fixture.set_group(json!({"forwarding_mode": mode})),
            &format!(
                "Service group 'web' publishes port 443/udp as port 8443 of its instances, which \
                 the forwarding mode {mode} cannot do: publish it with destination port 443, or \
                 use the forwarding mode nat"
            ),
        );
    }
    assert_eq!(fixture.desired.current().generation, generation);
    fixture
        .set_group(json!({"forwarding_mode": "nat"}))
        .unwrap();
    fixture.edit_group(|group| group.services[1].destination_port = 443);
    fixture
        .set_group(json!({"forwarding_mode": "dsr-l2"}))
        .unwrap();
}

#[test]
fn server_ids_fit_the_layout_and_name_one_instance() {
    let fixture = fixture();
    fixture
        .set_instance("a", json!({"quic_server_id": "0102"}))
        .unwrap();
    check_refused(
        fixture.set_instance("b", json!({"quic_server_id": "0102"})),
        "QUIC server id 0102 belongs to instance 'a' of service group 'web' already; choose \
         another one",
    );
    // An instance does not clash with itself.
    fixture
        .set_instance("a", json!({"quic_server_id": "0102", "weight": 1}))
        .unwrap();
    let long = "Instance 'a' has the QUIC server id 0102 of length 2, but service group 'web' has a \
                server id length of 8: give it an id of that length, or remove its id first";
    check_refused(
        fixture.set_group(json!({"quic": {"server_id_length": 8}})),
        long,
    );
    fixture
        .set_group(json!({"quic": {"server_id_length": 2}}))
        .unwrap();
    check_refused(
        fixture.set_instance("b", json!({"quic_server_id": "010203"})),
        "Instance 'b' has the QUIC server id 010203 of length 3, but service group 'web' has a \
         server id length of 2: give it an id of that length, or remove its id first",
    );
    fixture
        .set_instance("b", json!({"quic_server_id": "0103"}))
        .unwrap();
}

#[test]
fn another_gateway_cannot_give_the_same_server_id_at_the_same_time() {
    let fixture = fixture();
    let other = Desired::load(fixture.store.clone()).unwrap();
    let id = json!({"quic_server_id": "0102"});
    fixture.set_instance("a", id.clone()).unwrap();
    // `other` has not seen that.
    let written = other.set_instance_policy(US, &named("b"), &read(id));
    let refused = written.unwrap().outcome.unwrap_err();
    assert!(
        matches!(&refused, SetPolicyError::Conflict(PolicyConflict::ServerIdTaken { by, .. }) if by == "a"),
        "{refused}"
    );
}

#[test]
fn what_has_no_effect_yet_is_remarked() {
    let fixture = fixture();
    let of_group = |group: &ServiceGroup| group_remarks(&fixture.desired.current(), group);
    let of_instance = |instance: &Instance| instance_remarks(&fixture.desired.current(), instance);
    let a = fixture
        .set_instance("a", json!({"quic_server_id": "01"}))
        .unwrap();
    assert_eq!(
        of_instance(&a),
        ["The QUIC server id has no effect: service group 'web' has no QUIC layout"]
    );
    let group = fixture.set_group(json!({})).unwrap();
    assert_eq!(
        of_group(&group),
        [
            "Instance 'a' has a QUIC server id, which has no effect: service group 'web' has no \
          QUIC layout"
        ]
    );
    let group = fixture
        .set_group(json!({"quic": {"server_id_length": 1}}))
        .unwrap();
    let without_id = "1 of 2 instances of service group 'web' have no QUIC server id ('b'): give \
                      each one, or packets of a client that moved may go elsewhere";
    assert_eq!(of_group(&group), [without_id]);
    let tcp_only = ServiceGroup {
        services: group.services[..1].to_vec(),
        ..group
    };
    let no_udp = "The QUIC layout has no effect: service group 'web' publishes no UDP port";
    assert_eq!(of_group(&tcp_only), [no_udp, without_id]);
    assert_eq!(of_instance(&a), [""; 0]);
    let alone = Instance {
        service_group: None,
        ..a
    };
    let no_group = "The QUIC server id has no effect: the instance serves no service group";
    assert_eq!(of_instance(&alone), [no_group]);
}

#[test]
fn checks_of_what_is_not_published_are_remarked() {
    let fixture = fixture();
    let set = |health: Value| {
        let group = fixture.set_group(json!({ "health": health })).unwrap();
        group_remarks(&fixture.desired.current(), &group)
    };
    let other_port = set(json!({"services": [
        {"port": 80}, {"port": 9090, "check": {"kind": "tcp"}}
    ]}));
    assert_eq!(
        other_port,
        [
            "The health check of port 9090/tcp has no effect: service group 'web' does not publish it"
        ]
    );
    fixture.edit_group(|group| group.services.retain(|it| it.protocol == Transport::Udp));
    let other_protocol = set(json!({"check": {"kind": "tcp"}}));
    assert_eq!(
        other_protocol,
        [
            "The health check has no effect: it uses tcp, and service group 'web' publishes no \
             port of that; give the check a port of the instances"
        ]
    );
    assert_eq!(set(json!({"check": {"kind": "tcp", "port": 9}})), [""; 0]);
}

#[test]
fn settings_of_ports_go_with_their_handlers() {
    use lbagent_api::service_group::Handler::{Http, Redirect, Tls};
    let fixture = fixture();
    let set = |handlers: &[lbagent_api::service_group::Handler], setting: (&str, Value)| {
        fixture.edit_group(|group| {
            group.policy = GroupPolicy::default();
            group.services[0].handlers = handlers.to_vec();
        });
        let mut port = json!({"port": 80});
        port[setting.0] = setting.1;
        fixture.set_group(json!({"terminated": [port]}))
    };
    for (handlers, setting, value, words) in [
        (
            &[Tls][..],
            "upstream",
            json!("h2c"),
            "the handlers tls: the gateway speaks HTTP",
        ),
        (
            &[Http, Redirect],
            "upstream",
            json!("h2c"),
            "the handlers http+redirect: ",
        ),
        (
            &[Tls, Http],
            "send_proxy",
            json!(true),
            "instances read X-Forwarded-For",
        ),
        (
            &[],
            "send_proxy",
            json!(true),
            "which has no handlers: the PROXY protocol is for",
        ),
        (
            &[Tls],
            "requests_per_source",
            json!(1),
            "requests are seen at ports with the handler http",
        ),
    ] {
        let error = set(handlers, (setting, value)).unwrap_err().to_string();
        let start = format!("Service group 'web' cannot have '{setting}' for port 80, which has ");
        assert!(
            error.starts_with(&start) && error.contains(words),
            "{error}"
        );
    }
    set(&[Http, Redirect], ("requests_per_source", json!(1))).unwrap();
    set(&[Tls], ("send_proxy", json!(true))).unwrap();
    let group = set(&[Tls, Http], ("upstream", json!("h2c"))).unwrap();
    // The port cannot become one that the setting is not for.
    let mut changed = group.clone();
    changed.services[0].handlers = vec![Tls];
    assert!(matches!(
        check_group(&changed),
        Err(PolicyConflict::Handlers(_))
    ));
    let remarks = |group: &ServiceGroup| group_remarks(&fixture.desired.current(), group);
    assert_eq!(remarks(&group), Vec::<String>::new());
    changed.services.clear();
    assert_eq!(check_group(&changed), Ok(()));
    let idle = "The settings of port 80 have no effect: service group 'web' does not publish it \
                with handlers";
    assert_eq!(remarks(&changed), [idle]);
}
